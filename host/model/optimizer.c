#include "model/optimizer.h"

#include <math.h>
#include <stdlib.h>

enum { STATS = 3 }; /* norm, clip coefficient, not finite: see ct_grad_norm_args */

struct ct_optimizer {
    ct_exec exec;
    ct_optimizer_segment *segments;
    int segment_count;
    ct_tensor stats;
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
        optimizer->segments[optimizer->segment_count++] = (ct_optimizer_segment){
            .value = param->value,
            .grad = param->grad,
            .exp_avg = param->exp_avg,
            .exp_avg_sq = param->exp_avg_sq,
            .lr_scale = (float)lr[param->group],
            .weight_decay = param->decay ? (float)config->train.weight_decay : 0.0f,
            .max_value = param->max_value,
        };
    }
}

static ct_status run(const ct_optimizer *optimizer, const ct_exec *exec, int64_t step)
{
    const ct_config *config = optimizer->config;
    CT_TRY(ct_op_grad_norm(exec,
                           &(ct_grad_norm_args){.stats = optimizer->stats,
                                                .segments = optimizer->segments,
                                                .segment_count = optimizer->segment_count,
                                                .max_norm = (float)config->train.clip_grad_norm}));
    return ct_op_adamw(
        exec, &(ct_adamw_args){.segments = optimizer->segments,
                               .segment_count = optimizer->segment_count,
                               .stats = optimizer->stats,
                               .beta1 = config->train.beta1,
                               .beta2 = config->train.beta2,
                               .eps = config->train.eps,
                               .schedule = ct_schedule_factor(config, step, optimizer->total_steps),
                               .step = step});
}

static ct_status prepare(ct_optimizer *optimizer, const ct_params *params)
{
    CT_TRY(ct_alloc((size_t)ct_params_count(params), sizeof *optimizer->segments,
                    "optimizer segments", &optimizer->segments));
    collect_segments(optimizer, optimizer->config, params);
    ct_device *device = optimizer->exec.device;
    optimizer->stats = ct_tensor1(NULL, CT_F32, STATS);
    CT_TRY(device->backend->alloc(device, ct_tensor_bytes(&optimizer->stats),
                                  "optimizer statistics", &optimizer->stats.data));
    ct_exec planning = optimizer->exec;
    planning.planning = true;
    CT_TRY(run(optimizer, &planning, 1));
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
    device->backend->free(device, optimizer->stats.data);
    free(optimizer->segments);
    free(optimizer);
}

ct_status ct_optimizer_step(ct_optimizer *optimizer, int64_t step)
{
    return run(optimizer, &optimizer->exec, step);
}

ct_status ct_optimizer_get_stats(ct_optimizer *optimizer, ct_optimizer_stats *stats)
{
    ct_device *device = optimizer->exec.device;
    float host[STATS];
    CT_TRY(device->backend->download(device, host, optimizer->stats.data, sizeof host));
    *stats = (ct_optimizer_stats){.grad_norm = host[0], .skipped = host[2] != 0.0f};
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
