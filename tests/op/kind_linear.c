#include <math.h>

#include "kinds.h"
#include "reference_activation.h"

static double gelu_tanh_argument(double x)
{
    return sqrt(M_2_PI) * (x + 0.044715 * x * x * x);
}

double ct_reference_activation(double x, ct_activation act)
{
    switch (act) {
    case CT_ACT_RELU:
        return x > 0 ? x : 0;
    case CT_ACT_GELU:
        return x / 2 * erfc(-x * M_SQRT1_2);
    case CT_ACT_GELU_TANH:
        return x / 2 * (1 + tanh(gelu_tanh_argument(x)));
    case CT_ACT_QUICK_GELU:
        return x / (1 + exp(-1.702 * x));
    default:
        return x;
    }
}

double ct_reference_activation_derivative(double x, ct_activation act)
{
    const double sigmoid = 1 / (1 + exp(-1.702 * x)), tangent = tanh(gelu_tanh_argument(x));
    switch (act) {
    case CT_ACT_RELU:
        return x > 0;
    case CT_ACT_GELU:
        return erfc(-x * M_SQRT1_2) / 2 + x * exp(-x * x / 2) * M_2_SQRTPI * M_SQRT1_2 / 2;
    case CT_ACT_GELU_TANH:
        return (1 + tangent) / 2 +
               x / 2 * (1 - tangent * tangent) * sqrt(M_2_PI) * (1 + 3 * 0.044715 * x * x);
    case CT_ACT_QUICK_GELU:
        return sigmoid * (1 + 1.702 * x * (1 - sigmoid));
    default:
        return 1;
    }
}

/* ---- linear -------------------------------------------------------------------------------- */

enum { P_M, P_K, P_N, P_BIAS, P_ACT, P_DX, P_BEFORE, P_ADDS };
enum { X, W, BIAS, Y, PREACT, ACTIVE };

static void linear_setup(ct_case_run *run)
{
    const int64_t *p = run->p, in[] = {p[P_M], p[P_K], 0}, out[] = {p[P_M], p[P_N], 0};
    ct_slot *x = ct_case_slot(run, X, "x", CT_SLOT_INPUT, CT_CASE_COMPUTE, in, false);
    ct_slot *w = ct_case_slot(run, W, "w", CT_SLOT_PARAM, CT_CASE_COMPUTE,
                              (const int64_t[]){p[P_N], p[P_K], 0}, false);
    ct_slot *bias = ct_case_slot(run, BIAS, "bias", CT_SLOT_PARAM, CT_F32,
                                 (const int64_t[]){p[P_N], 0}, !p[P_BIAS]);
    ct_slot *y = ct_case_slot(run, Y, "y", CT_SLOT_OUTPUT, CT_CASE_COMPUTE, out, false);
    ct_slot *preact =
        ct_case_slot(run, PREACT, "preact", CT_SLOT_SAVED, CT_CASE_COMPUTE, out, !p[P_ACT]);
    ct_case_slot(run, ACTIVE, "active", CT_SLOT_SAVED, CT_CASE_COMPUTE, in, !p[P_BEFORE]);
    y->terms = preact->terms = (double)(p[P_K] + 1);
    x->grad_terms = (double)p[P_N];
    w->grad_terms = bias->grad_terms = (double)p[P_M];
    x->adds = p[P_ADDS];
    if (!p[P_DX]) x->d = (ct_tensor){0};
}

/* Preactivations of size 1, so that activations are used where they are curved. */
static void linear_fill(ct_case_run *run)
{
    for (int64_t i = 0; i < run->slot[W].count; i++) run->slot[W].v[i] /= sqrt((double)run->p[P_K]);
}

static bool has_activation_before(const ct_case_run *run)
{
    return run->p[P_BEFORE] != CT_ACT_NONE;
}

/* What the layer multiplies by w. */
static const ct_slot *operand(const ct_case_run *run)
{
    return &run->slot[has_activation_before(run) ? ACTIVE : X];
}

static void linear_ref_fwd(ct_case_run *run)
{
    const int64_t k = run->p[P_K], n = run->p[P_N];
    ct_slot *active = &run->slot[ACTIVE];
    for (int64_t i = 0; i < active->count; i++)
        active->v[i] = ct_case_stored(
            run, active,
            ct_reference_activation(run->slot[X].v[i], (ct_activation)run->p[P_BEFORE]));
    for (int64_t i = 0; i < run->slot[Y].count; i++) {
        double sum = run->p[P_BIAS] ? run->slot[BIAS].v[i % n] : 0;
        for (int64_t j = 0; j < k; j++)
            sum += operand(run)->v[i / n * k + j] * run->slot[W].v[i % n * k + j];
        if (run->p[P_ACT])
            sum = run->slot[PREACT].v[i] = ct_case_stored(run, &run->slot[PREACT], sum);
        run->slot[Y].v[i] = ct_reference_activation(sum, (ct_activation)run->p[P_ACT]);
    }
}

static double slope(const ct_case_run *run, int s, int64_t i, ct_activation act)
{
    if (act == CT_ACT_RELU) run = run->decisions;
    return ct_reference_activation_derivative(run->slot[s].v[i], act);
}

