/* AdamW over a model's parameters, with per-group learning rates, clipping by the global norm, and
 * the learning-rate schedule. Steps on which the gradients are not finite change nothing. */
#ifndef CT_MODEL_OPTIMIZER_H
#define CT_MODEL_OPTIMIZER_H

#include "config/config.h"
#include "model/params.h"

typedef struct ct_optimizer ct_optimizer;

/* config, params (allocated with_training) and device are borrowed. total_steps: length of the
 * schedule. */
CT_NODISCARD ct_status ct_optimizer_create(const ct_config *config, ct_params *params,
                                           ct_device *device, int64_t total_steps,
                                           ct_optimizer **out);
void ct_optimizer_destroy(ct_optimizer *optimizer);

/* Uploads what update number `step` (from 1) needs. An update that is still running on the device
 * is not disturbed. */
CT_NODISCARD ct_status ct_optimizer_stage(ct_optimizer *optimizer, int64_t step);

/* The staged update from the gradients: operations only, the same ones in every step. */
CT_NODISCARD ct_status ct_optimizer_step(ct_optimizer *optimizer);

/* After parameters were restored: rounds the weights as update number `step` did, so that a run
 * with stochastic rounding goes on as if it had not stopped. Otherwise there is nothing to do. */
CT_NODISCARD ct_status ct_optimizer_restore(ct_optimizer *optimizer, int64_t step);

/* Of the last step; waits for the device. */
typedef struct ct_optimizer_stats {
    float grad_norm;  /* before clipping */
    bool skipped;     /* gradients were not finite */
    float loss_scale; /* that the next step will have; 0: the loss is not scaled */
} ct_optimizer_stats;
CT_NODISCARD ct_status ct_optimizer_get_stats(ct_optimizer *optimizer, ct_optimizer_stats *stats);

/* Factor of the learning rates at `step` (from 1): step/(warmup + 1) while step <= warmup, then
 * half a cosine that falls from 1 to zero when total_steps are done (so that the last step still
 * moves), or constant 1. */
double ct_schedule_factor(const ct_config *config, int64_t step, int64_t total_steps);

#endif
