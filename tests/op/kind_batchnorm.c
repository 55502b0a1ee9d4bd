#include <math.h>

#include "kinds.h"

enum { P_N, P_H, P_W, P_C, P_RELU, P_RESIDUAL, P_ALIAS, P_MEAN, P_RANKS };
enum { X, RESIDUAL, GAMMA, BETA, Y, MEAN, RSTD, RUNNING_MEAN, RUNNING_VAR, MOMENTS, SUMS };

static const float eps = 1e-5f, momentum = 0.1f;

static int64_t rows_of(const int64_t *p)
{
    return p[P_N] * p[P_H] * p[P_W];
}

/* The slots of training and evaluation alike, as far as they agree. */
static void slots(ct_case_run *run, ct_slot_role input, ct_slot_role parameter)
{
    const int64_t *p = run->p;
    const int64_t image[] = {p[P_N], p[P_H], p[P_W], p[P_C], 0}, channels[] = {p[P_C], 0};
    ct_case_slot(run, X, "x", input, CT_CASE_COMPUTE, image, false);
    ct_case_slot(run, RESIDUAL, "residual", input, CT_CASE_COMPUTE, image, !p[P_RESIDUAL]);
    ct_case_slot(run, GAMMA, "gamma", parameter, CT_F32, channels, false);
    ct_case_slot(run, BETA, "beta", parameter, CT_F32, channels, false);
    ct_case_slot(run, Y, "y", CT_SLOT_OUTPUT, CT_CASE_COMPUTE, image, false);
}

static void train_setup(ct_case_run *run)
{
    const int64_t *p = run->p, channels[] = {p[P_C], 0};
    slots(run, CT_SLOT_INPUT, CT_SLOT_PARAM);
    ct_case_slot(run, MEAN, "mean", CT_SLOT_SAVED, CT_F32, channels, false);
    ct_case_slot(run, RSTD, "rstd", CT_SLOT_SAVED, CT_F32, channels, false);
    ct_case_slot(run, RUNNING_MEAN, "running_mean", CT_SLOT_STATE, CT_F32, channels, false);
    ct_case_slot(run, RUNNING_VAR, "running_var", CT_SLOT_STATE, CT_F32, channels, false);
    for (int s = X; s <= RUNNING_VAR; s++)
        run->slot[s].terms = run->slot[s].grad_terms = (double)rows_of(p);
    if (p[P_ALIAS] == CT_BATCHNORM_DX_IS_DY) run->slot[X].gradient_in = &run->slot[Y];
    if (p[P_ALIAS] == CT_BATCHNORM_DRESIDUAL_IS_DY) run->slot[RESIDUAL].gradient_in = &run->slot[Y];
}

static void train_fill(ct_case_run *run)
{
    for (int64_t i = 0; i < run->slot[X].count; i++) run->slot[X].v[i] += (double)run->p[P_MEAN];
    for (int64_t i = 0; i < run->slot[RUNNING_VAR].count; i++)
        run->slot[RUNNING_VAR].v[i] = fabs(run->slot[RUNNING_VAR].v[i]);
}

/* Mean and biased variance of column c of x (rows, channels). */
static void column_moments(const double *x, int64_t rows, int64_t channels, int64_t c, double *mean,
                           double *variance)
{
    *mean = *variance = 0;
    for (int64_t i = 0; i < rows; i++) *mean += x[i * channels + c] / (double)rows;
    for (int64_t i = 0; i < rows; i++)
        *variance += pow(x[i * channels + c] - *mean, 2) / (double)rows;
}

/* Channel c's, of the whole batch. */
static void set_statistics(ct_case_run *run, int64_t c, double mean, double variance)
{
    const int64_t rows = rows_of(run->p);
    const double unbias = rows > 1 ? (double)rows / (double)(rows - 1) : 1;
    run->slot[MEAN].v[c] = mean;
    run->slot[RSTD].v[c] = 1 / sqrt(variance + (double)eps);
    double *running_mean = &run->slot[RUNNING_MEAN].v[c];
    double *running_var = &run->slot[RUNNING_VAR].v[c];
    *running_mean += (double)momentum * (mean - *running_mean);
    *running_var += (double)momentum * (variance * unbias - *running_var);
}

