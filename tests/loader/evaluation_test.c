/* Evaluation: each photo once, in order. */
#include "support.h"

#include <stdlib.h>

#include "image/image.h"

static void check_image(const world *w, ct_decoder *decoder, const ct_batch *batch, int32_t n)
{
    uint8_t expected[IMAGE_BYTES];
    char path[256];
    snprintf(path, sizeof path, "%s/%s", IMAGES_FOLDER, w->photos[batch->photos[n]].name);
    assert_ok(ct_image_load_eval(decoder, path, &w->config, expected));
    assert_memory_equal(batch->images + (size_t)n * IMAGE_BYTES, expected, IMAGE_BYTES);
}

/* Goes through an evaluation: the photos that come are those that `left_out` does not name. */
static void check_all(world *w, int64_t workers, int64_t prefetch, const bool left_out[PHOTOS])
{
    int32_t next = 0, bad = 0, batches = 0;
    ct_decoder *decoder;
    const ct_batch *batch;
    assert_ok(ct_decoder_create(&decoder));
    ct_loader *loader = start_evaluation(w, workers, prefetch);
    for (;; batches++) {
        assert_ok(ct_loader_next(loader, &batch));
        if (!batch) break;
        assert_in_range(batch->count, 1, BATCH);
        for (int32_t n = 0; n < batch->count; n++, next++) {
            for (; next < PHOTOS && left_out[next]; next++) bad++;
            assert_int_equal(batch->photos[n], next);
            assert_int_equal(batch->step, next / BATCH);
            check_image(w, decoder, batch, n);
        }
    }
    for (; next < PHOTOS; next++, bad++) assert_true(left_out[next]);
    assert_ok(ct_loader_next(loader, &batch)); /* and it stays at its end */
    assert_null(batch);
    ct_loader_stats stats = ct_loader_get_stats(loader);
    assert_int_equal(stats.bad_photos, bad);
    assert_int_equal(stats.steps_per_epoch, (PHOTOS + BATCH - 1) / BATCH);
    ct_loader_destroy(loader);
    ct_decoder_destroy(decoder);
}

static void photos_come_once_and_in_order(void **state)
{
    static const bool none[PHOTOS];
    world w;
    (void)state;
    world_init(&w);
    check_all(&w, 1, 2, none);
    check_all(&w, 4, 3, none);
    check_all(&w, 2, 16, none); /* a ring longer than the evaluation */
}

static void unreadable_photos_are_left_out(void **state)
{
    bool left_out[PHOTOS] = {false};
    world w;
    (void)state;
    world_init(&w);
    left_out[0] = left_out[5] = left_out[6] = left_out[15] = left_out[PHOTOS - 1] = true;
    for (int32_t p = 16; p < 24; p++) left_out[p] = true; /* a whole batch */
    for (int32_t p = 0; p < PHOTOS; p++)
        if (left_out[p]) world_break(&w, p, p & 1 ? "truncated.jpg" : "missing.jpg");
    const capture kept = capture_begin();
    check_all(&w, 1, 2, left_out);
    check_all(&w, 3, 4, left_out);
    free(capture_end(&kept));
}

static void no_photos_make_no_batches(void **state)
{
    world w;
    ct_loader *loader;
    const ct_batch *batch;
    (void)state;
    world_init(&w);
    w.config.data.prefetch = 2;
    assert_ok(ct_loader_create_evaluation(&w.config, &w.dataset, w.all, 0, BATCH, &loader));
    assert_ok(ct_loader_next(loader, &batch));
    assert_null(batch);
    ct_loader_destroy(loader);
}

int run_evaluation_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(photos_come_once_and_in_order),
        cmocka_unit_test(unreadable_photos_are_left_out),
        cmocka_unit_test(no_photos_make_no_batches),
    };
    return cmocka_run_group_tests_name("evaluation", tests, NULL, NULL);
}
