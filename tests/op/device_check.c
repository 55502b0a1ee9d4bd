#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "allocations.h"
#include "base/half.h"
#include "checks.h"

/* A case on a device, next to its two references: R0 of unrounded, R1 of rounded numbers. */
typedef struct device_run {
    ct_case_run *r0, *r1; /* r1's slots hold the device's tensors */
    ct_device *device;
    char *results[2]; /* all results, one behind the other, of the first and the second run */
    size_t result_bytes;
} device_run;

static void ok(const device_run *run, ct_status status, const char *what)
{
    if (status != CT_OK) fail_msg("%s: %s: %s", run->r1->c->name, what, ct_error_message());
}

static void *host_memory(size_t bytes)
{
    void *memory = malloc(bytes + 1);
    if (!memory) fail_msg("out of memory: %zu bytes", bytes);
    return memory;
}

/* ---- memory -------------------------------------------------------------------------------- */

static void allocate(device_run *run)
{
    const ct_backend *backend = run->device->backend;
    for (int s = 0; s < run->r1->slots; s++) {
        ct_slot *slot = &run->r1->slot[s];
        if (ct_tensor_present(&slot->t) && !slot->value_in)
            ok(run, backend->alloc(run->device, ct_tensor_bytes(&slot->t), "a test", &slot->t.data),
               "alloc");
        if (ct_tensor_present(&slot->d) && !slot->gradient_in)
            ok(run, backend->alloc(run->device, ct_tensor_bytes(&slot->d), "a test", &slot->d.data),
               "alloc");
    }
    for (int s = 0; s < run->r1->slots; s++) {
        ct_slot *slot = &run->r1->slot[s];
        if (slot->value_in) slot->t.data = slot->value_in->t.data;
        if (slot->gradient_in) slot->d.data = slot->gradient_in->d.data;
    }
}

static void release(device_run *run)
{
    const ct_backend *backend = run->device->backend;
    for (int s = 0; s < run->r1->slots; s++) {
        ct_slot *slot = &run->r1->slot[s];
        if (!slot->value_in) backend->free(run->device, slot->t.data);
        if (!slot->gradient_in) backend->free(run->device, slot->d.data);
        slot->t.data = slot->d.data = NULL;
    }
    free(run->results[0]);
    free(run->results[1]);
}

/* Converts numbers to the tensor's dtype and uploads them; x NULL: all bits set, which is NaN. */
static void put(device_run *run, const ct_tensor *t, const double *x)
{
    const size_t bytes = ct_tensor_bytes(t);
    void *host = host_memory(bytes);
    memset(host, 0xFF, bytes);
    for (int64_t i = 0; x && i < ct_tensor_count(t); i++) {
        if (t->dtype == CT_U8) ((uint8_t *)host)[i] = (uint8_t)x[i];
        else if (t->dtype == CT_I32) ((int32_t *)host)[i] = (int32_t)x[i];
        else if (t->dtype == CT_BF16) ((uint16_t *)host)[i] = ct_bf16_from_f32((float)x[i]);
        else if (t->dtype == CT_F16) ((uint16_t *)host)[i] = ct_f16_from_f32((float)x[i]);
        else ((float *)host)[i] = (float)x[i];
    }
    ok(run, run->device->backend->upload(run->device, t->data, host, bytes), "upload");
    free(host);
}

static void put_starts(device_run *run, int s)
{
    const ct_slot *slot = &run->r1->slot[s];
    double *start = host_memory((size_t)slot->count * sizeof *start);
    for (int64_t i = 0; i < slot->count; i++) start[i] = (double)ct_case_start(run->r1, s, i);
    put(run, &slot->d, start);
    free(start);
}

/* The numbers that forward reads: `inputs` holds each slot's v as it was before ref_fwd. */
static void put_values(device_run *run, double *const *inputs)
{
    for (int s = 0; s < run->r1->slots; s++) {
        const ct_slot *slot = &run->r1->slot[s];
        if (ct_tensor_present(&slot->t) && !slot->value_in) put(run, &slot->t, inputs[s]);
    }
}