static void statistics(ct_case_run *run)
{
    for (int64_t c = 0; c < run->p[P_C]; c++) {
        double mean, variance;
        column_moments(run->slot[X].v, rows_of(run->p), run->p[P_C], c, &mean, &variance);
        set_statistics(run, c, mean, variance);
    }
}

static void normalize(ct_case_run *run, const double *mean, const double *rstd)
{
    for (int64_t i = 0; i < run->slot[Y].count; i++) {
        const int64_t c = i % run->p[P_C];
        double v =
            run->slot[GAMMA].v[c] * (run->slot[X].v[i] - mean[c]) * rstd[c] + run->slot[BETA].v[c];
        if (run->p[P_RESIDUAL]) v += run->slot[RESIDUAL].v[i];
        run->slot[Y].v[i] = run->p[P_RELU] && v < 0 ? 0 : v;
    }
}

static void train_ref_fwd(ct_case_run *run)
{
    statistics(run);
    normalize(run, run->slot[MEAN].v, run->slot[RSTD].v);
}

/* dy where the ReLU let it through. */
static double gradient_at(const ct_case_run *run, int64_t i)
{
    return run->p[P_RELU] && run->decisions->slot[Y].v[i] <= 0 ? 0 : run->slot[Y].g[i];
}

static double xhat_at(const ct_case_run *run, int64_t i)
{
    const int64_t c = i % run->p[P_C];
    return (run->slot[X].v[i] - run->slot[MEAN].v[c]) * run->slot[RSTD].v[c];
}

/* Adds the sums of g and of g xhat over rows [begin, end) of channel c. */
static void add_sums(const ct_case_run *run, int64_t c, int64_t begin, int64_t end, double *sum,
                     double *product)
{
    for (int64_t row = begin; row < end; row++) {
        const int64_t i = row * run->p[P_C] + c;
        *sum += gradient_at(run, i);
        *product += gradient_at(run, i) * xhat_at(run, i);
    }
}

/* Channel c's gradients from the sums over the whole batch. */
static void set_gradients(ct_case_run *run, int64_t c, double sum, double product)
{
    const int64_t rows = rows_of(run->p), channels = run->p[P_C];
    const ct_slot *slot = run->slot;
    for (int64_t i = c; i < rows * channels; i += channels) {
        const double g = gradient_at(run, i);
        if (run->p[P_RESIDUAL]) slot[RESIDUAL].g[i] = g;
        slot[X].g[i] = slot[GAMMA].v[c] * slot[RSTD].v[c] *
                       (g - sum / (double)rows - xhat_at(run, i) * product / (double)rows);
    }
    slot[BETA].g[c] = sum;
    slot[GAMMA].g[c] = product;
}

static void train_ref_bwd(ct_case_run *run)
{
    for (int64_t c = 0; c < run->p[P_C]; c++) {
        double sum = 0, product = 0;
        add_sums(run, c, 0, rows_of(run->p), &sum, &product);
        set_gradients(run, c, sum, product);
    }
}

static ct_status forward(ct_case_run *run, ct_batchnorm_statistics statistics)
{
    const ct_slot *slot = run->slot;
    return ct_op_batchnorm_fwd(&run->exec,
                               &(ct_batchnorm_fwd_args){.y = slot[Y].t,
                                                        .mean = slot[MEAN].t,
                                                        .rstd = slot[RSTD].t,
                                                        .running_mean = slot[RUNNING_MEAN].t,
                                                        .running_var = slot[RUNNING_VAR].t,
                                                        .x = slot[X].t,
                                                        .residual = slot[RESIDUAL].t,
                                                        .gamma = slot[GAMMA].t,
                                                        .beta = slot[BETA].t,
                                                        .eps = eps,
                                                        .momentum = momentum,
                                                        .statistics = statistics,
                                                        .relu = run->p[P_RELU]});
}

static ct_status train_fwd(ct_case_run *run)
{
    return forward(run, CT_BATCHNORM_BATCH);
}

