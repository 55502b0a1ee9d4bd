/* Cases of the operations on rows: layernorm, add, dropout, l2norm. */
#include <math.h>

#include "case.h"

/* ---- layernorm: p = rows, width, eps, flags ------------------------------------------------- */

enum { LN_EPS_1E5 = 0, LN_EPS_1E12 = 1 };
enum {
    LN_RESIDUAL = 1,
    LN_SKIP = 2,
    LN_IN_PLACE = 4,   /* sum is written over the residual, dx over dy */
    LN_DX_IN_DSKIP = 8 /* dx is written over dskip */
};

/* With LN_SKIP, forward's sum is a result too, as in a pre-norm block: its gradient is dskip. */
enum { LN_X, LN_RES, LN_GAMMA, LN_BETA, LN_Y, LN_SUM, LN_MEAN, LN_RSTD };

static void layernorm_setup(ct_case_run *run)
{
    int64_t rows = run->p[0], width = run->p[1];
    const int64_t *matrix = (const int64_t[]){rows, width, 0}, *row = (const int64_t[]){width, 0};
    const int64_t *column = (const int64_t[]){rows, 0};
    bool residual = run->p[3] & LN_RESIDUAL, skip = run->p[3] & LN_SKIP;
    ct_case_slot(run, LN_X, "x", CT_SLOT_INPUT, CT_CASE_COMPUTE, matrix, false);
    ct_case_slot(run, LN_RES, "residual", CT_SLOT_INPUT, CT_CASE_COMPUTE, matrix, !residual);
    ct_case_slot(run, LN_GAMMA, "gamma", CT_SLOT_PARAM, CT_F32, row, false);
    ct_case_slot(run, LN_BETA, "beta", CT_SLOT_PARAM, CT_F32, row, false);
    ct_case_slot(run, LN_Y, "y", CT_SLOT_OUTPUT, CT_CASE_COMPUTE, matrix, false);
    ct_case_slot(run, LN_SUM, "sum", skip ? CT_SLOT_OUTPUT : CT_SLOT_SAVED, CT_CASE_COMPUTE, matrix,
                 !residual);
    ct_case_slot(run, LN_MEAN, "mean", CT_SLOT_SAVED, CT_F32, column, false);
    ct_case_slot(run, LN_RSTD, "rstd", CT_SLOT_SAVED, CT_F32, column, false);
    if (run->p[3] & LN_IN_PLACE) run->slot[LN_X].gradient_in = &run->slot[LN_Y];
    if (run->p[3] & LN_DX_IN_DSKIP) run->slot[LN_X].gradient_in = &run->slot[LN_SUM];
    const int summed_over_row[] = {LN_Y, LN_MEAN, LN_RSTD};
    for (int i = 0; i < 3; i++) run->slot[summed_over_row[i]].terms = (double)width;
    run->slot[LN_X].grad_terms = run->slot[LN_RES].grad_terms = (double)width;
    run->slot[LN_GAMMA].grad_terms = run->slot[LN_BETA].grad_terms = (double)rows;
}

static double layernorm_eps(const ct_case_run *run)
{
    return run->p[2] == LN_EPS_1E12 ? 1e-12 : 1e-5;
}

static void layernorm_ref_fwd(ct_case_run *run)
{
    int64_t rows = run->p[0], width = run->p[1];
    const ct_slot *s = run->slot;
    for (int64_t i = 0; i < rows; i++) {
        double mean = 0, variance = 0;
        for (int64_t k = i * width; k < (i + 1) * width; k++) {
            double x = s[LN_X].v[k] + (s[LN_RES].count ? s[LN_RES].v[k] : 0);
            if (s[LN_SUM].count) x = s[LN_SUM].v[k] = ct_case_stored(run, &s[LN_SUM], x);
            s[LN_Y].v[k] = x;
            mean += x / (double)width;
        }
        for (int64_t k = i * width; k < (i + 1) * width; k++)
            variance += pow(s[LN_Y].v[k] - mean, 2) / (double)width;
        double rstd = 1 / sqrt(variance + layernorm_eps(run));
        for (int64_t j = 0; j < width; j++) {
            double *y = &s[LN_Y].v[i * width + j];
            *y = (*y - mean) * rstd * s[LN_GAMMA].v[j] + s[LN_BETA].v[j];
        }
        s[LN_MEAN].v[i] = mean;
        s[LN_RSTD].v[i] = rstd;
    }
}

