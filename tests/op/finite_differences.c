#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checks.h"

/* Central differences of fourth order,
 *     f' = (8 (f(x + h) - f(x - h)) - (f(x + 2h) - f(x - 2h)))/12h,
 * err by h^4/30 of the fifth derivative and by rounding, about 2^-53 f/h. With h = 1e-5 both stay
 * far below 1e-6 of the gradient, even where similarities are multiplied by 100. */
#define STEP      1e-5
#define TOLERANCE 1e-6

/* Elements tried of each slot: all of a small one, else spread evenly. */
#define TRIED 24

/* state: the STATE slots' numbers, which forward changes, one slot behind the other. */
static void copy_state(ct_case_run *run, double *state, bool restore)
{
    for (int s = 0; s < run->slots; s++) {
        const ct_slot *slot = &run->slot[s];
        if (slot->role != CT_SLOT_STATE) continue;
        const size_t bytes = (size_t)slot->count * sizeof *state;
        memcpy(restore ? slot->v : state, restore ? state : slot->v, bytes);
        state += slot->count;
    }
}

/* out = the OUTPUT slots' numbers, one behind the other, with element i of slot s moved by step. */
static void forward_moved(ct_case_run *run, int s, int64_t i, double step, double *state,
                          double *out)
{
    const double x = run->slot[s].v[i];
    run->slot[s].v[i] = x + step;
    copy_state(run, state, true);
    run->c->kind->ref_fwd(run);
    run->slot[s].v[i] = x;
    for (int o = 0; o < run->slots; o++) {
        const ct_slot *slot = &run->slot[o];
        if (slot->role != CT_SLOT_OUTPUT) continue;
        memcpy(out, slot->v, (size_t)slot->count * sizeof *out);
        out += slot->count;
    }
}

/* The sum over outputs of their gradient times their derivative; *scale: the sum of the terms'
 * magnitudes. at[0..3]: the outputs at x - 2h, x - h, x + h, x + 2h. */
static double slope(const ct_case_run *run, double *const at[4], double *scale)
{
    double sum = 0;
    int64_t first = 0;
    *scale = 0;
    for (int o = 0; o < run->slots; o++) {
        const ct_slot *slot = &run->slot[o];
        if (slot->role != CT_SLOT_OUTPUT) continue;
        for (int64_t i = 0; i < slot->count; i++) {
            const int64_t k = first + i;
            double term =
                slot->g[i] * (8 * (at[2][k] - at[1][k]) - (at[3][k] - at[0][k])) / (12 * STEP);
            sum += term;
            *scale += fabs(term);
        }
        first += slot->count;
    }
    return sum;
}

/* Whether an output is zero at some of the points only: a ReLU's kink lies between them. */
static bool crosses_kink(double *const at[4], int64_t outputs)
{
    for (int64_t i = 0; i < outputs; i++) {
        const int zeros = (at[0][i] == 0) + (at[1][i] == 0) + (at[2][i] == 0) + (at[3][i] == 0);
        if (zeros % 4) return true;
    }
    return false;
}

static void check_slot(ct_case_run *run, int s, double *state, double *const at[4])
{
    const ct_slot *slot = &run->slot[s];
    double square = 0;
    for (int64_t i = 0; i < slot->count; i++) square += slot->g[i] * slot->g[i];
    const double rms = slot->count ? sqrt(square / (double)slot->count) : 0;
    const double size = fmax(rms, slot->grad_magnitude);
    int tried = 0;
    const int64_t stride = slot->count > TRIED ? slot->count / TRIED : 1;
    for (int64_t i = 0; i < slot->count; i += stride) {
        double scale;
        for (int k = 0; k < 4; k++)
            forward_moved(run, s, i, (k < 2 ? k - 2 : k - 1) * STEP, state, at[k]);
        if (crosses_kink(at, at[1] - at[0])) continue;
        tried++;
        const double expected = slope(run, at, &scale);
        if (!(fabs(slot->g[i] - expected) <= TOLERANCE * (size + scale)))
            fail_msg("%s (seed %llu): the reference's gradient of %s[%lld] is %.12g, differences "
                     "give %.12g",
                     run->c->name, (unsigned long long)run->seed, slot->name, (long long)i,
                     slot->g[i], expected);
    }
    if (slot->count && !tried) fail_msg("%s: kinks everywhere around %s", run->c->name, slot->name);
}

void ct_check_finite_differences(const ct_case *c, uint64_t seed)
{
    ct_case_run run;
    ct_case_begin(&run, c, seed, CT_F32, false);
    if (run.kinked) {
        ct_case_end(&run);
        skip();
    }
    int64_t outputs = 0, states = 0;
    for (int s = 0; s < run.slots; s++) {
        if (run.slot[s].role == CT_SLOT_OUTPUT) outputs += run.slot[s].count;
        if (run.slot[s].role == CT_SLOT_STATE) states += run.slot[s].count;
    }
    double *memory = calloc((size_t)(4 * outputs + states) + 1, sizeof *memory);
    assert_non_null(memory);
    double *const at[4] = {memory, memory + outputs, memory + 2 * outputs, memory + 3 * outputs};
    double *state = memory + 4 * outputs;
    copy_state(&run, state, false);
    ct_case_reference(&run, false);
    for (int s = 0; s < run.slots; s++)
        if (run.slot[s].role == CT_SLOT_INPUT || run.slot[s].role == CT_SLOT_PARAM)
            check_slot(&run, s, state, at);
    free(memory);
    ct_case_end(&run);
}