static void linear_ref_bwd(ct_case_run *run)
{
    const int64_t k = run->p[P_K], n = run->p[P_N];
    const ct_activation act = (ct_activation)run->p[P_ACT];
    const ct_activation before = (ct_activation)run->p[P_BEFORE];
    const ct_slot *slot = run->slot;
    for (int s = X; s <= BIAS; s++)
        for (int64_t i = 0; i < slot[s].count; i++) slot[s].g[i] = 0;
    for (int64_t i = 0; i < slot[Y].count; i++) {
        double g = slot[Y].g[i];
        if (act) g = ct_case_stored(run, &slot[Y], g * slope(run, PREACT, i, act));
        if (run->p[P_BIAS]) slot[BIAS].g[i % n] += g;
        for (int64_t j = 0; j < k; j++) {
            slot[X].g[i / n * k + j] += g * slot[W].v[i % n * k + j];
            slot[W].g[i % n * k + j] += g * operand(run)->v[i / n * k + j];
        }
    }
    for (int64_t i = 0; before && i < slot[X].count; i++)
        slot[X].g[i] = ct_case_stored(run, &slot[X], slot[X].g[i]) * slope(run, X, i, before);
}

static ct_status linear_fwd(ct_case_run *run)
{
    const ct_slot *slot = run->slot;
    if (has_activation_before(run))
        CT_TRY(ct_op_activation_fwd(
            &run->exec, &(ct_activation_fwd_args){.y = slot[ACTIVE].t,
                                                  .x = slot[X].t,
                                                  .act = (ct_activation)run->p[P_BEFORE]}));
    return ct_op_linear_fwd(&run->exec, &(ct_linear_fwd_args){.y = slot[Y].t,
                                                              .preact = slot[PREACT].t,
                                                              .x = operand(run)->t,
                                                              .w = slot[W].t,
                                                              .bias = slot[BIAS].t,
                                                              .act = (ct_activation)run->p[P_ACT]});
}

static ct_status linear_bwd(ct_case_run *run)
{
    const ct_slot *slot = run->slot;
    if (run->p[P_ACT])
        CT_TRY(ct_op_activation_bwd(
            &run->exec, &(ct_activation_bwd_args){.dx = slot[Y].d,
                                                  .dy = slot[Y].d,
                                                  .x = slot[PREACT].t,
                                                  .act = (ct_activation)run->p[P_ACT]}));
    const bool before = has_activation_before(run);
    return ct_op_linear_bwd(&run->exec,
                            &(ct_linear_bwd_args){.dx = slot[X].d,
                                                  .dw = slot[W].d,
                                                  .dbias = slot[BIAS].d,
                                                  .dy = slot[Y].d,
                                                  .x = operand(run)->t,
                                                  .w = slot[W].t,
                                                  .preact = before ? slot[X].t : (ct_tensor){0},
                                                  .act = (ct_activation)run->p[P_BEFORE],
                                                  .accumulate = run->p[P_ADDS]});
}

static double linear_flops(const int64_t *p, bool backward)
{
    const double products = (double)(p[P_M] * p[P_K] * p[P_N]);
    return 2 * products * (backward ? 1 + (p[P_DX] != 0) : 1);
}

const ct_kind ct_kind_linear = {
    .name = "linear",
    .setup = linear_setup,
    .fill = linear_fill,
    .ref_fwd = linear_ref_fwd,
    .ref_bwd = linear_ref_bwd,
    .fwd = linear_fwd,
    .bwd = linear_bwd,
    .flops = linear_flops,
    .products = true,
};

/* ---- activation ---------------------------------------------------------------------------- */

enum { A_COUNT, A_ACT, A_ALIAS };
enum { A_X, A_Y };

static void activation_setup(ct_case_run *run)
{
    const int64_t dims[] = {run->p[A_COUNT], 0};
    ct_slot *x = ct_case_slot(run, A_X, "x", CT_SLOT_INPUT, CT_CASE_COMPUTE, dims, false);
    ct_slot *y = ct_case_slot(run, A_Y, "y", CT_SLOT_OUTPUT, CT_CASE_COMPUTE, dims, false);
    if (run->p[A_ALIAS]) {
        y->value_in = x;
        x->gradient_in = y;
    }
}

/* The tails too. */
static void activation_fill(ct_case_run *run)
{
    for (int64_t i = 0; i < run->slot[A_X].count; i++) run->slot[A_X].v[i] *= i % 3 ? 1 : 5;
}

static void activation_ref_fwd(ct_case_run *run)
{
    for (int64_t i = 0; i < run->slot[A_Y].count; i++)
        run->slot[A_Y].v[i] =
            ct_reference_activation(run->slot[A_X].v[i], (ct_activation)run->p[A_ACT]);
}

static void activation_ref_bwd(ct_case_run *run)
{
    for (int64_t i = 0; i < run->slot[A_X].count; i++)
        run->slot[A_X].g[i] =
            run->slot[A_Y].g[i] *
            ct_reference_activation_derivative(run->slot[A_X].v[i], (ct_activation)run->p[A_ACT]);
}

static ct_status activation_fwd(ct_case_run *run)
{
    return ct_op_activation_fwd(&run->exec,
                                &(ct_activation_fwd_args){.y = run->slot[A_Y].t,
                                                          .x = run->slot[A_X].t,
                                                          .act = (ct_activation)run->p[A_ACT]});
}

static ct_status activation_bwd(ct_case_run *run)
{
    return ct_op_activation_bwd(&run->exec,
                                &(ct_activation_bwd_args){.dx = run->slot[A_X].d,
                                                          .dy = run->slot[A_Y].d,
                                                          .x = run->slot[A_X].t,
                                                          .act = (ct_activation)run->p[A_ACT]});
}

/* A polynomial, an exponential and a division: about 30 operations. */
static double activation_flops(const int64_t *p, bool backward)
{
    (void)backward;
    return (p[A_ACT] == CT_ACT_RELU ? 1 : 30) * (double)p[A_COUNT];
}

const ct_kind ct_kind_activation = {
    .name = "activation",
    .setup = activation_setup,
    .fill = activation_fill,
    .ref_fwd = activation_ref_fwd,
    .ref_bwd = activation_ref_bwd,
    .fwd = activation_fwd,
    .bwd = activation_bwd,
    .flops = activation_flops,
};
