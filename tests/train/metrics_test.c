#include "train/metrics.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/log.h"
#include "base/rng.h"
#include "train/support.h"
#include "train/tests.h"

#define SEED 77

static double draw(uint64_t step, uint64_t index)
{
    return 40 * ct_rng_normal(ct_rng_make(SEED, CT_RNG_TEST, step, 0), index);
}

static ct_step_record step_record(int64_t step)
{
    uint64_t s = (uint64_t)step;
    return (ct_step_record){.step = step,
                            .epoch = step / 4,
                            .loss = (float)draw(s, 0),
                            .logit_scale = (float)draw(s, 1),
                            .lr_factor = draw(s, 2),
                            .grad_norm = draw(s, 3) * 1e-9,
                            .photos_per_second = draw(s, 4) * 1e20,
                            .data_wait_share = 0.1};
}

static ct_validation_record validation_record(int64_t step)
{
    uint64_t s = (uint64_t)step;
    return (ct_validation_record){
        .step = step,
        .epoch = step / 4,
        .image_to_text = {draw(s, 5), draw(s, 6), draw(s, 7), 12.5, 100.0 / 3},
        .text_to_image = {draw(s, 8), draw(s, 9), draw(s, 10), 1, 1e3},
        .photos = 1000,
        .captions = 5000};
}

static void assert_same_step(const ct_step_record *a, const ct_step_record *b)
{
    assert_int_equal(a->step, b->step);
    assert_int_equal(a->epoch, b->epoch);
    assert_true((float)a->loss == (float)b->loss && (float)a->logit_scale == (float)b->logit_scale);
    assert_true(a->lr_factor == b->lr_factor && a->grad_norm == b->grad_norm);
    assert_true(a->photos_per_second == b->photos_per_second);
    assert_true(a->data_wait_share == b->data_wait_share);
}

/* Steps first .. last, a validation after every fourth. */
static void write_steps(ct_metrics *metrics, int64_t first, int64_t last)
{
    for (int64_t step = first; step <= last; step++) {
        ct_step_record record = step_record(step);
        assert_ok(ct_metrics_step(metrics, &record));
        if (step % 4) continue;
        ct_validation_record validation = validation_record(step);
        assert_ok(ct_metrics_validation(metrics, &validation));
    }
}

static void write_file(const char *path, int64_t last)
{
    ct_metrics *metrics;
    assert_ok(ct_metrics_open(path, -1, &metrics));
    write_steps(metrics, 1, last);
    ct_metrics_close(metrics);
}

static void check_memory(const ct_metrics *metrics, int64_t last)
{
    const ct_step_record *steps;
    const ct_validation_record *validations;
    assert_int_equal(ct_metrics_steps(metrics, &steps), last);
    assert_int_equal(ct_metrics_validations(metrics, &validations), last / 4);
    for (int64_t i = 0; i < last; i++) {
        ct_step_record expected = step_record(i + 1);
        assert_same_step(&steps[i], &expected);
    }
    for (int64_t i = 0; i < last / 4; i++) {
        ct_validation_record expected = validation_record(4 * (i + 1));
        assert_memory_equal(&validations[i].image_to_text, &expected.image_to_text,
                            sizeof(ct_recall));
        assert_memory_equal(&validations[i].text_to_image, &expected.text_to_image,
                            sizeof(ct_recall));
        assert_int_equal(validations[i].photos, 1000);
        assert_int_equal(validations[i].captions, 5000);
    }
}

static void assert_file_is(const char *path, const char *expected)
{
    char *text = read_text(path, NULL);
    assert_string_equal(text, expected);
    free(text);
}

