/* Philox against its authors' known answers, and what is made of it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "support.h"

static void assert_block(ct_rng_key key, uint64_t index, const uint32_t expected[4])
{
    assert_memory_equal(ct_philox_block(key, index).word, expected, 16);
    for (uint64_t i = 0; i < 4 && index < UINT64_MAX / 4; i++)
        assert_int_equal(ct_rng_u32(key, 4 * index + i), expected[i]);
}

/* Random123's kat_vectors, "philox4x32 10": counter words are index (low first), then stream. */
static void known_answers(void **state)
{
    (void)state;
    assert_block((ct_rng_key){0, 0}, 0,
                 (const uint32_t[]){0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
    assert_block((ct_rng_key){UINT64_MAX, UINT64_MAX}, UINT64_MAX,
                 (const uint32_t[]){0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
    assert_block((ct_rng_key){0x299f31d0a4093822, 0x0370734413198a2e}, 0x85a308d3243f6a88,
                 (const uint32_t[]){0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

static void streams_are_told_apart(void **state)
{
    (void)state;
    assert_true(ct_rng_make(1, CT_RNG_AUGMENT, 2, 3).stream == 0x0500000200000003);
    assert_true(ct_rng_make(1, CT_RNG_AUGMENT, 0xFFFFFF, UINT32_MAX).stream == 0x05FFFFFFFFFFFFFF);
    /* An argument that is too large must not reach its neighbours. */
    assert_true(ct_rng_make(1, CT_RNG_INIT, 1 << 24, 1ull << 32).stream == 0x0100000000000000);
}

/* Chi-square of `n` draws in 256 cells has 255 degrees of freedom: mean 255, standard deviation
 * sqrt(510) = 22.6. Within six of them (the seed is fixed, so there are no wrong alarms later). */
static void assert_uniform(const uint32_t counts[256], uint32_t n)
{
    double expected = n / 256.0, chi = 0;
    for (int i = 0; i < 256; i++) chi += (counts[i] - expected) * (counts[i] - expected) / expected;
    if (fabs(chi - 255) > 6 * 22.6) fail_msg("chi-square %.1f of 255 degrees of freedom", chi);
}

static void uniform_numbers(void **state)
{
    (void)state;
    enum { N = 1 << 18 };
    const uint64_t seed = 1;
    print_message("random seed %llu\n", (unsigned long long)seed);
    static uint32_t cells[4][256];
    memset(cells, 0, sizeof cells);
    ct_rng_key key = ct_rng_make(seed, CT_RNG_TEST, 0, 0);
    for (uint64_t i = 0; i < N; i++) {
        float value = ct_rng_uniform(key, i);
        assert_true(value >= 0 && value < 1);
        cells[0][(int)(value * 256)]++;
        cells[1][ct_rng_below(key, i, 256)]++;
        cells[2][ct_rng_u32(key, i) & 255]++;
        cells[3][ct_rng_u32(ct_rng_make(seed, CT_RNG_TEST, 0, i), 0) >> 24]++; /* across streams */
    }
    for (int i = 0; i < 4; i++) assert_uniform(cells[i], N);
}

static void ends_of_ranges(void **state)
{
    (void)state;
    assert_true(ct_rng_to_unit(0) == 0.0f);
    assert_true(ct_rng_to_unit(UINT32_MAX) == 1.0f - 0x1p-24f);
    ct_rng_key key = ct_rng_make(1, CT_RNG_TEST, 0, 0);
    uint32_t seen = 0;
    for (uint64_t i = 0; i < 1000; i++) {
        assert_int_equal(ct_rng_below(key, i, 1), 0);
        uint32_t value = ct_rng_below(key, i, 3);
        assert_true(value < 3);
        seen |= 1u << value;
    }
    assert_int_equal(seen, 7);
}

/* Of n standard normal numbers: the mean has standard deviation 1/sqrt(n), the second moment
 * sqrt(2/n), the fourth sqrt(96/n). Within five. Tails: |x| < 3 for 0.9973 of them. */
static void normal_numbers(void **state)
{
    (void)state;
    enum { N = 1 << 17 };
    const uint64_t seed = 2;
    print_message("random seed %llu\n", (unsigned long long)seed);
    ct_rng_key key = ct_rng_make(seed, CT_RNG_TEST, 0, 0);
    double first = 0, second = 0, fourth = 0, inside = 0;
    for (uint64_t i = 0; i < N; i++) {
        double x = ct_rng_normal(key, i);
        assert_true(isfinite(x));
        first += x / N;
        second += x * x / N;
        fourth += x * x * x * x / N;
        inside += fabs(x) < 3;
    }
    assert_true(fabs(first) < 5 / sqrt(N));
    assert_true(fabs(second - 1) < 5 * sqrt(2.0 / N));
    assert_true(fabs(fourth - 3) < 5 * sqrt(96.0 / N));
    assert_true(fabs(inside / N - 0.9973) < 5 * sqrt(0.9973 * 0.0027 / N));
}

static void permutations(void **state)
{
    (void)state;
    int32_t order[1000], again[1000];
    bool seen[1000] = {false};
    ct_rng_permute(ct_rng_make(1, CT_RNG_TEST, 0, 0), order, 1000);
    ct_rng_permute(ct_rng_make(1, CT_RNG_TEST, 0, 0), again, 1000);
    assert_memory_equal(order, again, sizeof order);
    for (int i = 0; i < 1000; i++) {
        assert_in_range(order[i], 0, 999);
        assert_false(seen[order[i]]);
        seen[order[i]] = true;
    }
    ct_rng_permute(ct_rng_make(1, CT_RNG_TEST, 0, 1), again, 1000);
    assert_memory_not_equal(order, again, sizeof order);
    ct_rng_permute(ct_rng_make(1, CT_RNG_TEST, 0, 0), order, 0);
    ct_rng_permute(ct_rng_make(1, CT_RNG_TEST, 0, 0), order, 1);
    assert_int_equal(order[0], 0);
}

/* All 24 orders of four things equally often: n = 24000, expected 1000 each, standard deviation
 * sqrt(1000 * 23/24) = 31; within five. */
static void permutations_are_fair(void **state)
{
    (void)state;
    int counts[256] = {0}, orders = 0;
    for (uint64_t i = 0; i < 24000; i++) {
        int32_t order[4];
        ct_rng_permute(ct_rng_make(3, CT_RNG_TEST, 0, i), order, 4);
        counts[order[0] | order[1] << 2 | order[2] << 4 | order[3] << 6]++;
    }
    for (int i = 0; i < 256; i++) {
        if (!counts[i]) continue;
        orders++;
        assert_in_range(counts[i], 1000 - 155, 1000 + 155);
    }
    assert_int_equal(orders, 24);
}

int run_rng_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),         cmocka_unit_test(streams_are_told_apart),
        cmocka_unit_test(uniform_numbers),       cmocka_unit_test(ends_of_ranges),
        cmocka_unit_test(normal_numbers),        cmocka_unit_test(permutations),
        cmocka_unit_test(permutations_are_fair),
    };
    return cmocka_run_group_tests_name("rng", tests, NULL, NULL);
}