static ct_status train_bwd(ct_case_run *run)
{
    const ct_slot *slot = run->slot;
    return ct_op_batchnorm_bwd(&run->exec, &(ct_batchnorm_bwd_args){.dx = slot[X].d,
                                                                    .dresidual = slot[RESIDUAL].d,
                                                                    .dgamma = slot[GAMMA].d,
                                                                    .dbeta = slot[BETA].d,
                                                                    .dy = slot[Y].d,
                                                                    .x = slot[X].t,
                                                                    .y = slot[Y].t,
                                                                    .gamma = slot[GAMMA].t,
                                                                    .mean = slot[MEAN].t,
                                                                    .rstd = slot[RSTD].t,
                                                                    .relu = run->p[P_RELU]});
}

static double flops(const int64_t *p, bool backward)
{
    return (backward ? 12 : 8) * (double)(rows_of(p) * p[P_C]);
}

const ct_kind ct_kind_batchnorm = {
    .name = "batchnorm",
    .setup = train_setup,
    .fill = train_fill,
    .ref_fwd = train_ref_fwd,
    .ref_bwd = train_ref_bwd,
    .fwd = train_fwd,
    .bwd = train_bwd,
    .flops = flops,
};

/* ---- training over several ranks ----------------------------------------------------------- */

/* One device plays all ranks, one after the other, each with its part of the batch; what they would
 * exchange lies in one tensor. The reference R0 is that of the joined batch. */

/* Floats from one rank's sums to the next's, so that they are aligned as other tensors are. */
static int64_t sums_stride(const int64_t *p)
{
    return (2 * p[P_C] + 15) / 16 * 16;
}

static void sync_setup(ct_case_run *run)
{
    const int64_t *p = run->p;
    train_setup(run);
    ct_case_slot(run, MOMENTS, "moments", CT_SLOT_SAVED, CT_F32,
                 (const int64_t[]){p[P_RANKS], 2, p[P_C], 0}, false)
        ->terms = (double)(rows_of(p) / p[P_RANKS]);
    /* Room for backward; what it holds is seen in the gradients. */
    ct_case_slot(run, SUMS, "sums", CT_SLOT_SAVED, CT_F32,
                 (const int64_t[]){p[P_RANKS], sums_stride(p), 0}, false)
        ->unchecked = true;
}

/* A variance is what is left of a second moment about the rank's first row. */
static void ref_moments(ct_case_run *run)
{
    const int64_t channels = run->p[P_C], ranks = run->p[P_RANKS], rows = rows_of(run->p) / ranks;
    ct_slot *slot = &run->slot[MOMENTS];
    for (int64_t r = 0; r < ranks; r++) {
        const double *x = run->slot[X].v + r * rows * channels;
        double *means = slot->v + 2 * r * channels, *variances = means + channels;
        for (int64_t c = 0; c < channels; c++) {
            column_moments(x, rows, channels, c, &means[c], &variances[c]);
            slot->magnitude = fmax(slot->magnitude, variances[c] + pow(x[c] - means[c], 2));
        }
    }
}

/* The statistics of the joined batch from the ranks' moments as they are stored. */
static void ref_merge(ct_case_run *run)
{
    const int64_t channels = run->p[P_C], ranks = run->p[P_RANKS];
    const ct_slot *slot = &run->slot[MOMENTS];
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0, squares = 0; /* in f64 with these numbers no digits that matter cancel */
        for (int64_t r = 0; r < ranks; r++) {
            const double mean = ct_case_stored(run, slot, slot->v[2 * r * channels + c]);
            sum += mean;
            squares += mean * mean + ct_case_stored(run, slot, slot->v[(2 * r + 1) * channels + c]);
        }
        const double mean = sum / (double)ranks;
        set_statistics(run, c, mean, squares / (double)ranks - mean * mean);
    }
}

static void sync_ref_fwd(ct_case_run *run)
{
    ref_moments(run);
    if (run->rounded) ref_merge(run);
    else statistics(run);
    normalize(run, run->slot[MEAN].v, run->slot[RSTD].v);
}