static void layernorm_ref_bwd(ct_case_run *run)
{
    int64_t rows = run->p[0], width = run->p[1];
    const ct_slot *s = run->slot;
    const double *x = s[LN_SUM].count ? s[LN_SUM].v : s[LN_X].v, *dy = s[LN_Y].g;
    double square = 0;
    for (int64_t j = 0; j < width; j++) s[LN_GAMMA].g[j] = s[LN_BETA].g[j] = 0;
    for (int64_t i = 0; i < rows; i++) {
        double mean = s[LN_MEAN].v[i], rstd = s[LN_RSTD].v[i], mean_g = 0, mean_g_xhat = 0;
        for (int64_t j = 0; j < width; j++) {
            int64_t k = i * width + j;
            double xhat = (x[k] - mean) * rstd, g = s[LN_GAMMA].v[j] * dy[k];
            square += rstd * g * rstd * g;
            mean_g += g / (double)width;
            mean_g_xhat += g * xhat / (double)width;
            s[LN_GAMMA].g[j] += dy[k] * xhat;
            s[LN_BETA].g[j] += dy[k];
        }
        for (int64_t j = 0; j < width; j++) {
            int64_t k = i * width + j;
            double xhat = (x[k] - mean) * rstd, g = s[LN_GAMMA].v[j] * dy[k];
            double dx = rstd * (g - mean_g - xhat * mean_g_xhat);
            if (s[LN_SUM].g) dx += s[LN_SUM].g[k];
            s[LN_X].g[k] = dx;
            if (s[LN_RES].g) s[LN_RES].g[k] = dx;
        }
    }
    /* g - mean(g) - xhat mean(g xhat) is small where the width is. */
    run->slot[LN_X].grad_magnitude = run->slot[LN_RES].grad_magnitude =
        sqrt(square / (double)(rows * width));
}

static ct_status copy(ct_case_run *run, ct_tensor to, ct_tensor from)
{
    return ct_op_cast(&run->exec, &(ct_cast_args){.y = to, .x = from});
}

static ct_status layernorm_fwd(ct_case_run *run)
{
    const ct_slot *s = run->slot;
    ct_layernorm_fwd_args args = {.y = s[LN_Y].t,
                                  .sum = s[LN_SUM].t,
                                  .mean = s[LN_MEAN].t,
                                  .rstd = s[LN_RSTD].t,
                                  .x = s[LN_X].t,
                                  .residual = s[LN_RES].t,
                                  .gamma = s[LN_GAMMA].t,
                                  .beta = s[LN_BETA].t,
                                  .eps = (float)layernorm_eps(run)};
    if (run->p[3] & LN_IN_PLACE) {
        CT_TRY(copy(run, args.sum, args.residual));
        args.residual = args.sum;
    }
    return ct_op_layernorm_fwd(&run->exec, &args);
}

/* One gradient serves x and residual; the copy is for the harness, which looks at both slots. */
static ct_status layernorm_bwd(ct_case_run *run)
{
    const ct_slot *s = run->slot;
    ct_layernorm_bwd_args args = {.dx = s[LN_X].d,
                                  .dgamma = s[LN_GAMMA].d,
                                  .dbeta = s[LN_BETA].d,
                                  .dy = s[LN_Y].d,
                                  .dskip = s[LN_SUM].d,
                                  .x = s[LN_SUM].count ? s[LN_SUM].t : s[LN_X].t,
                                  .gamma = s[LN_GAMMA].t,
                                  .mean = s[LN_MEAN].t,
                                  .rstd = s[LN_RSTD].t};
    CT_TRY(ct_op_layernorm_bwd(&run->exec, &args));
    return s[LN_RES].count ? copy(run, s[LN_RES].d, s[LN_X].d) : CT_OK;
}

static double layernorm_flops(const int64_t *p, bool backward)
{
    return (double)(p[0] * p[1]) * (backward ? 14 : 8);
}

static const ct_kind layernorm = {"layernorm",       layernorm_setup,   NULL,
                                  layernorm_ref_fwd, layernorm_ref_bwd, layernorm_fwd,
                                  layernorm_bwd,     layernorm_flops,   false};

/* ---- add: p = count, y written over a or b (1, 2) ---------------------------------------------
 */

enum { ADD_A, ADD_B, ADD_Y };

static void add_setup(ct_case_run *run)
{
    const int64_t *dims = (const int64_t[]){run->p[0], 0};
    ct_case_slot(run, ADD_A, "a", CT_SLOT_CONST, CT_CASE_COMPUTE, dims, false);
    ct_case_slot(run, ADD_B, "b", CT_SLOT_CONST, CT_CASE_COMPUTE, dims, false);
    ct_slot *y = ct_case_slot(run, ADD_Y, "y", CT_SLOT_OUTPUT, CT_CASE_COMPUTE, dims, false);
    if (run->p[1]) y->value_in = &run->slot[run->p[1] == 1 ? ADD_A : ADD_B];
}

