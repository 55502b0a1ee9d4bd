/* Sizes from one pair to thousands, each against f64. */
#include "base/rng.h"
#include "cpu/cpu.h"
#include "problem.h"
#include "support.h"
#include "tests.h"

#define LENGTH(array) (sizeof(array) / sizeof *(array))

enum { THREADS = 2 };

static int create_device(void **state)
{
    ct_device *device;
    if (ct_cpu_device_create(THREADS, &device) != CT_OK) return -1;
    *state = device;
    return 0;
}

static int destroy_device(void **state)
{
    ct_device_destroy(*state);
    return 0;
}

/* Every width with every small batch, all treatments of shared photos, factors from 1 to 100. */
static void test_small(void **state)
{
    static const int64_t counts[] = {1, 2, 3, 17, 127, 128, 129}, widths[] = {16, 100, 512, 1024};
    static const double factors[] = {1, 14, 100};
    const uint64_t seed = test_seed();
    for (size_t n = 0; n < LENGTH(counts); n++)
        for (size_t d = 0; d < LENGTH(widths); d++)
            for (int mode = 0; mode < 3; mode++)
                for (int kind = CLIP; kind <= SIGLIP; kind++)
                    check_shape(*state,
                                &(shape){.kind = (loss_kind)kind,
                                         .count = counts[n],
                                         .width = widths[d],
                                         .same_image = (ct_same_image)mode,
                                         .factor = factors[(n + d + (size_t)mode) % 3],
                                         .percent = kind == CLIP && n % 2 ? 10 : 0},
                                seed + n * 100 + d);
}

/* More rows and columns than the processor's blocks have, and the widths of real models. */
static void test_large(void **state)
{
    static const shape shapes[] = {
        {CLIP, 1000, 1024, CT_SAME_IMAGE_MASK, 14, 0, MATCHED, 1, true},
        {CLIP, 1000, 512, CT_SAME_IMAGE_SHARE, 100, 10, MATCHED, 1, true},
        {SIGLIP, 1000, 100, CT_SAME_IMAGE_MASK, 100, 0, MATCHED, 1, true},
        {CLIP, 2049, 512, CT_SAME_IMAGE_MASK, 60, 0, MATCHED, 1, true},
        {CLIP, 2049, 16, CT_SAME_IMAGE_NEGATIVE, 1, 0, MATCHED, 1, true},
        {SIGLIP, 2049, 100, CT_SAME_IMAGE_SHARE, 10, 0, MATCHED, 1, true},
        {CLIP, 4097, 100, CT_SAME_IMAGE_SHARE, 14, 0, MATCHED, 1, true},
        {CLIP, 4097, 16, CT_SAME_IMAGE_MASK, 100, 10, MATCHED, 1, true},
        {SIGLIP, 4097, 16, CT_SAME_IMAGE_NEGATIVE, 10, 0, MATCHED, 1, true},
    };
    for (size_t i = 0; i < LENGTH(shapes); i++) check_shape(*state, &shapes[i], test_seed() + i);
}

/* Equal similarities; exponents 200 apart; nothing left to learn. */
static void test_adversarial(void **state)
{
    static const batch_filling fillings[] = {EQUAL, IDENTICAL, OPPOSITE};
    for (size_t f = 0; f < LENGTH(fillings); f++)
        for (int mode = 0; mode < 3; mode++)
            for (int kind = CLIP; kind <= SIGLIP; kind++)
                check_shape(*state,
                            &(shape){.kind = (loss_kind)kind,
                                     .count = 1030,
                                     .width = 16,
                                     .same_image = (ct_same_image)mode,
                                     .factor = 100,
                                     .filling = fillings[f]},
                            test_seed() + f);
}

/* Sizes, factors, smoothing and ranks drawn at random. */
static void test_random(void **state)
{
    enum { BATCHES = 60 };
    const ct_rng_key key = ct_rng_make(test_seed(), CT_RNG_TEST, 2000, 0);
    for (uint64_t i = 0; i < BATCHES; i++) {
        const uint64_t at = i * 8;
        const int64_t count = 1 + (int64_t)ct_rng_below(key, at, i % 10 ? 200 : 1200);
        const int ranks = 1 + (int)ct_rng_below(key, at + 1, 5);
        const bool clip = ct_rng_below(key, at + 2, 3) > 0;
        check_shape(*state,
                    &(shape){.kind = clip ? CLIP : SIGLIP,
                             .count = count,
                             .width = 1 + (int64_t)ct_rng_below(key, at + 3, 300),
                             .same_image = (ct_same_image)ct_rng_below(key, at + 4, 3),
                             .factor = 1 + ct_rng_below(key, at + 5, 100),
                             .percent = clip ? (int)ct_rng_below(key, at + 6, 2) * 15 : 0,
                             .ranks = ranks < count ? ranks : (int)count},
                    test_seed() + i);
    }
}

int run_shape_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_adversarial),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests_name("loss, sizes", tests, create_device, destroy_device);
}