/* From the ranks' sums as they are stored. With few rows a gradient of x is what little is left of
 * gamma rstd g. */
static void sync_ref_bwd(ct_case_run *run)
{
    ct_slot *slot = run->slot;
    const int64_t ranks = run->p[P_RANKS], rows = rows_of(run->p) / ranks;
    for (int64_t c = 0; c < run->p[P_C]; c++) {
        double sum = 0, product = 0;
        for (int64_t r = 0; r < ranks; r++) {
            double own_sum = 0, own_product = 0;
            add_sums(run, c, r * rows, (r + 1) * rows, &own_sum, &own_product);
            sum += ct_case_stored(run, &slot[SUMS], own_sum);
            product += ct_case_stored(run, &slot[SUMS], own_product);
        }
        set_gradients(run, c, sum, product);
    }
    for (int64_t i = 0; i < slot[X].count; i++) {
        const int64_t c = i % run->p[P_C];
        slot[X].grad_magnitude = fmax(
            slot[X].grad_magnitude, fabs(slot[GAMMA].v[c] * slot[RSTD].v[c] * gradient_at(run, i)));
    }
}

/* Rank r's part of a tensor of the whole batch; the data stays NULL while memory is being planned.
 */
static ct_tensor part(const ct_case_run *run, ct_tensor t, int64_t r)
{
    if (!ct_tensor_present(&t)) return t;
    t.dim[0] /= run->p[P_RANKS];
    if (t.data) t.data = (char *)t.data + r * (int64_t)ct_tensor_bytes(&t);
    return t;
}

/* (2, C), `offset` floats behind the start of `slot`. */
static ct_tensor pair(const ct_case_run *run, int slot, int64_t offset)
{
    const ct_tensor *t = &run->slot[slot].t;
    return ct_tensor2(t->data ? ct_f32(t) + offset : NULL, CT_F32, 2, run->p[P_C]);
}

static ct_status sync_fwd(ct_case_run *run)
{
    const ct_slot *slot = run->slot;
    for (int64_t r = 0; r < run->p[P_RANKS]; r++)
        CT_TRY(ct_op_batchnorm_moments(
            &run->exec,
            &(ct_batchnorm_moments_args){.moments = pair(run, MOMENTS, 2 * r * run->p[P_C]),
                                         .x = part(run, slot[X].t, r)}));
    CT_TRY(ct_op_batchnorm_merge(&run->exec,
                                 &(ct_batchnorm_merge_args){.mean = slot[MEAN].t,
                                                            .rstd = slot[RSTD].t,
                                                            .running_mean = slot[RUNNING_MEAN].t,
                                                            .running_var = slot[RUNNING_VAR].t,
                                                            .moments = slot[MOMENTS].t,
                                                            .count = rows_of(run->p),
                                                            .eps = eps,
                                                            .momentum = momentum}));
    for (int64_t r = 0; r < run->p[P_RANKS]; r++)
        CT_TRY(ct_op_batchnorm_fwd(
            &run->exec, &(ct_batchnorm_fwd_args){.y = part(run, slot[Y].t, r),
                                                 .mean = slot[MEAN].t,
                                                 .rstd = slot[RSTD].t,
                                                 .x = part(run, slot[X].t, r),
                                                 .residual = part(run, slot[RESIDUAL].t, r),
                                                 .gamma = slot[GAMMA].t,
                                                 .beta = slot[BETA].t,
                                                 .eps = eps,
                                                 .statistics = CT_BATCHNORM_GIVEN,
                                                 .relu = run->p[P_RELU]}));
    return CT_OK;
}