static void add_ref_fwd(ct_case_run *run)
{
    const ct_slot *s = run->slot;
    for (int64_t i = 0; i < run->p[0]; i++) s[ADD_Y].v[i] = s[ADD_A].v[i] + s[ADD_B].v[i];
}

static ct_status add_fwd(ct_case_run *run)
{
    const ct_slot *s = run->slot;
    return ct_op_add(&run->exec, &(ct_add_args){s[ADD_Y].t, s[ADD_A].t, s[ADD_B].t});
}

static double one_flop_each(const int64_t *p, bool backward)
{
    (void)backward;
    return (double)p[0];
}

static const ct_kind add = {"add",   add_setup, NULL,          add_ref_fwd, NULL,
                            add_fwd, NULL,      one_flop_each, false};

/* ---- dropout: p = count, per cent dropped, in place ---------------------------------------------
 */

enum { DROP_X, DROP_Y, DROP_STEP };

enum { DROPOUT_STEP = 3 }; /* of the optimiser */

static void dropout_setup(ct_case_run *run)
{
    const int64_t *dims = (const int64_t[]){run->p[0], 0};
    ct_case_slot(run, DROP_X, "x", CT_SLOT_INPUT, CT_CASE_COMPUTE, dims, false);
    ct_case_slot(run, DROP_Y, "y", CT_SLOT_OUTPUT, CT_CASE_COMPUTE, dims, false);
    ct_case_slot(run, DROP_STEP, "step", CT_SLOT_CONST, CT_I32, (const int64_t[]){1, 0}, false);
    if (!run->p[2]) return;
    run->slot[DROP_Y].value_in = &run->slot[DROP_X];
    run->slot[DROP_X].gradient_in = &run->slot[DROP_Y];
}

static void dropout_fill(ct_case_run *run)
{
    run->slot[DROP_STEP].v[0] = DROPOUT_STEP;
}

static ct_rng_key dropout_key(const ct_case_run *run)
{
    return ct_rng_make(run->seed, CT_RNG_DROPOUT, 0, 0xFFFFFFFF);
}

static float dropout_p(const ct_case_run *run)
{
    return (float)run->p[1] / 100;
}

static void dropout_reference(const ct_case_run *run, double *y, const double *x)
{
    double p = (double)dropout_p(run);
    const ct_rng_key key =
        ct_rng_make(run->seed, CT_RNG_DROPOUT, DROPOUT_STEP, 0xFFFFFFFF); /* of that step */
    for (int64_t i = 0; i < run->p[0]; i++) {
        bool kept = (double)ct_rng_uniform(key, (uint64_t)i) >= p;
        y[i] = kept ? x[i] / (1 - p) : 0;
    }
}

static void dropout_ref_fwd(ct_case_run *run)
{
    dropout_reference(run, run->slot[DROP_Y].v, run->slot[DROP_X].v);
}

static void dropout_ref_bwd(ct_case_run *run)
{
    dropout_reference(run, run->slot[DROP_X].g, run->slot[DROP_Y].g);
}

static ct_status dropout_fwd(ct_case_run *run)
{
    const ct_slot *s = run->slot;
    ct_dropout_args args = {s[DROP_Y].t, s[DROP_X].t, s[DROP_STEP].t, dropout_key(run),
                            dropout_p(run)};
    return ct_op_dropout(&run->exec, &args);
}

static ct_status dropout_bwd(ct_case_run *run)
{
    const ct_slot *s = run->slot;
    ct_dropout_args args = {s[DROP_X].d, s[DROP_Y].d, s[DROP_STEP].t, dropout_key(run),
                            dropout_p(run)};
    return ct_op_dropout(&run->exec, &args);
}

static const ct_kind dropout = {"dropout",       dropout_setup,   dropout_fill,
                                dropout_ref_fwd, dropout_ref_bwd, dropout_fwd,
                                dropout_bwd,     one_flop_each,   false};

/* ---- l2norm: p = rows, width, eps in thousandths (0: 1e-12), dx over dy
 * -------------------------- */

enum { L2_X, L2_Y, L2_INV };

static void l2norm_setup(ct_case_run *run)
{
    const int64_t *matrix = (const int64_t[]){run->p[0], run->p[1], 0};
    ct_case_slot(run, L2_X, "x", CT_SLOT_INPUT, CT_CASE_COMPUTE, matrix, false)->grad_terms =
        (double)run->p[1];
    ct_case_slot(run, L2_Y, "y", CT_SLOT_OUTPUT, CT_CASE_COMPUTE, matrix, false)->terms =
        (double)run->p[1];
    ct_case_slot(run, L2_INV, "inv_norm", CT_SLOT_SAVED, CT_F32, (const int64_t[]){run->p[0], 0},
                 false)
        ->terms = (double)run->p[1];
    if (run->p[3]) run->slot[L2_X].gradient_in = &run->slot[L2_Y];
}

