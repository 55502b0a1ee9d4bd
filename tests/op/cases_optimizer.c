/* Cases of grad_norm, grad_stats and adamw: whole training steps over two parameter tensors, the
 * second of which has its own learning rate, no weight decay and perhaps an upper bound. Several
 * ranks may hold a contiguous part of each tensor: every rank's part has a norm, and is updated, of
 * its own.
 * p = elements of the first, of the second, steps, max_norm in thousandths, flags, steps after
 * which the loss scale grows, ranks (0 is 1; several without WEIGHT). */
#include <math.h>

#include "base/half.h"
#include "case.h"

enum {
    BOUNDED = 1,    /* the second tensor's values may not exceed BOUND */
    FRESH = 2,      /* moments start at zero and steps at 1 */
    NON_FINITE = 4, /* a gradient of the second step is infinite: the step changes nothing */
    SCALED = 8,     /* gradients are those of the loss times a scale that adapts */
    WEIGHT = 16,    /* the first tensor's weight in the compute dtype is written too ... */
    STOCHASTIC = 32 /* ... in bf16 with stochastic rounding */
};

enum { VALUE, EXP_AVG, EXP_AVG_SQ, GRADS, NORMS, STATS, SCHEDULE, STEPS, LOSS_SCALE, WEIGHTS };

enum { SEGMENTS = 2, EARLIER_STEPS = 20, FACTORS = 3 };

#define LARGEST_SCALE 0x1p24

static const double beta1 = 0.9, beta2 = 0.98, eps = 1e-6, bound = 0.25;
static const double lr_scale[SEGMENTS] = {1e-2, 5e-2}, weight_decay[SEGMENTS] = {0.2, 0};

static double schedule(int64_t step)
{
    return 1 / (1 + 0.1 * (double)step);
}

static int64_t ranks_of(const ct_case_run *run)
{
    return run->p[6] > 1 ? run->p[6] : 1;
}

/* The first element, among those of both tensors, of a rank's part of tensor `segment`; the part
 * ends where the next rank's begins. */
static int64_t part_begin(const ct_case_run *run, int segment, int64_t rank)
{
    return (segment ? run->p[0] : 0) + run->p[segment] * rank / ranks_of(run);
}

/* Number of the optimiser step that is the case's step `index`, from 0. */
static int64_t step_number(const ct_case_run *run, int64_t index)
{
    return index + 1 + (run->p[4] & FRESH ? 0 : EARLIER_STEPS);
}

static void setup(ct_case_run *run)
{
    int64_t count = run->p[0] + run->p[1], steps = run->p[2];
    const int64_t *list = (const int64_t[]){count, 0};
    ct_case_slot(run, VALUE, "value", CT_SLOT_STATE, CT_F32, list, false);
    ct_case_slot(run, EXP_AVG, "exp_avg", CT_SLOT_STATE, CT_F32, list, false);
    ct_case_slot(run, EXP_AVG_SQ, "exp_avg_sq", CT_SLOT_STATE, CT_F32, list, false);
    ct_case_slot(run, GRADS, "grads", CT_SLOT_CONST, CT_F32, (const int64_t[]){steps, count, 0},
                 false);
    ct_case_slot(run, NORMS, "norms", CT_SLOT_SAVED, CT_F32, (const int64_t[]){ranks_of(run), 0},
                 false)
        ->terms = 1;
    ct_case_slot(run, STATS, "stats", CT_SLOT_SAVED, CT_F32, (const int64_t[]){3, 0}, false)
        ->terms = 1;
    ct_case_slot(run, SCHEDULE, "schedule", CT_SLOT_CONST, CT_F32,
                 (const int64_t[]){steps, FACTORS, 0}, false);
    ct_case_slot(run, STEPS, "steps", CT_SLOT_CONST, CT_I32, (const int64_t[]){steps, 0}, false);
    ct_case_slot(run, LOSS_SCALE, "loss_scale", CT_SLOT_STATE, CT_F32, (const int64_t[]){2, 0},
                 !(run->p[4] & SCALED));
    ct_case_slot(run, WEIGHTS, "weight", CT_SLOT_SAVED, CT_CASE_COMPUTE,
                 (const int64_t[]){run->p[0], 0}, !(run->p[4] & WEIGHT));
    run->slot[WEIGHTS].terms = (double)(2 * steps);
    /* Each step adds to the moments, shrinks the value and adds to it. */
    for (int s = VALUE; s <= EXP_AVG_SQ; s++) run->slot[s].terms = (double)(2 * steps);
}