/* The first rank's sums become all ranks'. */
static ct_status sync_sums(ct_case_run *run)
{
    const ct_slot *slot = run->slot;
    const ct_tensor total = pair(run, SUMS, 0);
    for (int64_t r = 0; r < run->p[P_RANKS]; r++) {
        const ct_tensor own = pair(run, SUMS, r * sums_stride(run->p));
        CT_TRY(ct_op_batchnorm_bwd_sums(&run->exec,
                                        &(ct_batchnorm_bwd_sums_args){.sums = own,
                                                                      .dgamma = slot[GAMMA].d,
                                                                      .dbeta = slot[BETA].d,
                                                                      .dy = part(run, slot[Y].d, r),
                                                                      .x = part(run, slot[X].t, r),
                                                                      .y = part(run, slot[Y].t, r),
                                                                      .mean = slot[MEAN].t,
                                                                      .rstd = slot[RSTD].t,
                                                                      .relu = run->p[P_RELU]}));
        if (r > 0) CT_TRY(ct_op_add(&run->exec, &(ct_add_args){.y = total, .a = total, .b = own}));
    }
    return CT_OK;
}

static ct_status sync_bwd(ct_case_run *run)
{
    const ct_slot *slot = run->slot;
    CT_TRY(sync_sums(run));
    for (int64_t r = 0; r < run->p[P_RANKS]; r++)
        CT_TRY(ct_op_batchnorm_bwd(
            &run->exec, &(ct_batchnorm_bwd_args){.dx = part(run, slot[X].d, r),
                                                 .dresidual = part(run, slot[RESIDUAL].d, r),
                                                 .dy = part(run, slot[Y].d, r),
                                                 .x = part(run, slot[X].t, r),
                                                 .y = part(run, slot[Y].t, r),
                                                 .gamma = slot[GAMMA].t,
                                                 .mean = slot[MEAN].t,
                                                 .rstd = slot[RSTD].t,
                                                 .sums = pair(run, SUMS, 0),
                                                 .count = rows_of(run->p),
                                                 .relu = run->p[P_RELU]}));
    return CT_OK;
}

const ct_kind ct_kind_batchnorm_sync = {
    .name = "batchnorm_sync",
    .setup = sync_setup,
    .fill = train_fill,
    .ref_fwd = sync_ref_fwd,
    .ref_bwd = sync_ref_bwd,
    .fwd = sync_fwd,
    .bwd = sync_bwd,
    .flops = flops,
};

/* ---- evaluation ---------------------------------------------------------------------------- */

static void eval_setup(ct_case_run *run)
{
    const int64_t channels[] = {run->p[P_C], 0};
    slots(run, CT_SLOT_CONST, CT_SLOT_CONST);
    ct_case_slot(run, MEAN, "mean", CT_SLOT_SAVED, CT_F32, channels, true);
    ct_case_slot(run, RSTD, "rstd", CT_SLOT_SAVED, CT_F32, channels, true);
    ct_case_slot(run, RUNNING_MEAN, "running_mean", CT_SLOT_CONST, CT_F32, channels, false);
    ct_case_slot(run, RUNNING_VAR, "running_var", CT_SLOT_CONST, CT_F32, channels, false);
}

static void eval_fill(ct_case_run *run)
{
    for (int64_t i = 0; i < run->slot[RUNNING_VAR].count; i++)
        run->slot[RUNNING_VAR].v[i] = fabs(run->slot[RUNNING_VAR].v[i]);
}

static void eval_ref_fwd(ct_case_run *run)
{
    for (int64_t i = 0; i < run->slot[Y].count; i++) {
        const int64_t c = i % run->p[P_C];
        double rstd = 1 / sqrt(run->slot[RUNNING_VAR].v[c] + (double)eps);
        double v =
            run->slot[GAMMA].v[c] * (run->slot[X].v[i] - run->slot[RUNNING_MEAN].v[c]) * rstd +
            run->slot[BETA].v[c];
        if (run->p[P_RESIDUAL]) v += run->slot[RESIDUAL].v[i];
        run->slot[Y].v[i] = run->p[P_RELU] && v < 0 ? 0 : v;
    }
}

static ct_status eval_fwd(ct_case_run *run)
{
    return forward(run, CT_BATCHNORM_RUNNING);
}

const ct_kind ct_kind_batchnorm_eval = {
    .name = "batchnorm_eval",
    .setup = eval_setup,
    .fill = eval_fill,
    .ref_fwd = eval_ref_fwd,
    .fwd = eval_fwd,
    .flops = flops,
};
