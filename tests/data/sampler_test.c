/* The sequence of photos and captions: complete, fair, and a function of (seed, step) alone. */
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "data/sampler.h"
#include "support.h"

/* A sampler over every photo of the dataset whose index is not a multiple of `without` (0: all). */
static ct_sampler *sampler_over(const ct_dataset *dataset, int32_t without, int32_t batch,
                                uint64_t seed)
{
    int32_t *photos = calloc((size_t)dataset->photo_count, sizeof *photos), count = 0;
    assert_non_null(photos);
    for (int32_t p = 0; p < dataset->photo_count; p++)
        if (!without || p % without) photos[count++] = p;
    ct_sampler *sampler;
    assert_ok(ct_sampler_create(dataset, photos, count, batch, seed, &sampler));
    free(photos);
    return sampler;
}

static bool same(ct_sample a, ct_sample b)
{
    return a.photo == b.photo && a.caption == b.caption && a.epoch == b.epoch;
}

/* 20 of 30 photos in batches of 6: three whole batches an epoch, two photos left out. */
static void an_epoch_shows_every_photo_once(void **state)
{
    (void)state;
    ct_dataset *dataset = numbered(30, 5);
    ct_sampler *sampler = sampler_over(dataset, 3, 6, 1);
    assert_int_equal(ct_sampler_steps_per_epoch(sampler), 3);
    int left_out_ever[30] = {0};
    for (int64_t epoch = 0; epoch < 200; epoch++) {
        int shown[30] = {0};
        for (int64_t step = epoch * 3; step < epoch * 3 + 3; step++)
            for (int32_t slot = 0; slot < 6; slot++) {
                ct_sample sample = ct_sampler_get(sampler, step, slot, 0);
                assert_int_equal(sample.epoch, epoch);
                assert_int_equal(dataset->captions[sample.caption].photo, sample.photo);
                assert_true(sample.photo % 3 != 0);
                assert_int_equal(shown[sample.photo]++, 0);
            }
        for (int p = 0; p < 30; p++) left_out_ever[p] |= p % 3 && !shown[p];
    }
    for (int p = 0; p < 30; p++) assert_int_equal(left_out_ever[p], p % 3 != 0);
    ct_sampler_destroy(sampler);
    ct_dataset_destroy(dataset);
}

/* With the batch a divisor, an epoch is a permutation of the photos; epochs differ. */
static void epochs_are_different_permutations(void **state)
{
    (void)state;
    ct_dataset *dataset = numbered(24, 1);
    ct_sampler *sampler = sampler_over(dataset, 0, 8, 7);
    int32_t before[24] = {0};
    for (int64_t epoch = 0; epoch < 10; epoch++) {
        int32_t order[24];
        uint32_t seen = 0;
        for (int32_t i = 0; i < 24; i++) {
            order[i] = ct_sampler_get(sampler, epoch * 3 + i / 8, i % 8, 0).photo;
            seen |= 1u << order[i];
        }
        assert_int_equal(seen, 0xFFFFFF);
        assert_memory_not_equal(order, before, sizeof order);
        memcpy(before, order, sizeof order);
    }
    ct_sampler_destroy(sampler);
    ct_dataset_destroy(dataset);
}

/* Asked in any order, by any number of samplers, the answer is the same. */
static void any_order_gives_the_same(void **state)
{
    (void)state;
    const uint64_t seed = 3;
    print_message("random seed %llu\n", (unsigned long long)seed);
    ct_dataset *dataset = numbered(37, 5);
    ct_sampler *forward = sampler_over(dataset, 0, 5, 11);
    ct_sampler *jumping = sampler_over(dataset, 0, 5, 11);
    static ct_sample expected[100][5];
    for (int64_t step = 0; step < 100; step++)
        for (int32_t slot = 0; slot < 5; slot++)
            expected[step][slot] = ct_sampler_get(forward, step, slot, 0);
    ct_rng_key key = ct_rng_make(seed, CT_RNG_TEST, 2, 0);
    for (uint64_t i = 0; i < 2000; i += 3) {
        uint32_t step = ct_rng_below(key, i, 100), slot = ct_rng_below(key, i + 1, 5);
        if (ct_rng_below(key, i + 2, 2)) (void)ct_sampler_get(jumping, step, (int32_t)slot, 2);
        assert_true(same(ct_sampler_get(jumping, step, (int32_t)slot, 0), expected[step][slot]));
    }
    ct_sampler_destroy(forward);
    ct_sampler_destroy(jumping);
    ct_dataset_destroy(dataset);
}

static void seeds_differ(void **state)
{
    (void)state;
    ct_dataset *dataset = numbered(40, 5);
    ct_sampler *a = sampler_over(dataset, 0, 40, 1), *b = sampler_over(dataset, 0, 40, 2);
    int equal_photos = 0;
    for (int32_t slot = 0; slot < 40; slot++)
        equal_photos += ct_sampler_get(a, 0, slot, 0).photo == ct_sampler_get(b, 0, slot, 0).photo;
    assert_true(equal_photos < 10); /* one is expected; ten have a probability below 1e-6 */
    ct_sampler_destroy(a);
    ct_sampler_destroy(b);
    ct_dataset_destroy(dataset);
}

/* Counts of 4 photos' captions over 5000 epochs: binomial with n = 5000, p = 1/5, so a standard
 * deviation of 28.3; five of them are allowed (20 counts: wrong alarm 1e-5, and the seed is
 * fixed). */
