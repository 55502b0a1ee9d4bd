#include "model/optimizer.h"

#include <math.h>
#include <stdlib.h>

enum {
    STATS = 3,   /* norm, clip coefficient, not finite: see ct_grad_stats_args */
    SCHEDULE = 3 /* see ct_adamw_args */
};

struct ct_optimizer {
    ct_exec exec;
    ct_optimizer_segment *segments;
    int segment_count;
    void *memory; /* of the four tensors */
    ct_tensor norm, stats, schedule, step;
    const ct_param *loss_scale; /* NULL: the loss is not scaled */
    bool stochastic_rounding;
    const ct_config *config;
    int64_t total_steps;
};

static void collect_segments(ct_optimizer *optimizer, const ct_config *config,
                             const ct_params *params)
{
    const double lr[] = {[CT_GROUP_IMAGE] = config->train.lr_image,
                         [CT_GROUP_TEXT] = config->train.lr_text,
                         [CT_GROUP_HEAD] = config->train.lr_head};
    for (int i = 0; i < ct_params_count(params); i++) {
        const ct_param *param = ct_params_at(params, i);
        if (param->buffer) continue;
        ct_optimizer_segment *segment = &optimizer->segments[optimizer->segment_count++];
        *segment = (ct_optimizer_segment){
            .value = param->value,
            .grad = param->grad,
            .exp_avg = param->exp_avg,
            .exp_avg_sq = param->exp_avg_sq,
            .key = ct_rng_make((uint64_t)config->seed, CT_RNG_ROUNDING, 0, (uint64_t)i),
            .lr_scale = (float)lr[param->group],
            .weight_decay = param->decay ? (float)config->train.weight_decay : 0.0f,
            .max_value = param->max_value,
        };
        if (param->weight.data != param->value.data) segment->weight = param->weight;
    }
}

static ct_status run(const ct_optimizer *optimizer, const ct_exec *exec)
{
    const ct_config *config = optimizer->config;
    CT_TRY(ct_op_grad_norm(exec, &(ct_grad_norm_args){.norm = optimizer->norm,
                                                      .segments = optimizer->segments,
                                                      .segment_count = optimizer->segment_count}));
    ct_grad_stats_args stats = {.stats = optimizer->stats,
                                .norms = optimizer->norm,
                                .max_norm = (float)config->train.clip_grad_norm,
                                .growth_interval = (int)config->train.loss_scale_growth};
    if (optimizer->loss_scale) stats.loss_scale = optimizer->loss_scale->value;
    CT_TRY(ct_op_grad_stats(exec, &stats));
    return ct_op_adamw(exec,
                       &(ct_adamw_args){.segments = optimizer->segments,
                                        .segment_count = optimizer->segment_count,
                                        .stats = optimizer->stats,
                                        .schedule = optimizer->schedule,
                                        .step = optimizer->step,
                                        .beta1 = config->train.beta1,
                                        .beta2 = config->train.beta2,
                                        .eps = config->train.eps,
                                        .stochastic_rounding = optimizer->stochastic_rounding});
}

/* Places the four tensors from `memory` on (NULL: only measures). */
static ct_status place(ct_optimizer *optimizer, void *memory, size_t *bytes)
{
    ct_arena arena;
    ct_arena_init(&arena, memory, *bytes);
    optimizer->norm = ct_tensor1(NULL, CT_F32, 1);
    optimizer->stats = ct_tensor1(NULL, CT_F32, STATS);
    optimizer->schedule = ct_tensor1(NULL, CT_F32, SCHEDULE);
    optimizer->step = ct_tensor1(NULL, CT_I32, 1);
    ct_tensor *const tensors[] = {&optimizer->norm, &optimizer->stats, &optimizer->schedule,
                                  &optimizer->step};
    for (int i = 0; i < 4; i++)
        CT_TRY(ct_arena_push(&arena, ct_tensor_bytes(tensors[i]), &tensors[i]->data));
    *bytes = arena.peak_bytes;
    return CT_OK;
}

static ct_status prepare(ct_optimizer *optimizer, const ct_params *params)
{
    ct_device *device = optimizer->exec.device;
    size_t bytes = 0;
    CT_TRY(ct_alloc((size_t)ct_params_count(params), sizeof *optimizer->segments,
                    "optimizer segments", &optimizer->segments));
    collect_segments(optimizer, optimizer->config, params);
    CT_TRY(place(optimizer, NULL, &bytes));
    CT_TRY(device->backend->alloc(device, bytes, "optimizer statistics", &optimizer->memory));
    CT_TRY(place(optimizer, optimizer->memory, &bytes));
    ct_exec planning = optimizer->exec;
    planning.planning = true;
    CT_TRY(run(optimizer, &planning));
    return device->backend->commit(device);
}

