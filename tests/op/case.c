#include "case.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"

static double *numbers(int64_t count)
{
    double *block = calloc((size_t)count + 1, sizeof *block);
    if (!block) fail_msg("out of memory: %lld numbers", (long long)count);
    return block;
}

static bool has_gradient(ct_slot_role role)
{
    return role == CT_SLOT_INPUT || role == CT_SLOT_PARAM || role == CT_SLOT_OUTPUT;
}

static bool is_read(ct_slot_role role)
{
    return role != CT_SLOT_OUTPUT && role != CT_SLOT_SAVED;
}

ct_slot *ct_case_slot(ct_case_run *run, int index, const char *name, ct_slot_role role,
                      ct_dtype dtype, const int64_t *dims, bool absent)
{
    assert_int_equal(index, run->slots);
    assert_true(index < CT_CASE_SLOTS);
    run->slots++;
    ct_slot *slot = &run->slot[index];
    *slot = (ct_slot){.name = name, .role = role, .terms = 1, .grad_terms = 1};
    if (absent) return slot;
    slot->compute = dtype == CT_CASE_COMPUTE;
    if (slot->compute) dtype = run->compute_dtype;
    ct_tensor t = {.dim = {1, 1, 1, 1}, .dtype = dtype};
    for (; dims[t.rank]; t.rank++) t.dim[t.rank] = dims[t.rank];
    slot->t = t;
    slot->count = ct_tensor_count(&t);
    slot->v = numbers(slot->count);
    if (has_gradient(role)) {
        slot->d = t;
        if (role == CT_SLOT_PARAM) slot->d.dtype = CT_F32;
        slot->g = numbers(slot->count);
    }
    return slot;
}

/* One stream of random numbers for each use of each slot of each case. */
static ct_rng_key stream(const ct_case_run *run, int slot, int use)
{
    uint64_t name_hash = 14695981039346656037u; /* FNV-1a */
    for (const char *c = run->c->name; *c; c++)
        name_hash = (name_hash ^ (unsigned char)*c) * 1099511628211u;
    return ct_rng_make(run->seed, CT_RNG_TEST, (uint64_t)(slot * 4 + use), name_hash);
}

enum { USE_VALUE, USE_GRADIENT, USE_FILL, USE_START };

double ct_case_normal(const ct_case_run *run, int slot, int64_t index)
{
    return ct_rng_normal(stream(run, slot, USE_FILL), (uint64_t)index);
}

int64_t ct_case_below(const ct_case_run *run, int slot, int64_t index, int64_t bound)
{
    return ct_rng_below(stream(run, slot, USE_FILL), (uint64_t)index, (uint32_t)bound);
}

bool ct_case_adds(const ct_slot *slot)
{
    return slot->role == CT_SLOT_PARAM || slot->adds;
}

float ct_case_start(const ct_case_run *run, int slot, int64_t index)
{
    return (float)ct_rng_normal(stream(run, slot, USE_START), (uint64_t)index);
}

bool ct_case_is_float(ct_dtype dtype)
{
    return dtype == CT_F32 || dtype == CT_BF16 || dtype == CT_F16;
}

double ct_case_round(ct_dtype dtype, double x)
{
    switch (dtype) {
    case CT_F32:
        return (double)(float)x;
    case CT_BF16:
        return (double)ct_bf16_to_f32(ct_bf16_from_f32((float)x));
    case CT_F16:
        return (double)ct_f16_to_f32(ct_f16_from_f32((float)x));
    default:
        return x;
    }
}

double ct_case_stored(const ct_case_run *run, const ct_slot *slot, double x)
{
    return run->rounded ? ct_case_round(slot->t.dtype, x) : x;
}

void ct_case_begin(ct_case_run *run, const ct_case *c, uint64_t seed, ct_dtype compute_dtype,
                   bool tf32)
{
    *run = (ct_case_run){.c = c,
                         .p = c->p,
                         .seed = seed,
                         .compute_dtype = compute_dtype,
                         .tf32 = tf32,
                         .decisions = run};
    c->kind->setup(run);
    for (int s = 0; s < run->slots; s++) {
        ct_slot *slot = &run->slot[s];
        if (!ct_case_is_float(slot->t.dtype)) continue;
        ct_rng_key value = stream(run, s, USE_VALUE), gradient = stream(run, s, USE_GRADIENT);
        for (int64_t i = 0; i < slot->count; i++) {
            if (is_read(slot->role)) slot->v[i] = ct_rng_normal(value, (uint64_t)i);
            if (slot->role == CT_SLOT_OUTPUT) slot->g[i] = ct_rng_normal(gradient, (uint64_t)i);
        }
    }
    if (c->kind->fill) c->kind->fill(run);
}

void ct_case_end(ct_case_run *run)
{
    for (int s = 0; s < run->slots; s++) {
        free(run->slot[s].v);
        free(run->slot[s].g);
    }
    *run = (ct_case_run){0};
}

static void round_values(ct_slot *slot)
{
    for (int64_t i = 0; i < slot->count; i++) slot->v[i] = ct_case_round(slot->t.dtype, slot->v[i]);
}

static void round_gradients(ct_slot *slot)
{
    for (int64_t i = 0; slot->g && i < slot->count; i++)
        slot->g[i] = ct_case_round(slot->d.dtype, slot->g[i]);
}

/* To 10 bits of mantissa, the nearest. */
static void round_to_tf32(double *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        int exponent;
        const double mantissa = frexp(x[i], &exponent);
        x[i] = ldexp(nearbyint(ldexp(mantissa, 11)), exponent - 11);
    }
}

void ct_case_round_inputs(ct_case_run *run)
{
    for (int s = 0; s < run->slots; s++) {
        ct_slot *slot = &run->slot[s];
        const bool value = is_read(slot->role), gradient = slot->role == CT_SLOT_OUTPUT;
        if (value) round_values(slot);
        if (gradient) round_gradients(slot);
        if (!(run->tf32 && run->c->kind->products && slot->compute)) continue;
        if (value) round_to_tf32(slot->v, slot->count);
        if (gradient) round_to_tf32(slot->g, slot->count);
    }
}

void ct_case_reference(ct_case_run *run, bool rounded)
{
    const ct_kind *kind = run->c->kind;
    run->rounded = rounded;
    kind->ref_fwd(run);
    for (int s = 0; rounded && s < run->slots; s++) round_values(&run->slot[s]);
    if (kind->ref_bwd) kind->ref_bwd(run);
    for (int s = 0; rounded && s < run->slots; s++) round_gradients(&run->slot[s]);
}

double ct_case_bytes(const ct_case_run *run, bool backward)
{
    double bytes = 0;
    for (int s = 0; s < run->slots; s++) {
        const ct_slot *slot = &run->slot[s];
        const double once = (double)ct_tensor_bytes(&slot->t);
        const double gradient = (double)ct_tensor_bytes(&slot->d);
        if (!backward) bytes += slot->role == CT_SLOT_STATE ? 2 * once : once;
        else if (ct_case_adds(slot))
            bytes += once + 2 * gradient; /* the gradient is read and written */
        else if (slot->role == CT_SLOT_INPUT) bytes += once + gradient;
        else if (slot->role != CT_SLOT_STATE) bytes += once;
    }
    return bytes;
}

double ct_case_limit(double rounding_error, double terms, double size)
{
    return 2 * rounding_error + (double)FLT_EPSILON * sqrt(terms) * size;
}