static void put_gradients(device_run *run)
{
    for (int s = 0; s < run->r1->slots; s++) {
        const ct_slot *slot = &run->r1->slot[s];
        if (!ct_tensor_present(&slot->d) || slot->gradient_in) continue;
        if (ct_case_adds(slot)) put_starts(run, s);
        else put(run, &slot->d, slot->role == CT_SLOT_OUTPUT ? slot->g : NULL);
    }
}

/* ---- running ------------------------------------------------------------------------------- */

static bool is_result(const ct_slot *slot, bool gradient)
{
    if (gradient)
        return ct_tensor_present(&slot->d) &&
               (slot->role == CT_SLOT_INPUT || slot->role == CT_SLOT_PARAM);
    return ct_tensor_present(&slot->t) && !slot->unchecked &&
           (slot->role == CT_SLOT_OUTPUT || slot->role == CT_SLOT_SAVED ||
            slot->role == CT_SLOT_STATE);
}

/* Downloads all results of one pass and returns where the next one's go. */
static char *get_results(device_run *run, bool gradient, char *to)
{
    for (int s = 0; s < run->r1->slots; s++) {
        const ct_slot *slot = &run->r1->slot[s];
        if (!is_result(slot, gradient)) continue;
        const ct_tensor *t = gradient ? &slot->d : &slot->t;
        ok(run, run->device->backend->download(run->device, to, t->data, ct_tensor_bytes(t)),
           "download");
        to += ct_tensor_bytes(t);
    }
    return to;
}

/* An input that shares memory with an output was overwritten by forward. */
static void restore_aliased(device_run *run, double *const *inputs)
{
    for (int s = 0; s < run->r1->slots; s++) {
        const ct_slot *other = run->r1->slot[s].value_in;
        if (other) put(run, &other->t, inputs[other - run->r1->slot]);
    }
}

static void run_once(device_run *run, double *const *inputs, char *results)
{
    const ct_kind *kind = run->r1->c->kind;
    put_values(run, inputs);
    ok(run, kind->fwd(run->r1), "forward");
    results = get_results(run, false, results);
    if (!kind->bwd) return;
    restore_aliased(run, inputs);
    put_gradients(run);
    ok(run, kind->bwd(run->r1), "backward");
    get_results(run, true, results);
}

/* Neither pass may write to what it only reads. */
static void check_inputs_kept(device_run *run, double *const *inputs)
{
    for (int s = 0; s < run->r1->slots; s++) {
        const ct_slot *slot = &run->r1->slot[s];
        if (!inputs[s] || slot->role == CT_SLOT_STATE) continue;
        bool aliased = false;
        for (int other = 0; other < run->r1->slots; other++)
            aliased |= run->r1->slot[other].value_in == slot;
        if (aliased) continue;
        size_t bytes = ct_tensor_bytes(&slot->t);
        char *now = host_memory(2 * bytes), *before = now + bytes;
        const ct_backend *backend = run->device->backend;
        ok(run, backend->download(run->device, now, slot->t.data, bytes), "download");
        put(run, &slot->t, inputs[s]);
        ok(run, backend->download(run->device, before, slot->t.data, bytes), "download");
        if (memcmp(now, before, bytes))
            fail_msg("%s: %s was changed", run->r1->c->name, slot->name);
        free(now);
    }
}

/* ---- comparing ----------------------------------------------------------------------------- */

/* Results lie one behind the other, so that they need not be aligned. */
static double read_number(const char *from, ct_dtype dtype, int64_t i)
{
    float f;
    int32_t whole;
    uint16_t half;
    switch (dtype) {
    case CT_U8:
        return ((const uint8_t *)from)[i];
    case CT_I32:
        memcpy(&whole, from + i * 4, sizeof whole);
        return (double)whole;
    case CT_F32:
        memcpy(&f, from + i * 4, sizeof f);
        return (double)f;
    default:
        memcpy(&half, from + i * 2, sizeof half);
        return (double)(dtype == CT_BF16 ? ct_bf16_to_f32(half) : ct_f16_to_f32(half));
    }
}