static void fill(ct_case_run *run)
{
    int64_t count = run->p[0] + run->p[1];
    for (int64_t i = 0; i < count; i++) {
        double *m = &run->slot[EXP_AVG].v[i], *v = &run->slot[EXP_AVG_SQ].v[i];
        *m = run->p[4] & FRESH ? 0 : 0.1 * *m;
        *v = run->p[4] & FRESH ? 0 : 0.1 + *v * *v;
    }
    if (run->p[4] & NON_FINITE) run->slot[GRADS].v[count + count / 2] = INFINITY;
    for (int64_t index = 0; index < run->p[2]; index++) {
        const int64_t step = step_number(run, index);
        double *factor = run->slot[SCHEDULE].v + FACTORS * index;
        factor[0] = schedule(step);
        factor[1] = 1 / (1 - pow(beta1, (double)step));
        factor[2] = 1 / sqrt(1 - pow(beta2, (double)step));
        run->slot[STEPS].v[index] = (double)step;
    }
    if (run->p[4] & SCALED) {
        run->slot[LOSS_SCALE].v[0] = 4096;
        run->slot[LOSS_SCALE].v[1] = 0;
        for (int64_t i = 0; i < run->slot[GRADS].count; i++) run->slot[GRADS].v[i] *= 4096;
    }
}

static void ref_norms(ct_case_run *run, const double *grad)
{
    for (int64_t r = 0; r < ranks_of(run); r++) {
        double squares = 0;
        for (int segment = 0; segment < SEGMENTS; segment++)
            for (int64_t i = part_begin(run, segment, r); i < part_begin(run, segment, r + 1); i++)
                squares += grad[i] * grad[i];
        run->slot[NORMS].v[r] = sqrt(squares);
    }
}

/* What grad_stats does: the gradients as they are, times stats[1], are clipped and true. */
static void ref_stats(ct_case_run *run)
{
    double max_norm = (double)run->p[3] / 1000, *stats = run->slot[STATS].v, squares = 0;
    double *scale = run->p[4] & SCALED ? run->slot[LOSS_SCALE].v : NULL;
    for (int64_t r = 0; r < ranks_of(run); r++) squares += pow(run->slot[NORMS].v[r], 2);
    stats[0] = sqrt(squares) / (scale ? scale[0] : 1);
    stats[1] = max_norm > 0 ? fmin(1, max_norm / (stats[0] + 1e-6)) : 1;
    stats[2] = !isfinite(stats[0]);
    if (!scale) return;
    stats[1] /= scale[0];
    scale[1] = stats[2] != 0 ? 0 : scale[1] + 1;
    if (stats[2] != 0) scale[0] /= 2;
    if (scale[1] >= (double)run->p[5]) {
        scale[0] = fmin(2 * scale[0], LARGEST_SCALE);
        scale[1] = 0;
    }
}

static ct_rng_key rounding_key(const ct_case_run *run, int64_t step)
{
    return ct_rng_make(run->seed, CT_RNG_ROUNDING, (uint64_t)step, 6);
}

static bool stochastic(const ct_case_run *run)
{
    return run->p[4] & STOCHASTIC && run->compute_dtype == CT_BF16;
}

/* The harness rounds what is left here to the nearest. */
static void ref_weight(ct_case_run *run, int64_t step)
{
    for (int64_t i = 0; i < run->slot[WEIGHTS].count; i++) {
        double x = run->slot[VALUE].v[i];
        if (run->rounded && stochastic(run))
            x = (double)ct_bf16_to_f32(
                ct_bf16_stochastic((float)x, ct_rng_u32(rounding_key(run, step), (uint64_t)i)));
        run->slot[WEIGHTS].v[i] = x;
    }
}

static void ref_step(ct_case_run *run, int64_t index)
{
    int64_t count = run->p[0] + run->p[1], step = step_number(run, index);
    const double *grad = run->slot[GRADS].v + index * count;
    const double *factor = run->slot[SCHEDULE].v + FACTORS * index, *stats = run->slot[STATS].v;
    ref_norms(run, grad);
    ref_stats(run);
    if (stats[2] != 0) return;
    for (int64_t i = 0; i < count; i++) {
        int segment = i >= run->p[0];
        double lr = factor[0] * lr_scale[segment], g = stats[1] * grad[i];
        double *x = &run->slot[VALUE].v[i];
        double *m = &run->slot[EXP_AVG].v[i], *v = &run->slot[EXP_AVG_SQ].v[i];
        *x *= 1 - lr * weight_decay[segment];
        *m = beta1 * *m + (1 - beta1) * g;
        *v = beta2 * *v + (1 - beta2) * g * g;
        *x -= lr * factor[1] * *m / (sqrt(*v) * factor[2] + eps);
        if (segment == 1 && run->p[4] & BOUNDED) *x = fmin(*x, bound);
    }
    ref_weight(run, step);
}

static void ref_fwd(ct_case_run *run)
{
    for (int64_t index = 0; index < run->p[2]; index++) ref_step(run, index);
}

/* `count` elements from `first` on; the data stays NULL while memory is being planned. */
static ct_tensor part(const ct_slot *slot, int64_t first, int64_t count)
{
    return ct_tensor1(slot->t.data ? ct_f32(&slot->t) + first : NULL, CT_F32, count);
}