static void test_exact_lines(void **state)
{
    const char *path = in_folder(*state, "metrics.jsonl");
    ct_metrics *metrics;
    ct_step_record step = {
        12, 0, 1.8323450088500977, 14.285714149475098, 0.024, NAN, INFINITY, 0, 0, 0, 0};
    ct_step_record shared = {13, 0, 1.5, 14, 1, 2, 400, 0, 4, 0.25, 1000};
    ct_validation_record validation = {
        560, 1, {41.2, 70, 80.5, 2, 10.25}, {30.1, 59, 70, 3.5, 1.0 / 3}, 1000, 5000};
    assert_ok(ct_metrics_open(path, -1, &metrics));
    assert_ok(ct_metrics_step(metrics, &step));
    assert_ok(ct_metrics_step(metrics, &shared));
    assert_ok(ct_metrics_validation(metrics, &validation));
    static const char expected[] =
        "{\"event\":\"train\",\"step\":12,\"epoch\":0,\"loss\":1.83234501,"
        "\"logit_scale\":14.2857141,\"lr_factor\":0.024,\"grad_norm\":null,"
        "\"photos_per_second\":null,\"data_wait_share\":0}\n"
        "{\"event\":\"train\",\"step\":13,\"epoch\":0,\"loss\":1.5,"
        "\"logit_scale\":14,\"lr_factor\":1,\"grad_norm\":2,"
        "\"photos_per_second\":400,\"data_wait_share\":0,\"ranks\":4,"
        "\"photos_per_second_per_rank\":100,\"comm_exposed_share\":0.25,"
        "\"reduced_bytes\":1000}\n"
        "{\"event\":\"validation\",\"step\":560,\"epoch\":1,\"image_to_text\":"
        "{\"r1\":41.2,\"r5\":70,\"r10\":80.5,\"median_rank\":2,\"mean_rank\":10.25},"
        "\"text_to_image\":{\"r1\":30.1,\"r5\":59,\"r10\":70,\"median_rank\":3.5,"
        "\"mean_rank\":0.33333333333333331},\"photos\":1000,\"captions\":5000}\n";
    assert_file_is(path, expected); /* flushed before it is closed */
    ct_metrics_close(metrics);

    const ct_step_record *steps;
    assert_ok(ct_metrics_open(path, 560, &metrics));
    assert_file_is(path, expected);
    assert_int_equal(ct_metrics_steps(metrics, &steps), 2);
    assert_true(isnan(steps[0].grad_norm) && isnan(steps[0].photos_per_second));
    ct_metrics_close(metrics);
}

/* Whatever step a run is resumed from, its file ends as that of an unbroken run. */
static void test_resume(void **state)
{
    char path[4096];
    snprintf(path, sizeof path, "%s", in_folder(*state, "metrics.jsonl"));
    print_message("seed %d\n", SEED);
    write_file(path, 12);
    char *whole = read_text(path, NULL);
    for (int64_t keep = 0; keep <= 13; keep++) {
        ct_metrics *metrics;
        int64_t kept = keep < 12 ? keep : 12;
        assert_ok(ct_metrics_open(path, keep, &metrics));
        check_memory(metrics, kept);
        write_steps(metrics, kept + 1, 12);
        check_memory(metrics, 12);
        ct_metrics_close(metrics);
        assert_file_is(path, whole);
    }
    free(whole);
}

/* A crash may cut the file anywhere: whole lines stay, the piece goes. */
static void test_cut_line(void **state)
{
    char path[4096];
    snprintf(path, sizeof path, "%s", in_folder(*state, "metrics.jsonl"));
    write_file(path, 5);
    size_t size;
    char *whole = read_text(path, &size);
    ct_log_set_level(CT_LOG_ERROR); /* it warns of each piece */
    for (size_t cut = 0; cut < size; cut += cut + 60 < size ? 23 : 1) {
        ct_metrics *metrics;
        write_bytes(path, whole, cut);
        assert_ok(ct_metrics_open(path, 100, &metrics));
        ct_metrics_close(metrics);
        /* Only the line's end may be lacking from a line that counts. */
        size_t expected = whole[cut] == '\n' ? cut + 1 : cut;
        while (expected > 0 && whole[expected - 1] != '\n') expected--;
        size_t kept;
        char *text = read_text(path, &kept);
        assert_int_equal(kept, expected);
        assert_memory_equal(text, whole, kept);
        free(text);
    }
    ct_log_set_level(CT_LOG_INFO);
    free(whole);
}