static void every_caption_is_drawn_alike(void **state)
{
    (void)state;
    ct_dataset *dataset = numbered(4, 5);
    ct_sampler *sampler = sampler_over(dataset, 0, 4, 1);
    int drawn[20] = {0};
    for (int64_t step = 0; step < 5000; step++)
        for (int32_t slot = 0; slot < 4; slot++)
            drawn[ct_sampler_get(sampler, step, slot, 0).caption]++;
    for (int c = 0; c < 20; c++) assert_in_range(drawn[c], 1000 - 141, 1000 + 141);
    ct_sampler_destroy(sampler);
    ct_dataset_destroy(dataset);
}

/* For count photos in batches of `batch`: the first count - batch substitutes of a slot are all the
 * photos outside of the batch; first substitutes of different slots differ when there are enough.
 */
static void check_substitutes(int32_t count, int32_t batch)
{
    ct_dataset *dataset = numbered(count, 2);
    ct_sampler *sampler = sampler_over(dataset, 0, batch, 4);
    int32_t reserve = count - batch;
    for (int64_t step = 0; step < 2 * ct_sampler_steps_per_epoch(sampler); step++) {
        uint64_t batch_photos = 0, firsts = 0;
        for (int32_t slot = 0; slot < batch; slot++)
            batch_photos |= 1ull << ct_sampler_get(sampler, step, slot, 0).photo;
        for (int32_t slot = 0; slot < batch; slot++) {
            uint64_t substitutes = 0;
            for (int32_t attempt = 1; attempt <= reserve; attempt++) {
                ct_sample sample = ct_sampler_get(sampler, step, slot, attempt);
                assert_int_equal(dataset->captions[sample.caption].photo, sample.photo);
                substitutes |= 1ull << sample.photo;
            }
            assert_true(substitutes == (((1ull << count) - 1) & ~batch_photos));
            firsts |= 1ull << ct_sampler_get(sampler, step, slot, 1).photo;
        }
        if (reserve >= batch) assert_int_equal(__builtin_popcountll(firsts), batch);
    }
    ct_sampler_destroy(sampler);
    ct_dataset_destroy(dataset);
}

static void substitutes_come_from_outside_the_batch(void **state)
{
    (void)state;
    static const int32_t cases[][2] = {{40, 8}, {17, 8}, {16, 8}, {13, 8},
                                       {9, 8},  {12, 1}, {41, 7}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_substitutes(cases[i][0], cases[i][1]);
}

/* No photo is outside: the others of the batch, in turn. */
static void substitutes_when_the_batch_is_everything(void **state)
{
    (void)state;
    ct_dataset *dataset = numbered(6, 2);
    ct_sampler *sampler = sampler_over(dataset, 0, 6, 4);
    for (int32_t slot = 0; slot < 6; slot++) {
        uint32_t photos = 0;
        for (int32_t attempt = 0; attempt < 6; attempt++)
            photos |= 1u << ct_sampler_get(sampler, 3, slot, attempt).photo;
        assert_int_equal(photos, 63);
    }
    ct_sampler_destroy(sampler);
    ct_dataset_destroy(dataset);
}

static void too_few_photos(void **state)
{
    (void)state;
    ct_dataset *dataset = numbered(3, 1);
    const int32_t photos[] = {0, 1, 2};
    ct_sampler *sampler;
    assert_int_equal(ct_sampler_create(dataset, photos, 3, 4, 0, &sampler), CT_ERR_CONFIG);
    assert_string_equal(ct_error_message(),
                        "train.batch_size: expected at most the number of photos (3), found 4");
    ct_dataset_destroy(dataset);
}

/* Known sequence: a change here means that runs of older versions cannot be resumed exactly. */
static void known_sequence(void **state)
{
    (void)state;
    ct_dataset *dataset = numbered(10, 5);
    ct_sampler *sampler = sampler_over(dataset, 0, 4, 42);
    char found[256] = "";
    for (int64_t step = 0; step < 4; step++)
        for (int32_t slot = 0; slot < 4; slot++) {
            ct_sample sample = ct_sampler_get(sampler, step, slot, 0);
            int32_t first = dataset->photos[sample.photo].first_caption;
            sprintf(found + strlen(found), "%d.%d ", sample.photo, sample.caption - first);
        }
    sprintf(found + strlen(found), "| %d %d", ct_sampler_get(sampler, 1, 2, 1).photo,
            ct_sampler_get(sampler, 1, 2, 2).photo);
    assert_string_equal(found,
                        "8.1 5.4 4.1 6.4 1.3 3.3 7.1 2.0 8.4 1.0 2.4 9.1 7.1 6.2 0.2 3.2 | 5 4");
    ct_sampler_destroy(sampler);
    ct_dataset_destroy(dataset);
}

int run_sampler_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_epoch_shows_every_photo_once),
        cmocka_unit_test(epochs_are_different_permutations),
        cmocka_unit_test(any_order_gives_the_same),
        cmocka_unit_test(seeds_differ),
        cmocka_unit_test(every_caption_is_drawn_alike),
        cmocka_unit_test(substitutes_come_from_outside_the_batch),
        cmocka_unit_test(substitutes_when_the_batch_is_everything),
        cmocka_unit_test(too_few_photos),
        cmocka_unit_test(known_sequence),
    };
    return cmocka_run_group_tests_name("sampler", tests, NULL, NULL);
}