/* One rank's parts of both tensors. */
static void set_segments(const ct_case_run *run, int64_t index, int64_t rank,
                         ct_optimizer_segment *segments)
{
    const ct_slot *s = run->slot;
    for (int k = 0; k < SEGMENTS; k++) {
        const int64_t begin = part_begin(run, k, rank);
        const int64_t count = part_begin(run, k, rank + 1) - begin;
        segments[k] = (ct_optimizer_segment){
            .value = part(&s[VALUE], begin, count),
            .grad = part(&s[GRADS], index * (run->p[0] + run->p[1]) + begin, count),
            .exp_avg = part(&s[EXP_AVG], begin, count),
            .exp_avg_sq = part(&s[EXP_AVG_SQ], begin, count),
            .weight = k ? (ct_tensor){0} : s[WEIGHTS].t,
            .key = rounding_key(run, 0),
            .lr_scale = (float)lr_scale[k],
            .weight_decay = (float)weight_decay[k],
            .max_value = k && run->p[4] & BOUNDED ? (float)bound : INFINITY};
    }
}

static ct_status step(ct_case_run *run, int64_t index)
{
    const ct_slot *s = run->slot;
    ct_optimizer_segment segments[SEGMENTS];
    for (int64_t r = 0; r < ranks_of(run); r++) {
        set_segments(run, index, r, segments);
        CT_TRY(ct_op_grad_norm(&run->exec, &(ct_grad_norm_args){.norm = part(&s[NORMS], r, 1),
                                                                .segments = segments,
                                                                .segment_count = SEGMENTS}));
    }
    CT_TRY(ct_op_grad_stats(&run->exec, &(ct_grad_stats_args){.stats = s[STATS].t,
                                                              .loss_scale = s[LOSS_SCALE].t,
                                                              .norms = s[NORMS].t,
                                                              .max_norm = (float)run->p[3] / 1000,
                                                              .growth_interval = (int)run->p[5]}));
    ct_tensor number = s[STEPS].t;
    number.dim[0] = 1;
    if (number.data) number.data = ct_i32(&number) + index;
    for (int64_t r = 0; r < ranks_of(run); r++) {
        set_segments(run, index, r, segments);
        CT_TRY(ct_op_adamw(
            &run->exec, &(ct_adamw_args){.segments = segments,
                                         .segment_count = SEGMENTS,
                                         .stats = s[STATS].t,
                                         .schedule = part(&s[SCHEDULE], FACTORS * index, FACTORS),
                                         .step = number,
                                         .beta1 = beta1,
                                         .beta2 = beta2,
                                         .eps = eps,
                                         .stochastic_rounding = stochastic(run)}));
    }
    return CT_OK;
}

static ct_status fwd(ct_case_run *run)
{
    for (int64_t index = 0; index < run->p[2]; index++) CT_TRY(step(run, index));
    return CT_OK;
}

static double flops(const int64_t *p, bool backward)
{
    (void)backward;
    return (double)((p[0] + p[1]) * p[2]) * 16;
}

static const ct_kind adamw = {"adamw", setup, fill, ref_fwd, NULL, fwd, NULL, flops, false};

static const ct_case cases[] = {
    {&adamw, "adamw_1_step", {7, 1, 1, 0, FRESH}},
    {&adamw, "adamw_10_steps", {33, 5, 10, 0, FRESH}},
    {&adamw, "adamw_10_steps_clipped", {33, 5, 10, 1000, FRESH}},
    {&adamw, "adamw_10_steps_bounded", {19, 12, 10, 100000, FRESH | BOUNDED}},
    {&adamw, "adamw_later_steps", {100, 27, 5, 2000, 0}},
    {&adamw, "adamw_non_finite", {40, 3, 3, 1000, NON_FINITE}},
    {&adamw, "adamw_blocks", {100001, 16385, 2, 1000, 0}},
    {&adamw, "adamw_weight", {1001, 77, 3, 2000, WEIGHT}},
    {&adamw, "adamw_weight_stochastic", {4099, 5, 2, 0, WEIGHT | STOCHASTIC}},
    {&adamw, "adamw_loss_scale", {45, 20, 5, 1000, SCALED | WEIGHT, 2}},
    {&adamw, "adamw_loss_scale_non_finite", {45, 20, 4, 0, SCALED | NON_FINITE, 2}},
    {&adamw, "adamw_ranks", {101, 33, 3, 1000, 0, 0, 3}},
    {&adamw, "adamw_ranks_empty", {3, 1, 2, 0, 0, 0, 6}},
    {&adamw, "adamw_ranks_blocks", {100001, 3, 2, 1000, SCALED, 1, 4}},
    {&adamw, "adamw_ranks_many", {500, 7, 2, 500, BOUNDED, 0, 70}},
    {&adamw, "adamw_ranks_non_finite", {45, 20, 4, 0, SCALED | NON_FINITE, 2, 2}},
};

CT_DEFINE_CASE_TABLE(optimizer, cases);
