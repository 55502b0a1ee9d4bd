/* Splits by seed and by lists, through ct_dataset_open. */
#include <stdlib.h>
#include <string.h>

#include "support.h"

typedef struct fixture {
    char *folder;
    ct_config *config;
} fixture;

/* A captions file of `photos` photos "p0".. with two captions each. */
static fixture make_fixture(int photos)
{
    fixture f = {.folder = folder_create()};
    char *text, assignment[8200];
    size_t size;
    FILE *stream = open_memstream(&text, &size);
    assert_non_null(stream);
    fputs("image,caption\n", stream);
    for (int p = 0; p < photos; p++) fprintf(stream, "p%d,first\np%d,second\n", p, p);
    fclose(stream);
    const char *path = in_folder(f.folder, "captions.txt");
    write_bytes(path, text, size);
    free(text);
    assert_ok(ct_config_create(&f.config));
    snprintf(assignment, sizeof assignment, "data.captions=%s", path);
    assert_ok(ct_config_override(f.config, assignment));
    assert_ok(ct_config_override(f.config, "data.images=photos"));
    return f;
}

static void drop_fixture(fixture *f)
{
    ct_config_destroy(f->config);
    folder_remove(f->folder);
}

static int32_t size_of(const ct_dataset *dataset, ct_split split)
{
    int32_t *photos, count;
    assert_ok(ct_dataset_photos(dataset, split, &photos, &count));
    for (int32_t i = 0; i < count; i++) {
        assert_int_equal(dataset->photos[photos[i]].split, split);
        if (i) assert_true(photos[i - 1] < photos[i]);
    }
    free(photos);
    return count;
}

static void assert_sizes(fixture *f, const char *validation, const char *test,
                         int32_t expected_train, int32_t expected_validation, int32_t expected_test)
{
    char assignment[64];
    ct_dataset *dataset;
    snprintf(assignment, sizeof assignment, "data.validation=%s", validation);
    assert_ok(ct_config_override(f->config, assignment));
    snprintf(assignment, sizeof assignment, "data.test=%s", test);
    assert_ok(ct_config_override(f->config, assignment));
    assert_ok(ct_dataset_open(f->config, &dataset));
    assert_int_equal(size_of(dataset, CT_SPLIT_TRAIN), expected_train);
    assert_int_equal(size_of(dataset, CT_SPLIT_VALIDATION), expected_validation);
    assert_int_equal(size_of(dataset, CT_SPLIT_TEST), expected_test);
    assert_int_equal(size_of(dataset, CT_SPLIT_NONE), 0);
    assert_string_equal(dataset->images, "photos");
    ct_dataset_destroy(dataset);
}

static void sizes(void **state)
{
    (void)state;
    fixture f = make_fixture(50);
    assert_sizes(&f, "0.1", "0.2", 35, 5, 10);
    assert_sizes(&f, "7", "0", 43, 7, 0);
    assert_sizes(&f, "0", "0", 50, 0, 0);
    assert_sizes(&f, "0.001", "1", 48, 1, 1);  /* a share is at least one photo */
    assert_sizes(&f, "0.03", "24", 24, 2, 24); /* 1.5 rounds up */
    assert_sizes(&f, "25", "24", 1, 25, 24);
    ct_dataset *dataset;
    assert_ok(ct_config_override(f.config, "data.test=25"));
    assert_int_equal(ct_dataset_open(f.config, &dataset), CT_ERR_CONFIG);
    assert_string_equal(ct_error_message(), "data.validation and data.test: 25 and 25 of 50 photos "
                                            "leave nothing to train on");
    drop_fixture(&f);
}

/* Splits of photos as letters: t, v, e (test), - (none). */
static void letters(const ct_dataset *dataset, char *out)
{
    for (int32_t p = 0; p < dataset->photo_count; p++) out[p] = "tve-"[dataset->photos[p].split];
    out[dataset->photo_count] = '\0';
}