/* Squares' sums and maxima over a tensor, of R0, R1 - R0 and D - R0. */
typedef struct deviation {
    double reference_square, rounding_square, device_square;
    double reference_max, rounding_max, device_max;
    int64_t worst;
} deviation;

/* NaN equals NaN. */
static void compare_exactly(const device_run *run, int s, const char *device)
{
    const ct_slot *slot = &run->r1->slot[s];
    for (int64_t i = 0; i < slot->count; i++) {
        double d = read_number(device, slot->t.dtype, i);
        if (d != slot->v[i] && !(isnan(d) && isnan(slot->v[i])))
            fail_msg("%s: %s[%lld] is %g, not %g", run->r1->c->name, slot->name, (long long)i, d,
                     slot->v[i]);
    }
}

static void check_limit(const device_run *run, int s, bool gradient, const deviation *e,
                        double d_worst, double r_worst)
{
    const ct_slot *slot = &run->r0->slot[s];
    const char *part = gradient ? "gradient" : "value";
    const double n = (double)slot->count, terms = gradient ? slot->grad_terms : slot->terms;
    const double cancels = gradient ? slot->grad_magnitude : slot->magnitude;
    const double max_limit = ct_case_limit(e->rounding_max, terms, fmax(cancels, e->reference_max));
    if (!(e->device_max <= max_limit))
        fail_msg("%s (seed %llu): %s of %s[%lld] is %.9g, not %.9g: error %.3g is over its limit "
                 "%.3g (rounding alone %.3g, terms %g, largest %.3g)",
                 run->r1->c->name, (unsigned long long)run->r1->seed, part, slot->name,
                 (long long)e->worst, d_worst, r_worst, e->device_max, max_limit, e->rounding_max,
                 terms, e->reference_max);
    const double rms = sqrt(e->reference_square / n), rms_error = sqrt(e->device_square / n);
    const double rms_limit = ct_case_limit(sqrt(e->rounding_square / n), terms, fmax(cancels, rms));
    if (!(rms_error <= rms_limit))
        fail_msg("%s (seed %llu): rms error %.3g of the %s of %s is over its limit %.3g (rounding "
                 "alone %.3g, terms %g, rms %.3g)",
                 run->r1->c->name, (unsigned long long)run->r1->seed, rms_error, part, slot->name,
                 rms_limit, sqrt(e->rounding_square / n), terms, rms);
}

static void compare_floats(const device_run *run, int s, bool gradient, const char *device)
{
    const ct_slot *s0 = &run->r0->slot[s], *s1 = &run->r1->slot[s];
    const double *r0 = gradient ? s0->g : s0->v, *r1 = gradient ? s1->g : s1->v;
    const bool added = gradient && ct_case_adds(s0);
    const ct_dtype dtype = gradient ? s1->d.dtype : s1->t.dtype;
    deviation e = {0};
    for (int64_t i = 0; i < s0->count; i++) {
        double start = added ? (double)ct_case_start(run->r1, s, i) : 0;
        double exact = start + r0[i];
        double rounded = ct_case_round(dtype, ct_case_round(dtype, start) + r1[i]);
        double rounding = fabs(rounded - exact);
        double error = fabs(read_number(device, dtype, i) - exact);
        if (isfinite(exact) && !isfinite(rounding))
            fail_msg("%s: %s[%lld] = %g is more than %s holds", run->r1->c->name, s0->name,
                     (long long)i, exact, ct_dtype_name(dtype));
        e.reference_square += exact * exact;
        e.rounding_square += rounding * rounding;
        e.device_square += error * error;
        e.reference_max = fmax(e.reference_max, fabs(exact));
        e.rounding_max = fmax(e.rounding_max, rounding);
        if (!(error <= e.device_max)) { /* NaN too */
            e.device_max = error;
            e.worst = i;
        }
    }
    const double start = added ? (double)ct_case_start(run->r1, s, e.worst) : 0;
    check_limit(run, s, gradient, &e, read_number(device, dtype, e.worst), start + r0[e.worst]);
}

