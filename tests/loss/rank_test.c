/* The same batch shared by ranks. */
#include <math.h>
#include <string.h>

#include "cpu/cpu.h"
#include "problem.h"
#include "support.h"
#include "tests.h"

/* |a - b| / |a|, or relative to the size of what cancels in a. */
static double difference(const double *a, const double *b, int64_t count, double size)
{
    double squares = 0, difference_squares = 0;
    for (int64_t i = 0; i < count; i++) {
        squares += a[i] * a[i];
        difference_squares += (a[i] - b[i]) * (a[i] - b[i]);
    }
    return sqrt(difference_squares) / fmax(size, sqrt(squares));
}

static void compare(const char *name, const double *whole, const double *joined, int64_t count,
                    double size)
{
    const bool equal = !memcmp(whole, joined, (size_t)count * sizeof *whole);
    const double found = difference(whole, joined, count, size);
    print_message("  %-12s %s, relative difference %.2g\n", name,
                  equal ? "equal bit for bit" : "not equal bit for bit", found);
    if (!(found <= 1e-6)) fail_msg("%s: %.3g is more than 1e-6", name, found);
}

/* 4 ranks of 256 rows and one of 1024 agree to 1e-6. They cannot agree bit for bit on the
 * processor: a column's log-sum-exp adds up ranks, where one device adds up blocks of 512 rows; a
 * rank forms the texts' similarities anew with the sides swapped, which the product's library may
 * add in another order; and the texts' gradients are one sum over all images, where one device adds
 * blocks of 512 of them. The better a model has learned, the more of a gradient cancels, and the
 * less two ways of adding agree on what is left; both are then as near to f64 as test_random asks
 * of any number of ranks. */
static void compare_ranks(loss_kind kind)
{
    const shape s = {.kind = kind,
                     .count = 1024,
                     .width = 512,
                     .same_image = CT_SAME_IMAGE_MASK,
                     .factor = 1 / 0.07,
                     .filling = UNRELATED,
                     .even = true};
    ct_device *device;
    assert_ok(ct_cpu_device_create(2, &device));
    problem p = problem_create(&s, test_seed());
    results whole = device_results(device, &p);
    p.shape.ranks = 4;
    results joined = device_results(device, &p);
    print_message("%s, 4 x 256 pairs against 1024:\n", kind == CLIP ? "clip_loss" : "siglip_loss");
    compare("loss", &whole.loss, &joined.loss, 1, s.factor); /* of log-sum-exps and targets */
    if (kind == CLIP) {
        compare("row_lse", whole.row_lse, joined.row_lse, s.count, 0);
        compare("col_lse", whole.col_lse, joined.col_lse, s.count, 0);
    } else {
        compare("dlogit_bias", &whole.dlogit_bias, &joined.dlogit_bias, 1, 0);
    }
    compare("dimage", whole.dimage, joined.dimage, s.count * s.width, 0);
    compare("dtext", whole.dtext, joined.dtext, s.count * s.width, 0);
    compare("dlogit_scale", &whole.dlogit_scale, &joined.dlogit_scale, 1, 0);
    results_free(&whole);
    results_free(&joined);
    problem_free(&p);
    ct_device_destroy(device);
}

static void test_clip_ranks(void **state)
{
    (void)state;
    compare_ranks(CLIP);
}

static void test_siglip_ranks(void **state)
{
    (void)state;
    compare_ranks(SIGLIP);
}

int run_rank_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clip_ranks),
        cmocka_unit_test(test_siglip_ranks),
    };
    return cmocka_run_group_tests_name("loss, ranks", tests, NULL, NULL);
}
