/* What must not matter: the order of the pairs, and which side is called image. The device's
 * results of the changed batch, changed back, must be as near to the reference of the unchanged one
 * as its own are. */
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "cpu/cpu.h"
#include "problem.h"
#include "support.h"
#include "tests.h"

static const shape shapes[] = {
    {CLIP, 611, 96, CT_SAME_IMAGE_MASK, 14, 10, MATCHED, 1, true},
    {CLIP, 530, 33, CT_SAME_IMAGE_SHARE, 30, 0, MATCHED, 3, false},
    {CLIP, 257, 64, CT_SAME_IMAGE_NEGATIVE, 5, 20, MATCHED, 2, true},
    {SIGLIP, 611, 96, CT_SAME_IMAGE_SHARE, 10, 0, MATCHED, 1, true},
    {SIGLIP, 300, 33, CT_SAME_IMAGE_MASK, 20, 0, MATCHED, 4, false},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* to[order[i]] = from[i], rows of `width`; replaces *rows. */
static void put_back(double **rows, const int64_t *order, int64_t count, int64_t width)
{
    double *to = must_alloc((size_t)(count * width) * sizeof *to);
    for (int64_t i = 0; i < count; i++)
        memcpy(to + order[i] * width, *rows + i * width, (size_t)width * sizeof *to);
    free(*rows);
    *rows = to;
}

static void swap(double **a, double **b)
{
    double *kept = *a;
    *a = *b;
    *b = kept;
}

/* A batch and its references. */
typedef struct known {
    problem p;
    results r0, r1;
} known;

static known know(const shape *s)
{
    known k = {.p = problem_create(s, test_seed())};
    problem rounded = problem_rounded(&k.p);
    k.r0 = reference_results(&k.p, false);
    k.r1 = reference_results(&rounded, true);
    problem_free(&rounded);
    return k;
}

static void check_and_free(known *k, results *d, ct_device *device)
{
    check_results(&k->p, &k->r0, &k->r1, d);
    results_free(d);
    results_free(&k->r0);
    results_free(&k->r1);
    problem_free(&k->p);
    ct_device_destroy(device);
}

static void test_order(void **state)
{
    (void)state;
    for (int i = 0; i < SHAPES; i++) {
        const int64_t count = shapes[i].count, width = shapes[i].width;
        const ct_rng_key key = ct_rng_make(test_seed(), CT_RNG_TEST, 3000, (uint64_t)i);
        int64_t *order = must_alloc((size_t)count * sizeof *order);
        for (int64_t n = 0; n < count; n++) { /* Fisher and Yates */
            const int64_t other = (int64_t)ct_rng_below(key, (uint64_t)n, (uint32_t)n + 1);
            order[n] = order[other];
            order[other] = n;
        }
        ct_device *device;
        assert_ok(ct_cpu_device_create(2, &device));
        known k = know(&shapes[i]);
        problem permuted = problem_permuted(&k.p, order);
        results d = device_results(device, &permuted);
        put_back(&d.row_lse, order, count, 1);
        put_back(&d.col_lse, order, count, 1);
        put_back(&d.dimage, order, count, width);
        put_back(&d.dtext, order, count, width);
        check_and_free(&k, &d, device);
        problem_free(&permuted);
        free(order);
    }
}

static void test_sides(void **state)
{
    (void)state;
    for (int i = 0; i < SHAPES; i++) {
        ct_device *device;
        assert_ok(ct_cpu_device_create(2, &device));
        known k = know(&shapes[i]);
        swap(&k.p.image, &k.p.text);
        results d = device_results(device, &k.p);
        swap(&d.row_lse, &d.col_lse);
        swap(&d.dimage, &d.dtext);
        check_and_free(&k, &d, device);
    }
}

int run_symmetry_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_sides),
    };
    return cmocka_run_group_tests_name("loss, symmetries", tests, NULL, NULL);
}
