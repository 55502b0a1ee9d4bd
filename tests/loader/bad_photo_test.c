/* Training with photos that cannot be read. */
#include "support.h"

#include <stdlib.h>
#include <string.h>

enum { STEPS = 15 };

static void break_some(world *w)
{
    world_break(w, 3, "missing.jpg");
    world_break(w, 4, "truncated.jpg");
    world_break(w, 20, "png.jpg");
    world_break(w, 42, "empty.jpg");
}

static bool is_broken(int32_t photo)
{
    return photo == 3 || photo == 4 || photo == 20 || photo == 42;
}

static int count_of(const char *text, const char *word)
{
    int count = 0;
    for (; (text = strstr(text, word)); text += strlen(word)) count++;
    return count;
}

static void digests(world *w, int64_t workers, int64_t prefetch, int64_t first, uint64_t *out)
{
    ct_loader *loader = start_training(w, workers, prefetch, first);
    for (int64_t step = first; step < STEPS; step++) {
        const ct_batch *batch = next_batch(loader);
        for (int32_t n = 0; n < batch->count; n++) {
            assert_false(is_broken(batch->photos[n]));
            assert_int_equal(w->captions[batch->captions[n]].photo, batch->photos[n]);
        }
        out[step] = digest(batch);
    }
    ct_loader_destroy(loader);
}

static void substitutes_depend_on_the_step_alone(void **state)
{
    world w;
    uint64_t expected[STEPS], found[STEPS];
    (void)state;
    world_init(&w);
    break_some(&w);
    const capture kept = capture_begin();
    digests(&w, 1, 2, 0, expected);
    digests(&w, 4, 5, 0, found);
    assert_memory_equal(found, expected, sizeof found);
    digests(&w, 3, 2, 7, found);
    assert_memory_equal(found + 7, expected + 7, (STEPS - 7) * sizeof *found);
    free(capture_end(&kept));
}

static void each_is_reported_once(void **state)
{
    world w;
    (void)state;
    world_init(&w);
    break_some(&w);
    const capture kept = capture_begin();
    ct_loader *loader = start_training(&w, 3, 3, 0);
    for (int step = 0; step < 60; step++) next_batch(loader);
    ct_loader_stats stats = ct_loader_get_stats(loader);
    ct_loader_destroy(loader);
    char *text = capture_end(&kept);
    assert_int_equal(stats.bad_photos, 4);
    assert_int_equal(count_of(text, "warning: "), 4);
    assert_int_equal(count_of(text, IMAGES_FOLDER "/missing.jpg: cannot open"), 1);
    assert_int_equal(count_of(text, IMAGES_FOLDER "/truncated.jpg: Premature end"), 1);
    assert_int_equal(count_of(text, IMAGES_FOLDER "/empty.jpg: empty file"), 1);
    free(text);
}

/* Steps until the loader fails; its message stays. */
static ct_status run_into_failure(world *w, int64_t workers)
{
    const ct_batch *batch;
    ct_status status = CT_OK;
    const capture kept = capture_begin();
    ct_loader *loader = start_training(w, workers, 2, 0);
    for (int step = 0; step < 100 && status == CT_OK; step++)
        status = ct_loader_next(loader, &batch);
    assert_null(batch);
    assert_int_equal(ct_loader_next(loader, &batch), status); /* and again */
    ct_loader_destroy(loader);
    free(capture_end(&kept));
    return status;
}

static void too_many_end_the_training(void **state)
{
    world w;
    (void)state;
    world_init(&w);
    for (int32_t p = 0; p < 12; p++) world_break(&w, p, "truncated.jpg");
    for (int64_t workers = 1; workers <= 3; workers++) {
        assert_int_equal(run_into_failure(&w, workers), CT_ERR_FORMAT);
        assert_non_null(strstr(ct_error_message(), "9 of 43 photos could not be read"));
        assert_non_null(strstr(ct_error_message(), "data.max_bad_share = 0.2"));
        assert_non_null(strstr(ct_error_message(), "truncated.jpg: Premature end"));
    }
}

static void a_share_of_zero_allows_none(void **state)
{
    world w;
    (void)state;
    world_init(&w);
    w.config.data.max_bad_share = 0.0;
    world_break(&w, 7, "missing.jpg");
    assert_fails(run_into_failure(&w, 2), CT_ERR_FORMAT, "1 of 43 photos");
}

static void no_readable_photo_at_all_is_an_error(void **state)
{
    world w;
    (void)state;
    world_init(&w);
    w.config.data.max_bad_share = 1.0;
    for (int32_t p = 0; p < PHOTOS; p++) world_break(&w, p, "missing.jpg");
    assert_fails(run_into_failure(&w, 2), CT_ERR_FORMAT, "none of 43 photos could be read");
}

int run_bad_photo_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(substitutes_depend_on_the_step_alone),
        cmocka_unit_test(each_is_reported_once),
        cmocka_unit_test(too_many_end_the_training),
        cmocka_unit_test(a_share_of_zero_allows_none),
        cmocka_unit_test(no_readable_photo_at_all_is_an_error),
    };
    return cmocka_run_group_tests_name("bad photos", tests, NULL, NULL);
}
