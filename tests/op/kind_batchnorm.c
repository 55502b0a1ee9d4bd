#include <math.h>

#include "kinds.h"

enum { P_N, P_H, P_W, P_C, P_RELU, P_RESIDUAL, P_ALIAS, P_MEAN };
enum { X, RESIDUAL, GAMMA, BETA, Y, MEAN, RSTD, RUNNING_MEAN, RUNNING_VAR };

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

static void statistics(ct_case_run *run)
{
    const int64_t rows = rows_of(run->p), channels = run->p[P_C];
    const double unbias = rows > 1 ? (double)rows / (double)(rows - 1) : 1;
    for (int64_t c = 0; c < channels; c++) {
        double mean = 0, variance = 0;
        for (int64_t i = 0; i < rows; i++) mean += run->slot[X].v[i * channels + c] / (double)rows;
        for (int64_t i = 0; i < rows; i++)
            variance += pow(run->slot[X].v[i * channels + c] - mean, 2) / (double)rows;
        run->slot[MEAN].v[c] = mean;
        run->slot[RSTD].v[c] = 1 / sqrt(variance + (double)eps);
        double *running_mean = &run->slot[RUNNING_MEAN].v[c];
        double *running_var = &run->slot[RUNNING_VAR].v[c];
        *running_mean += (double)momentum * (mean - *running_mean);
        *running_var += (double)momentum * (variance * unbias - *running_var);
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

static void train_ref_bwd(ct_case_run *run)
{
    const int64_t rows = rows_of(run->p), channels = run->p[P_C];
    const ct_slot *slot = run->slot;
    const double *y = run->decisions->slot[Y].v;
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0, product = 0;
        for (int pass = 0; pass < 2; pass++) {
            for (int64_t i = c; i < rows * channels; i += channels) {
                double g = run->p[P_RELU] && y[i] <= 0 ? 0 : slot[Y].g[i];
                double xhat = (slot[X].v[i] - slot[MEAN].v[c]) * slot[RSTD].v[c];
                if (pass == 0) {
                    sum += g;
                    product += g * xhat;
                    continue;
                }
                if (run->p[P_RESIDUAL]) slot[RESIDUAL].g[i] = g;
                slot[X].g[i] = slot[GAMMA].v[c] * slot[RSTD].v[c] *
                               (g - sum / (double)rows - xhat * product / (double)rows);
            }
        }
        slot[BETA].g[c] = sum;
        slot[GAMMA].g[c] = product;
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
