#include "model/optimizer.h"

#include <math.h>
#include <stdlib.h>

enum {
    STATS = 3,   /* norm, clip coefficient, not finite: see ct_grad_norm_args */
    SCHEDULE = 3 /* see ct_adamw_args */
};

struct ct_optimizer {
    ct_exec exec;
    const ct_params *params;
    ct_optimizer_segment *segments;
    size_t segment_count, segment_capacity;
    void *memory; /* of the four tensors */
    ct_tensor stats, schedule, step;
    ct_tensor norms;            /* (1), or (ranks) where each has the gradients of its own parts */
    const ct_param *loss_scale; /* NULL: the loss is not scaled */
    bool stochastic_rounding;
    const ct_config *config;
    int64_t total_steps;
};

static bool has_weight(const ct_param *param)
{
    return param->weight.data != param->value.data;
}

static ct_rng_key rounding_key(const ct_optimizer *optimizer, const ct_param *param)
{
    return ct_rng_make((uint64_t)optimizer->config->seed, CT_RNG_ROUNDING, 0,
                       (uint64_t)param->index);
}

static ct_status add_segment(ct_optimizer *optimizer, const ct_param *param,
                             ct_optimizer_segment segment)
{
    const ct_config *config = optimizer->config;
    const double lr[] = {[CT_GROUP_IMAGE] = config->train.lr_image,
                         [CT_GROUP_TEXT] = config->train.lr_text,
                         [CT_GROUP_HEAD] = config->train.lr_head};
    CT_TRY(ct_grow(&optimizer->segments, &optimizer->segment_capacity, optimizer->segment_count + 1,
                   sizeof *optimizer->segments, "optimizer segments"));
    segment.key = rounding_key(optimizer, param);
    segment.lr_scale = (float)lr[param->group];
    segment.weight_decay = param->decay ? (float)config->train.weight_decay : 0.0f;
    segment.max_value = param->max_value;
    optimizer->segments[optimizer->segment_count++] = segment;
    return CT_OK;
}

static ct_status add_whole(ct_optimizer *optimizer, const ct_param *param)
{
    ct_optimizer_segment segment = {.value = param->value,
                                    .grad = param->grad,
                                    .exp_avg = param->exp_avg,
                                    .exp_avg_sq = param->exp_avg_sq};
    if (has_weight(param)) segment.weight = param->weight;
    return add_segment(optimizer, param, segment);
}

/* What this rank's parts have of the parameter. Weights are renewed when all parts have been
 * gathered. */
static ct_status add_own_parts(ct_optimizer *optimizer, const ct_param *param)
{
    const ct_shards *shards = ct_params_shards(optimizer->params);
    const ct_tensor values = ct_params_values(optimizer->params),
                    grads = ct_params_grads(optimizer->params),
                    exp_avg = ct_params_moments(optimizer->params, 0),
                    exp_avg_sq = ct_params_moments(optimizer->params, 1);
    const int64_t begin = ct_f32(&param->grad) - ct_f32(&grads);
    const ct_range all = {begin, begin + ct_tensor_count(&param->grad)};
    for (int64_t b = all.begin / shards->bucket; b * shards->bucket < all.end; b++) {
        const ct_range own = ct_shards_own(shards, b), common = ct_range_common(own, all);
        const int64_t count = ct_range_count(common);
        if (count == 0) continue;
        const int64_t moment = ct_shards_own_begin(shards, b) + common.begin - own.begin;
        CT_TRY(add_segment(
            optimizer, param,
            (ct_optimizer_segment){.value = ct_tensor_rows(&values, common.begin, count),
                                   .grad = ct_tensor_rows(&grads, common.begin, count),
                                   .exp_avg = ct_tensor_rows(&exp_avg, moment, count),
                                   .exp_avg_sq = ct_tensor_rows(&exp_avg_sq, moment, count)}));
    }
    return CT_OK;
}

static ct_status collect_segments(ct_optimizer *optimizer)
{
    const ct_params *params = optimizer->params;
    for (int i = 0; i < ct_params_count(params); i++) {
        const ct_param *param = ct_params_at(params, i);
        if (param->buffer) continue;
        CT_TRY(ct_params_own_moments(params) ? add_own_parts(optimizer, param)
                                             : add_whole(optimizer, param));
    }
    return CT_OK;
}

/* ---- a step --------------------------------------------------------------------------------- */