ct_status ct_optimizer_create(const ct_config *config, ct_params *params, ct_device *device,
                              int64_t total_steps, ct_optimizer **out)
{
    ct_optimizer *optimizer;
    CT_TRY(ct_alloc(1, sizeof *optimizer, "the optimizer", &optimizer));
    optimizer->exec.device = device;
    optimizer->config = config;
    optimizer->total_steps = total_steps;
    optimizer->loss_scale = ct_params_find(params, "loss_scale");
    optimizer->stochastic_rounding =
        config->train.stochastic_rounding && device->compute_dtype == CT_BF16;
    ct_status status = prepare(optimizer, params);
    if (status != CT_OK) {
        ct_optimizer_destroy(optimizer);
        return status;
    }
    *out = optimizer;
    return CT_OK;
}

void ct_optimizer_destroy(ct_optimizer *optimizer)
{
    if (!optimizer) return;
    ct_device *device = optimizer->exec.device;
    device->backend->free(device, optimizer->memory);
    free(optimizer->segments);
    free(optimizer);
}

static ct_status upload_step(ct_optimizer *optimizer, int64_t step)
{
    ct_device *device = optimizer->exec.device;
    const int32_t number = (int32_t)(step & INT32_MAX); /* ct_rng_at_step takes 24 bits of it */
    return device->backend->upload(device, optimizer->step.data, &number, sizeof number);
}

ct_status ct_optimizer_stage(ct_optimizer *optimizer, int64_t step)
{
    const ct_config *config = optimizer->config;
    ct_device *device = optimizer->exec.device;
    const double bias1 = 1.0 - pow(config->train.beta1, (double)step);
    const double bias2 = 1.0 - pow(config->train.beta2, (double)step);
    const float schedule[SCHEDULE] = {
        (float)ct_schedule_factor(config, step, optimizer->total_steps), (float)(1.0 / bias1),
        (float)(1.0 / sqrt(bias2))};
    CT_TRY(device->backend->upload(device, optimizer->schedule.data, schedule, sizeof schedule));
    return upload_step(optimizer, step);
}

ct_status ct_optimizer_step(ct_optimizer *optimizer)
{
    return run(optimizer, &optimizer->exec);
}

ct_status ct_optimizer_restore(ct_optimizer *optimizer, int64_t step)
{
    if (!optimizer->stochastic_rounding || step == 0) return CT_OK;
    CT_TRY(upload_step(optimizer, step));
    for (int i = 0; i < optimizer->segment_count; i++) {
        const ct_optimizer_segment *segment = &optimizer->segments[i];
        if (!ct_tensor_present(&segment->weight)) continue;
        CT_TRY(ct_op_cast(&optimizer->exec, &(ct_cast_args){.y = segment->weight,
                                                            .x = segment->value,
                                                            .step = optimizer->step,
                                                            .key = segment->key,
                                                            .stochastic = true}));
    }
    return CT_OK;
}

ct_status ct_optimizer_get_stats(ct_optimizer *optimizer, ct_optimizer_stats *stats)
{
    ct_device *device = optimizer->exec.device;
    float host[STATS], scale[2] = {0, 0};
    CT_TRY(device->backend->download(device, host, optimizer->stats.data, sizeof host));
    if (optimizer->loss_scale)
        CT_TRY(device->backend->download(device, scale, optimizer->loss_scale->value.data,
                                         sizeof scale));
    *stats = (ct_optimizer_stats){
        .grad_norm = host[0], .skipped = host[2] != 0.0f, .loss_scale = scale[0]};
    return CT_OK;
}

double ct_schedule_factor(const ct_config *config, int64_t step, int64_t total_steps)
{
    static const double pi = 3.14159265358979323846;
    const int64_t warmup = config->train.warmup_steps, done = step - 1;
    if (done < warmup) return (double)step / (double)(warmup + 1);
    if (config->train.schedule == CT_SCHEDULE_CONSTANT) return 1.0;
    if (done >= total_steps) return 0.0;
    return 0.5 * (1.0 + cos(pi * (double)(done - warmup) / (double)(total_steps - warmup)));
}
