/* Cases of cast: p = count, from, to (ct_dtype), flags. Results are exact, so they must be equal.
 */
#include <float.h>
#include <math.h>

#include "base/half.h"
#include "case.h"

enum {
    STOCHASTIC = 1,
    EDGES = 2 /* infinities, NaN, subnormal numbers, ties, the ends of the ranges */
};

enum { X, Y, STEP };

enum { OPTIMIZER_STEP = 77 };

static void setup(ct_case_run *run)
{
    const int64_t *list = (const int64_t[]){run->p[0], 0};
    ct_case_slot(run, X, "x", CT_SLOT_CONST, (ct_dtype)run->p[1], list, false);
    ct_case_slot(run, Y, "y", CT_SLOT_SAVED, (ct_dtype)run->p[2], list, false)->exact = true;
    ct_case_slot(run, STEP, "step", CT_SLOT_CONST, CT_I32, (const int64_t[]){1, 0},
                 !(run->p[3] & STOCHASTIC));
}

static void fill(ct_case_run *run)
{
    static const double edges[] = {
        0, -0.0, INFINITY, -INFINITY, NAN, (double)FLT_MAX, (double)-FLT_MAX, 0x1p-149, -0x1p-149,
        /* bf16: ties to even up and down, the last finite number and beyond */
        0x1.01p0, 0x1.03p0, 0x1.010002p0, 0x1.00fffep0, 0x1.fep127, 0x1.fefffep127, 0x1.ffp127,
        0x1p-133, 0x1.8p-134, 0x1p-134,
        /* f16: the same, around its subnormal numbers too */
        0x1.002p0, 0x1.006p0, 0x1.00201p0, 65504, 65519.996, 65520, -65520, 0x1p-14, 0x1.ffcp-15,
        0x1p-24, 0x1p-25, 0x1.000002p-25, 0x1.8p-24, 0x1.ffep-15};
    const int64_t count = sizeof edges / sizeof *edges;
    for (int64_t i = 0; run->p[3] & EDGES && i < run->p[0]; i++)
        run->slot[X].v[i] = edges[i % count] * (i < count ? 1 : -1);
    if (run->p[3] & STOCHASTIC) run->slot[STEP].v[0] = OPTIMIZER_STEP;
}

static void ref_fwd(ct_case_run *run)
{
    const ct_rng_key key = ct_rng_make(run->seed, CT_RNG_ROUNDING, OPTIMIZER_STEP, 9);
    for (int64_t i = 0; i < run->p[0]; i++) {
        const double x = run->slot[X].v[i];
        run->slot[Y].v[i] =
            run->p[3] & STOCHASTIC
                ? (double)ct_bf16_to_f32(ct_bf16_stochastic((float)x, ct_rng_u32(key, (uint64_t)i)))
                : x;
    }
}

static ct_status fwd(ct_case_run *run)
{
    const ct_slot *s = run->slot;
    return ct_op_cast(&run->exec,
                      &(ct_cast_args){.y = s[Y].t,
                                      .x = s[X].t,
                                      .step = s[STEP].t,
                                      .key = ct_rng_make(run->seed, CT_RNG_ROUNDING, 0, 9),
                                      .stochastic = run->p[3] & STOCHASTIC});
}

static double flops(const int64_t *p, bool backward)
{
    (void)p, (void)backward;
    return 0;
}

static const ct_kind cast = {
    .name = "cast", .setup = setup, .fill = fill, .ref_fwd = ref_fwd, .fwd = fwd, .flops = flops};

static const ct_case cases[] = {
    {&cast, "cast_f32_f32", {1003, CT_F32, CT_F32, 0}},
    {&cast, "cast_f32_bf16", {1003, CT_F32, CT_BF16, 0}},
    {&cast, "cast_f32_f16", {1003, CT_F32, CT_F16, 0}},
    {&cast, "cast_bf16_f32", {1003, CT_BF16, CT_F32, 0}},
    {&cast, "cast_f16_f32", {1003, CT_F16, CT_F32, 0}},
    {&cast, "cast_bf16_f16", {65, CT_BF16, CT_F16, 0}},
    {&cast, "cast_f16_bf16", {65, CT_F16, CT_BF16, 0}},
    {&cast, "cast_bf16_bf16", {65, CT_BF16, CT_BF16, 0}},
    {&cast, "cast_f16_f16", {65, CT_F16, CT_F16, 0}},
    {&cast, "cast_f32_f32_edges", {67, CT_F32, CT_F32, EDGES}},
    {&cast, "cast_f32_bf16_edges", {67, CT_F32, CT_BF16, EDGES}},
    {&cast, "cast_f32_f16_edges", {67, CT_F32, CT_F16, EDGES}},
    {&cast, "cast_bf16_f32_edges", {67, CT_BF16, CT_F32, EDGES}},
    {&cast, "cast_f16_f32_edges", {67, CT_F16, CT_F32, EDGES}},
    {&cast, "cast_stochastic", {100003, CT_F32, CT_BF16, STOCHASTIC}},
    {&cast, "cast_stochastic_edges", {67, CT_F32, CT_BF16, STOCHASTIC | EDGES}},
    {&cast, "cast_one", {1, CT_F32, CT_BF16, 0}},
};

CT_DEFINE_CASE_TABLE(cast, cases);