static ct_status measure(const ct_optimizer *optimizer, const ct_exec *exec)
{
    const ct_config *config = optimizer->config;
    const bool parts = ct_params_own_moments(optimizer->params);
    const ct_tensor own =
        ct_tensor_rows(&optimizer->norms, parts ? ct_comm_rank(exec->device->comm) : 0, 1);
    ct_grad_stats_args stats = {.stats = optimizer->stats,
                                .norms = optimizer->norms,
                                .max_norm = (float)config->train.clip_grad_norm,
                                .growth_interval = (int)config->train.loss_scale_growth};
    if (optimizer->loss_scale) stats.loss_scale = optimizer->loss_scale->value;
    CT_TRY(ct_op_grad_norm(exec,
                           &(ct_grad_norm_args){.norm = own,
                                                .segments = optimizer->segments,
                                                .segment_count = (int)optimizer->segment_count}));
    if (parts) CT_TRY(ct_exec_all_gather(exec, &optimizer->norms, &own));
    return ct_op_grad_stats(exec, &stats);
}

/* Rounds a parameter's value to its weight, as the update does where it has the whole of it. */
static ct_status renew_weight(const ct_optimizer *optimizer, const ct_exec *exec,
                              const ct_param *param)
{
    if (!has_weight(param) || param->buffer) return CT_OK;
    ct_cast_args args = {.y = param->weight,
                         .x = param->value,
                         .key = rounding_key(optimizer, param),
                         .stochastic = optimizer->stochastic_rounding};
    if (args.stochastic) args.step = optimizer->step;
    return ct_op_cast(exec, &args);
}

static ct_status renew_weights(const ct_optimizer *optimizer, const ct_exec *exec)
{
    for (int i = 0; i < ct_params_count(optimizer->params); i++)
        CT_TRY(renew_weight(optimizer, exec, ct_params_at(optimizer->params, i)));
    return CT_OK;
}

/* Each rank has updated its own parts: all get all. */
static ct_status gather_values(const ct_optimizer *optimizer, const ct_exec *exec)
{
    const ct_shards *shards = ct_params_shards(optimizer->params);
    const ct_tensor values = ct_params_values(optimizer->params);
    for (int64_t b = 0; b < ct_shards_buckets(shards); b++) {
        const ct_range all = ct_shards_bucket(shards, b), own = ct_shards_own(shards, b);
        const ct_tensor to = ct_tensor_rows(&values, all.begin, ct_range_count(all));
        const ct_tensor from = ct_tensor_rows(&values, own.begin, ct_range_count(own));
        CT_TRY(ct_exec_all_gather(exec, &to, &from));
    }
    return renew_weights(optimizer, exec);
}

static ct_status run(const ct_optimizer *optimizer, const ct_exec *exec)
{
    const ct_config *config = optimizer->config;
    CT_TRY(measure(optimizer, exec));
    CT_TRY(
        ct_op_adamw(exec, &(ct_adamw_args){.segments = optimizer->segments,
                                           .segment_count = (int)optimizer->segment_count,
                                           .stats = optimizer->stats,
                                           .schedule = optimizer->schedule,
                                           .step = optimizer->step,
                                           .beta1 = config->train.beta1,
                                           .beta2 = config->train.beta2,
                                           .eps = config->train.eps,
                                           .stochastic_rounding = optimizer->stochastic_rounding}));
    return ct_params_own_moments(optimizer->params) ? gather_values(optimizer, exec) : CT_OK;
}

/* ---- construction --------------------------------------------------------------------------- */

/* Places the four tensors from `memory` on (NULL: only measures). */
static ct_status place(ct_optimizer *optimizer, void *memory, size_t *bytes)
{
    ct_arena arena;
    ct_arena_init(&arena, memory, *bytes);
    optimizer->stats = ct_tensor1(NULL, CT_F32, STATS);
    optimizer->schedule = ct_tensor1(NULL, CT_F32, SCHEDULE);
    optimizer->step = ct_tensor1(NULL, CT_I32, 1);
    const int ranks = ct_comm_size(optimizer->exec.device->comm);
    optimizer->norms =
        ct_tensor1(NULL, CT_F32, ct_params_own_moments(optimizer->params) ? ranks : 1);
    ct_tensor *const tensors[] = {&optimizer->stats, &optimizer->schedule, &optimizer->step,
                                  &optimizer->norms};
    for (int i = 0; i < 4; i++)
        CT_TRY(ct_arena_push(&arena, ct_tensor_bytes(tensors[i]), &tensors[i]->data));
    *bytes = arena.peak_bytes;
    return CT_OK;
}

static ct_status prepare(ct_optimizer *optimizer)
{
    ct_device *device = optimizer->exec.device;
    size_t bytes = 0;
    CT_TRY(collect_segments(optimizer));
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
    optimizer->params = params;
    optimizer->config = config;
    optimizer->total_steps = total_steps;
    optimizer->loss_scale = ct_params_find(params, "loss_scale");
    optimizer->stochastic_rounding =
        config->train.stochastic_rounding && device->compute_dtype == CT_BF16;
    ct_status status = prepare(optimizer);
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
    return renew_weights(optimizer, &optimizer->exec);
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
