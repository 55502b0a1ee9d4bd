/* PyTorch's numbers: tests/reference/data/ops.bin holds f32 values, ops.txt one line for each
 * array in it,
 *     <case> <slot> value|gradient given|result <offset> <count>
 * with offset and count in elements. tests/reference/make_ops.py writes both. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checks.h"

#define INDEX_PATH "tests/reference/data/ops.txt"
#define DATA_PATH  "tests/reference/data/ops.bin"

typedef struct entry {
    char c[64], slot[32], part[16], use[16];
    long offset, count;
} entry;

static bool next_entry(FILE *index, entry *e)
{
    int fields = fscanf(index, "%63s %31s %15s %15s %ld %ld", e->c, e->slot, e->part, e->use,
                        &e->offset, &e->count);
    if (fields != EOF && fields != 6)
        fail_msg("%s: a line has %d fields, not 6", INDEX_PATH, fields);
    return fields == 6;
}

static FILE *open_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file) fail_msg("cannot open %s (run tests from the repository's root)", path);
    return file;
}

bool ct_torch_has(const char *case_name)
{
    FILE *index = fopen(INDEX_PATH, "rb");
    if (!index) return false; /* ct_check_torch_names tells */
    entry e;
    bool found = false;
    while (!found && next_entry(index, &e)) found = !strcmp(e.c, case_name);
    fclose(index);
    return found;
}

void ct_check_torch_names(const ct_case *const *cases, int count)
{
    FILE *index = open_file(INDEX_PATH);
    entry e;
    while (next_entry(index, &e)) {
        bool found = false;
        for (int i = 0; i < count && !found; i++) found = !strcmp(e.c, cases[i]->name);
        if (!found) fail_msg("%s has case %s, which is in no table", INDEX_PATH, e.c);
    }
    fclose(index);
}

static const ct_slot *find_slot(const ct_case_run *run, const entry *e)
{
    for (int s = 0; s < run->slots; s++) {
        const ct_slot *slot = &run->slot[s];
        if (strcmp(slot->name, e->slot)) continue;
        if (slot->count != e->count)
            fail_msg("%s: %s has %lld elements, PyTorch's %ld", e->c, e->slot,
                     (long long)slot->count, e->count);
        return slot;
    }
    fail_msg("%s has no slot %s, which %s names", e->c, e->slot, INDEX_PATH);
    return NULL;
}

static void read_floats(FILE *data, const entry *e, double *out)
{
    assert_int_equal(fseek(data, e->offset * (long)sizeof(float), SEEK_SET), 0);
    for (long i = 0; i < e->count; i++) {
        float v;
        if (fread(&v, sizeof v, 1, data) != 1) fail_msg("%s is too short", DATA_PATH);
        out[i] = (double)v;
    }
}

/* Calls `visit` for each of the case's arrays with the given use. */
static void each_array(const ct_case_run *run, const char *use,
                       void (*visit)(const entry *e, const ct_slot *slot, double *numbers,
                                     const double *torch))
{
    FILE *index = open_file(INDEX_PATH), *data = open_file(DATA_PATH);
    entry e;
    while (next_entry(index, &e)) {
        if (strcmp(e.c, run->c->name) || strcmp(e.use, use)) continue;
        const ct_slot *slot = find_slot(run, &e);
        double *numbers = strcmp(e.part, "gradient") ? slot->v : slot->g;
        double *torch = calloc((size_t)e.count + 1, sizeof *torch);
        assert_non_null(torch);
        read_floats(data, &e, torch);
        visit(&e, slot, numbers, torch);
        free(torch);
    }
    fclose(index);
    fclose(data);
}

static void take(const entry *e, const ct_slot *slot, double *numbers, const double *torch)
{
    (void)slot;
    memcpy(numbers, torch, (size_t)e->count * sizeof *torch);
}

/* Both were computed in f64; PyTorch's were then stored in f32, half an ulp away at most. */
static void compare(const entry *e, const ct_slot *slot, double *numbers, const double *torch)
{
    double largest = 0;
    for (long i = 0; i < e->count; i++) largest = fmax(largest, fabs(torch[i]));
    for (long i = 0; i < e->count; i++) {
        double error = fabs(numbers[i] - torch[i]);
        if (!(error <= (double)FLT_EPSILON / 2 * fabs(torch[i]) + 1e-12 * largest))
            fail_msg("%s: %s of %s[%ld] is %.9g, PyTorch's is %.9g", e->c, e->part, slot->name, i,
                     numbers[i], torch[i]);
    }
}

/* PyTorch's inputs are f32 already. To see what rounding does to the results they are moved within
 * half an ulp, as numbers that round to them (narrower types round them anyway). */
static void unround(ct_case_run *run)
{
    for (int s = 0; s < run->slots; s++) {
        ct_slot *slot = &run->slot[s];
        if (slot->t.dtype != CT_F32) continue;
        const ct_rng_key key = ct_rng_make(run->seed, CT_RNG_TEST, 1 << 20, (uint64_t)s);
        for (int64_t i = 0; i < slot->count; i++) {
            double factor =
                1 + ((double)ct_rng_uniform(key, (uint64_t)i) - 0.5) * (double)FLT_EPSILON / 2;
            slot->v[i] *= factor;
            if (slot->g) slot->g[i] *= factor;
        }
    }
}

void ct_check_torch(const ct_case *c, ct_device *device, uint64_t seed)
{
    ct_case_run reference, r0, r1;
    ct_case_begin(&reference, c, seed, CT_F32, false);
    each_array(&reference, "given", take);
    ct_case_reference(&reference, false);
    each_array(&reference, "result", compare);
    ct_case_end(&reference);

    ct_case_begin(&r0, c, seed, device->compute_dtype, device->tf32);
    ct_case_begin(&r1, c, seed, device->compute_dtype, device->tf32);
    each_array(&r0, "given", take);
    each_array(&r1, "given", take);
    unround(&r0);
    ct_case_round_inputs(&r1);
    ct_check_device_runs(&r0, &r1, device);
    ct_case_end(&r0);
    ct_case_end(&r1);
}