static void by_seed(void **state)
{
    (void)state;
    fixture f = make_fixture(24);
    char first[32], second[32];
    static const char *const seeds[] = {"data.split_seed=0", "data.split_seed=0",
                                        "data.split_seed=1"};
    for (int i = 0; i < 3; i++) {
        ct_dataset *dataset;
        assert_ok(ct_config_override(f.config, seeds[i]));
        assert_ok(ct_config_override(f.config, i == 1 ? "seed=9" : "seed=0"));
        assert_ok(ct_config_override(f.config, "data.validation=4"));
        assert_ok(ct_config_override(f.config, "data.test=4"));
        assert_ok(ct_dataset_open(f.config, &dataset));
        letters(dataset, i == 0 ? first : second);
        if (i == 1) assert_string_equal(second, first); /* `seed` has no part in it */
        if (i == 2) assert_string_not_equal(second, first);
        ct_dataset_destroy(dataset);
    }
    /* Known sequence: a change here changes every user's split. */
    assert_string_equal(first, "etttteettettttttvtvttvvt");
    drop_fixture(&f);
}

/* Sets the three lists ("" for none) and opens. */
static ct_status open_with_lists(fixture *f, const char *train, const char *validation,
                                 const char *test, ct_dataset **out)
{
    static const char *const keys[] = {"train_list", "validation_list", "test_list"};
    const char *const texts[] = {train, validation, test};
    for (int i = 0; i < 3; i++) {
        const char *path = *texts[i] ? in_folder(f->folder, keys[i]) : "";
        char assignment[8200];
        if (*texts[i]) write_bytes(path, texts[i], strlen(texts[i]));
        snprintf(assignment, sizeof assignment, "data.%s=%s", keys[i], path);
        assert_ok(ct_config_override(f->config, assignment));
    }
    return ct_dataset_open(f->config, out);
}

static void by_lists(void **state)
{
    (void)state;
    fixture f = make_fixture(8);
    ct_dataset *dataset;
    char found[16];
    assert_ok(
        open_with_lists(&f, "\xEF\xBB\xBFp1\r\np3\r\n\r\np0\r\n", "p7 ", "p2\np2\n", &dataset));
    letters(dataset, found);
    assert_string_equal(found, "ttet---v");
    ct_dataset_destroy(dataset);
    assert_ok(open_with_lists(&f, "p1\n", "", "", &dataset));
    assert_int_equal(size_of(dataset, CT_SPLIT_NONE), 7);
    ct_dataset_destroy(dataset);
    drop_fixture(&f);
}

static void assert_lists_fail(fixture *f, const char *train, const char *test, const char *ending)
{
    ct_dataset *dataset;
    assert_fails_ending(open_with_lists(f, train, "", test, &dataset), CT_ERR_FORMAT, ending);
}

static void wrong_lists(void **state)
{
    (void)state;
    fixture f = make_fixture(8);
    assert_lists_fail(&f, "p1\np99\n", "", "/train_list:2: the photo \"p99\" has no captions");
    assert_lists_fail(&f, "p1\np2\n", "p3\n\np2\n",
                      "/test_list:3: the photo \"p2\" is in the train list too");
    assert_lists_fail(&f, "\n \n", "p1\n",
                      "/train_list: expected names of photos, one a line, found none");
    assert_lists_fail(&f, "p1\n\xFF\n", "", "/train_list: expected UTF-8 text");
    ct_dataset *dataset;
    assert_ok(ct_config_override(f.config, "data.train_list=tests/data/none.txt"));
    assert_int_equal(ct_dataset_open(f.config, &dataset), CT_ERR_IO);
    assert_ok(ct_config_override(f.config, "data.captions=tests/data/none.txt"));
    assert_int_equal(ct_dataset_open(f.config, &dataset), CT_ERR_IO);
    drop_fixture(&f);
}

static void names(void **state)
{
    (void)state;
    assert_string_equal(ct_split_name(CT_SPLIT_TRAIN), "train");
    assert_string_equal(ct_split_name(CT_SPLIT_VALIDATION), "validation");
    assert_string_equal(ct_split_name(CT_SPLIT_TEST), "test");
}

int run_split_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),       cmocka_unit_test(by_seed), cmocka_unit_test(by_lists),
        cmocka_unit_test(wrong_lists), cmocka_unit_test(names),
    };
    return cmocka_run_group_tests_name("split", tests, NULL, NULL);
}