static void compare_results(const device_run *run)
{
    const char *from = run->results[0];
    for (int gradient = 0; gradient < (run->r1->c->kind->bwd ? 2 : 1); gradient++) {
        for (int s = 0; s < run->r1->slots; s++) {
            const ct_slot *slot = &run->r1->slot[s];
            if (!is_result(slot, gradient)) continue;
            if (ct_case_is_float(slot->t.dtype) && !slot->exact)
                compare_floats(run, s, gradient, from);
            else compare_exactly(run, s, from);
            from += ct_tensor_bytes(gradient ? &slot->d : &slot->t);
        }
    }
}

/* ---- the check ----------------------------------------------------------------------------- */

/* inputs[s] = a copy of the slot's numbers where forward reads them, else NULL. */
static void save_inputs(const ct_case_run *run, double **inputs)
{
    for (int s = 0; s < CT_CASE_SLOTS; s++) {
        const ct_slot *slot = &run->slot[s];
        const bool written = slot->role == CT_SLOT_OUTPUT || slot->role == CT_SLOT_SAVED;
        inputs[s] = NULL;
        if (s >= run->slots || !slot->count || written) continue;
        inputs[s] = host_memory((size_t)slot->count * sizeof **inputs);
        memcpy(inputs[s], slot->v, (size_t)slot->count * sizeof **inputs);
    }
}

static void prepare(device_run *run)
{
    const ct_kind *kind = run->r1->c->kind;
    run->r1->exec = (ct_exec){.device = run->device, .planning = true, .training = true};
    ok(run, kind->fwd(run->r1), "preparing forward");
    if (kind->bwd) ok(run, kind->bwd(run->r1), "preparing backward");
    ok(run, run->device->backend->commit(run->device), "commit");
    run->r1->exec.planning = false;
    for (int s = 0; s < run->r1->slots; s++)
        run->result_bytes +=
            ct_tensor_bytes(&run->r1->slot[s].t) + ct_tensor_bytes(&run->r1->slot[s].d);
    for (int i = 0; i < 2; i++) {
        run->results[i] = host_memory(run->result_bytes);
        memset(run->results[i], 0, run->result_bytes);
    }
}

/* The operations' own allocations in a second pass over prepared memory. */
static void check_allocates_nothing(device_run *run, double *const *inputs)
{
    const ct_kind *kind = run->r1->c->kind;
    if (!ct_own_allocations) return; /* this executable does not count */
    put_values(run, inputs);
    put_gradients(run);
    const long before = ct_own_allocations();
    ct_status forward = kind->fwd(run->r1);
    ct_status backward = kind->bwd ? kind->bwd(run->r1) : CT_OK;
    const long after = ct_own_allocations();
    ok(run, forward, "forward");
    ok(run, backward, "backward");
    if (before != after)
        fail_msg("%s: %ld allocations after prepare", run->r1->c->name, after - before);
}

void ct_check_device_runs(ct_case_run *r0, ct_case_run *r1, ct_device *device)
{
    double *inputs[CT_CASE_SLOTS];
    save_inputs(r1, inputs);
    ct_case_reference(r1, true);
    r0->decisions = r1;
    ct_case_reference(r0, false);
    device_run run = {.r0 = r0, .r1 = r1, .device = device};
    prepare(&run);
    allocate(&run);
    run_once(&run, inputs, run.results[0]);
    check_inputs_kept(&run, inputs);
    compare_results(&run);
    run_once(&run, inputs, run.results[1]);
    if (memcmp(run.results[0], run.results[1], run.result_bytes))
        fail_msg("%s: two runs differ", r1->c->name);
    check_allocates_nothing(&run, inputs);
    release(&run);
    for (int s = 0; s < CT_CASE_SLOTS; s++) free(inputs[s]);
}

void ct_check_device(const ct_case *c, ct_device *device, uint64_t seed)
{
    ct_case_run r0, r1;
    ct_case_begin(&r0, c, seed, device->compute_dtype, device->tf32);
    ct_case_begin(&r1, c, seed, device->compute_dtype, device->tf32);
    ct_case_round_inputs(&r1);
    ct_check_device_runs(&r0, &r1, device);
    ct_case_end(&r0);
    ct_case_end(&r1);
}
