/* What training batches hold. */
#include "support.h"

#include <stdlib.h>

#include "image/image.h"

enum { STEPS = 13 }; /* into the third epoch of five steps */

static void digests(world *w, int64_t workers, int64_t prefetch, int64_t first, uint64_t *out)
{
    ct_loader *loader = start_training(w, workers, prefetch, first);
    for (int64_t step = first; step < STEPS; step++) out[step] = digest(next_batch(loader));
    ct_loader_destroy(loader);
}

static void contents_do_not_depend_on_workers_or_prefetch(void **state)
{
    static const int64_t setups[][2] = {{1, 3}, {2, 2}, {5, 4}, {9, 16}};
    world w;
    uint64_t expected[STEPS], found[STEPS];
    (void)state;
    world_init(&w);
    digests(&w, 1, 2, 0, expected);
    for (int step = 1; step < STEPS; step++)
        assert_int_not_equal(expected[step], expected[step - 1]);
    for (size_t i = 0; i < sizeof setups / sizeof *setups; i++) {
        digests(&w, setups[i][0], setups[i][1], 0, found);
        assert_memory_equal(found, expected, sizeof found);
    }
}

static void resuming_gives_the_same_batches(void **state)
{
    static const int64_t firsts[] = {1, 4, 5, 12};
    world w;
    uint64_t expected[STEPS], found[STEPS];
    (void)state;
    world_init(&w);
    digests(&w, 3, 4, 0, expected);
    for (size_t i = 0; i < sizeof firsts / sizeof *firsts; i++) {
        int64_t first = firsts[i];
        digests(&w, 2, 3, first, found);
        assert_memory_equal(found + first, expected + first,
                            (size_t)(STEPS - first) * sizeof *found);
    }
}

static void seeds_differ(void **state)
{
    world w;
    uint64_t one[STEPS], other[STEPS];
    (void)state;
    world_init(&w);
    digests(&w, 2, 2, 0, one);
    w.config.seed++;
    digests(&w, 2, 2, 0, other);
    for (int step = 0; step < STEPS; step++) assert_int_not_equal(one[step], other[step]);
}

static void check_tokens(const world *w, const ct_batch *batch)
{
    int32_t longest = 0;
    assert_int_equal(batch->cu_seqlens[0], 0);
    assert_int_equal(batch->cu_seqlens[batch->count], batch->total_tokens);
    for (int32_t n = 0; n < batch->count; n++) {
        int32_t caption = batch->captions[n], begin = batch->cu_seqlens[n];
        int32_t length = batch->cu_seqlens[n + 1] - begin;
        assert_int_equal(w->captions[caption].photo, batch->photos[n]);
        assert_int_equal(length, w->offset[caption + 1] - w->offset[caption]);
        for (int32_t i = 0; i < length; i++) {
            assert_int_equal(batch->tokens[begin + i], caption * 100 + i);
            assert_int_equal(batch->positions[begin + i], i);
        }
        if (length > longest) longest = length;
    }
    assert_int_equal(batch->max_seqlen, longest);
}

static void check_images(const world *w, ct_decoder *decoder, const ct_batch *batch)
{
    uint8_t expected[IMAGE_BYTES];
    char path[256];
    for (int32_t n = 0; n < batch->count; n++) {
        int32_t photo = batch->photos[n];
        ct_rng_key key = ct_rng_make((uint64_t)w->config.seed, CT_RNG_AUGMENT,
                                     (uint64_t)batch->epoch, (uint64_t)photo);
        snprintf(path, sizeof path, "%s/%s", IMAGES_FOLDER, w->photos[photo].name);
        assert_ok(ct_image_load_training(decoder, path, &w->config, key, expected));
        assert_memory_equal(batch->images + (size_t)n * IMAGE_BYTES, expected, IMAGE_BYTES);
    }
}

static void batches_hold_photos_and_packed_captions(void **state)
{
    world w;
    ct_decoder *decoder;
    (void)state;
    world_init(&w);
    assert_ok(ct_decoder_create(&decoder));
    ct_loader *loader = start_training(&w, 2, 3, 3);
    for (int64_t step = 3; step < STEPS; step++) {
        const ct_batch *batch = next_batch(loader);
        assert_int_equal(batch->step, step);
        assert_int_equal(batch->epoch, step / (PHOTOS / BATCH));
        assert_int_equal(batch->count, BATCH);
        check_tokens(&w, batch);
        check_images(&w, decoder, batch);
    }
    ct_loader_stats stats = ct_loader_get_stats(loader);
    assert_int_equal(stats.steps_per_epoch, PHOTOS / BATCH);
    assert_int_equal(stats.bad_photos, 0);
    ct_loader_destroy(loader);
    ct_decoder_destroy(decoder);
}

/* A part's photos, captions, pixels and tokens are those of the whole batch's slots. */
static void check_part(const ct_batch *whole, const ct_batch *part, int32_t first, size_t pixels)
{
    for (int32_t i = 0; i < part->count; i++) {
        const int32_t *ends = part->cu_seqlens + i, *whole_ends = whole->cu_seqlens + first + i;
        assert_int_equal(part->photos[i], whole->photos[first + i]);
        assert_int_equal(part->captions[i], whole->captions[first + i]);
        assert_memory_equal(part->images + (size_t)i * pixels,
                            whole->images + (size_t)(first + i) * pixels, pixels);
        assert_int_equal(ends[1] - ends[0], whole_ends[1] - whole_ends[0]);
        assert_memory_equal(part->tokens + ends[0], whole->tokens + whole_ends[0],
                            (size_t)(ends[1] - ends[0]) * sizeof *part->tokens);
    }
}

/* Also where a photo cannot be read: its substitute does not depend on the ranks either. */
static void ranks_share_the_batches(void **state)
{
    static const int ranks[] = {1, 2, BATCH};
    world w;
    (void)state;
    world_init(&w);
    w.config.data.max_bad_share = 1;
    world_break(&w, 3, "missing.jpg");
    const capture kept = capture_begin();
    const size_t pixels = (size_t)(w.config.image.size * w.config.image.size) * 3;
    for (size_t k = 0; k < sizeof ranks / sizeof *ranks; k++)
        for (int r = 0; r < ranks[k]; r++) {
            ct_loader *one = start_training(&w, 2, 3, 1);
            ct_loader *part = start_share(&w, 1 + r, 1, (ct_loader_share){r, ranks[k]});
            for (int step = 1; step < STEPS; step++) {
                const ct_batch *batch = next_batch(part);
                assert_int_equal(batch->count, BATCH / ranks[k]);
                check_part(next_batch(one), batch, r * BATCH / ranks[k], pixels);
            }
            ct_loader_destroy(part);
            ct_loader_destroy(one);
        }
    free(capture_end(&kept));
}

static void too_few_photos_are_refused(void **state)
{
    world w;
    ct_loader *loader = NULL;
    (void)state;
    world_init(&w);
    w.config.data.prefetch = 2;
    assert_int_not_equal(ct_loader_create_training(&w.config, &w.dataset, &w.store, w.all,
                                                   BATCH - 1, 0, (ct_loader_share){0, 1}, &loader),
                         CT_OK);
    assert_null(loader);
}

int run_training_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contents_do_not_depend_on_workers_or_prefetch),
        cmocka_unit_test(resuming_gives_the_same_batches),
        cmocka_unit_test(seeds_differ),
        cmocka_unit_test(batches_hold_photos_and_packed_captions),
        cmocka_unit_test(ranks_share_the_batches),
        cmocka_unit_test(too_few_photos_are_refused),
    };
    return cmocka_run_group_tests_name("training", tests, NULL, NULL);
}