static void test_damaged_lines(void **state)
{
    char path[4096];
    snprintf(path, sizeof path, "%s", in_folder(*state, "metrics.jsonl"));
    static const char damaged[] =
        "{\"event\":\"train\",\"step\":1,\"epoch\":0,\"loss\":2}\n"
        "{\"event\":\"train\",\"step\":2,\"epo\0\0\0\0\n" /* a hole after a power failure */
        "\n"
        "{\"event\":\"train\",\"step\":\"2\"}\n"
        "{\"event\":\"train\",\"step\":-1}\n"
        "{\"event\":\"train\",\"step\":2} {\"step\":3}\n"
        "[1,2]\n"
        "{\"event\":\"train\",\"step\":2}\0\0\n"
        "{\"event\":\"note\",\"step\":2,\"text\":\"kept as it is\"}\n"
        "{\"event\":\"validation\",\"step\":2,\"photos\":1e300}\n";
    write_bytes(path, damaged, sizeof damaged - 1);
    ct_metrics *metrics;
    const ct_step_record *steps;
    const ct_validation_record *validations;
    ct_log_set_level(CT_LOG_ERROR); /* it warns of each */
    assert_ok(ct_metrics_open(path, 2, &metrics));
    ct_log_set_level(CT_LOG_INFO);
    assert_file_is(path, "{\"event\":\"train\",\"step\":1,\"epoch\":0,\"loss\":2}\n"
                         "{\"event\":\"note\",\"step\":2,\"text\":\"kept as it is\"}\n"
                         "{\"event\":\"validation\",\"step\":2,\"photos\":1e300}\n");
    assert_int_equal(ct_metrics_steps(metrics, &steps), 1);
    assert_true(steps[0].loss == 2 && isnan(steps[0].logit_scale));
    assert_int_equal(ct_metrics_validations(metrics, &validations), 1);
    assert_int_equal(validations[0].photos, -1);
    assert_true(isnan(validations[0].image_to_text.r1));
    ct_metrics_close(metrics);
}

static void test_new_run_empties(void **state)
{
    char path[4096];
    snprintf(path, sizeof path, "%s", in_folder(*state, "metrics.jsonl"));
    write_file(path, 3);
    write_file(path, 0);
    assert_file_is(path, "");
    ct_metrics *metrics;
    assert_ok(ct_metrics_open(in_folder(*state, "absent.jsonl"), 5, &metrics));
    check_memory(metrics, 0);
    ct_metrics_close(metrics);
}

static void test_no_folder(void **state)
{
    ct_metrics *metrics;
    assert_fails(ct_metrics_open(in_folder(*state, "absent/metrics.jsonl"), -1, &metrics),
                 CT_ERR_IO, "absent/metrics.jsonl");
    assert_null(metrics);
    ct_metrics_close(NULL);
}

/* The file of a process whose locale writes 1,5 is the same. */
static void test_locale(void **state)
{
    static const char *const names[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "ru_RU.UTF-8", "nl_NL.UTF-8"};
    size_t found = 0;
    while (found < 4 && !setlocale(LC_NUMERIC, names[found])) found++;
    if (found == 4) skip(); /* none is installed */
    char path[4096];
    snprintf(path, sizeof path, "%s", in_folder(*state, "metrics.jsonl"));
    write_file(path, 4);
    char *text = read_text(path, NULL);
    ct_metrics *metrics;
    assert_ok(ct_metrics_open(path, 4, &metrics));
    check_memory(metrics, 4);
    ct_metrics_close(metrics);
    char number[8];
    snprintf(number, sizeof number, "%.1f", 1.5);
    assert_string_equal(number, "1,5"); /* the process's locale is as it was */
    setlocale(LC_NUMERIC, "C");
    write_file(path, 4);
    assert_file_is(path, text);
    free(text);
}

int run_metrics_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_exact_lines, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_resume, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_cut_line, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_damaged_lines, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_new_run_empties, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_no_folder, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_locale, folder_setup, folder_teardown),
    };
    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