static double l2norm_eps(const ct_case_run *run)
{
    return run->p[2] ? (double)run->p[2] / 1000 : 1e-12;
}

static void l2norm_ref_fwd(ct_case_run *run)
{
    int64_t width = run->p[1];
    for (int64_t i = 0; i < run->p[0]; i++) {
        const double *x = run->slot[L2_X].v + i * width;
        double squares = 0;
        for (int64_t j = 0; j < width; j++) squares += x[j] * x[j];
        double inverse = 1 / fmax(sqrt(squares), l2norm_eps(run));
        for (int64_t j = 0; j < width; j++) run->slot[L2_Y].v[i * width + j] = x[j] * inverse;
        run->slot[L2_INV].v[i] = inverse;
    }
}

static void l2norm_ref_bwd(ct_case_run *run)
{
    int64_t width = run->p[1];
    for (int64_t i = 0; i < run->p[0]; i++) {
        const double *y = run->slot[L2_Y].v + i * width, *dy = run->slot[L2_Y].g + i * width;
        double inverse = run->slot[L2_INV].v[i], along = 0;
        /* Where eps was the divisor, it does not depend on x. */
        bool constant = inverse >= (double)(float)(1 / l2norm_eps(run));
        for (int64_t j = 0; j < width; j++) along += constant ? 0 : y[j] * dy[j];
        for (int64_t j = 0; j < width; j++)
            run->slot[L2_X].g[i * width + j] = inverse * (dy[j] - y[j] * along);
    }
}

static ct_status l2norm_fwd(ct_case_run *run)
{
    const ct_slot *s = run->slot;
    ct_l2norm_fwd_args args = {s[L2_Y].t, s[L2_INV].t, s[L2_X].t, (float)l2norm_eps(run)};
    return ct_op_l2norm_fwd(&run->exec, &args);
}

static ct_status l2norm_bwd(ct_case_run *run)
{
    const ct_slot *s = run->slot;
    ct_l2norm_bwd_args args = {s[L2_X].d, s[L2_Y].d, s[L2_Y].t, s[L2_INV].t};
    return ct_op_l2norm_bwd(&run->exec, &args);
}

static double l2norm_flops(const int64_t *p, bool backward)
{
    return (double)(p[0] * p[1]) * (backward ? 5 : 3);
}

static const ct_kind l2norm = {"l2norm",       l2norm_setup,   NULL,
                               l2norm_ref_fwd, l2norm_ref_bwd, l2norm_fwd,
                               l2norm_bwd,     l2norm_flops,   false};

static const ct_case cases[] = {
    {&layernorm, "layernorm_7x13", {7, 13, LN_EPS_1E5, 0}},
    {&layernorm, "layernorm_1x3", {1, 3, LN_EPS_1E5, 0}},
    {&layernorm, "layernorm_5x20_residual", {5, 20, LN_EPS_1E12, LN_RESIDUAL}},
    {&layernorm, "layernorm_6x9_residual_skip", {6, 9, LN_EPS_1E5, LN_RESIDUAL | LN_SKIP}},
    {&layernorm, "layernorm_37x768_residual", {37, 768, LN_EPS_1E12, LN_RESIDUAL}},
    {&layernorm, "layernorm_301x511_residual_skip", {301, 511, LN_EPS_1E5, 3}},
    {&layernorm, "layernorm_12x33_in_place", {12, 33, LN_EPS_1E12, LN_RESIDUAL | LN_IN_PLACE}},
    {&layernorm, "layernorm_4x40_dx_in_dskip", {4, 40, LN_EPS_1E5, 3 | LN_DX_IN_DSKIP}},
    {&add, "add_1", {1}},
    {&add, "add_10007", {10007}},
    {&add, "add_70_in_a", {70, 1}},
    {&add, "add_70_in_b", {70, 2}},
    {&dropout, "dropout_50_p0", {50, 0}},
    {&dropout, "dropout_67_p50", {67, 50}},
    {&dropout, "dropout_5003_p10", {5003, 10}},
    {&dropout, "dropout_999_in_place", {999, 25, 1}},
    {&l2norm, "l2norm_7x13", {7, 13, 0}},
    {&l2norm, "l2norm_9x5_eps2", {9, 5, 2000}},
    {&l2norm, "l2norm_20x30_in_place", {20, 30, 0, 1}},
    {&l2norm, "l2norm_65x512", {65, 512, 0}},
};

CT_DEFINE_CASE_TABLE(rows, cases);
