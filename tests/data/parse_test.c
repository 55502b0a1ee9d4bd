/* The formats of captions files, their oddities, and what is malformed in all of them. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "support.h"

#define BARS "image_name| comment_number| comment\n"

static void flickr8k_token(void **state)
{
    (void)state;
    assert_parses("1000268201_693b08cb0e.jpg#0\tA child in a pink dress .\n"
                  "1000268201_693b08cb0e.jpg#1\tA girl going into a wooden building .\n"
                  "2258277193_586949ec62.jpg.1#0\tpeople waiting for the subway\n",
                  0,
                  "1000268201_693b08cb0e.jpg: A child in a pink dress . / A girl going into a "
                  "wooden building .; 2258277193_586949ec62.jpg.1: people waiting for the subway");
    /* A name may hold '#', a caption tabs and '#'. */
    assert_parses("a#b.jpg#12\tx #1\ty\n", 0, "a#b.jpg: x #1\ty");
    assert_parses("a#0\tx\nb\ty\nc#\ty\nd#1x\ty\n#1\ty\ne#0\t \nf#0 y\n", 6, "a: x");
}

static void flickr30k(void **state)
{
    (void)state;
    assert_parses(BARS "1000092795.jpg| 0| Two young guys with shaggy hair .\n"
                       "1000092795.jpg| 1| Two men | in green shirts .\n"
                       "2199200615.jpg| 4   A dog runs across the grass .\n"
                       "10002456.jpg|0|Several men\n",
                  1,
                  "1000092795.jpg: Two young guys with shaggy hair . / Two men | in green shirts "
                  ".; 10002456.jpg: Several men");
    assert_parses(BARS "a| 0| x\nb| | y\nc| one| y\n| 0| y\nd| 0|\ne| 0| \n", 5, "a: x");
}

static void line_ends_marks_and_blank_lines(void **state)
{
    (void)state;
    static const char *const ends[] = {"\n", "\r\n"};
    for (int i = 0; i < 2; i++) {
        char text[256];
        snprintf(text, sizeof text, "\xEF\xBB\xBFimage,caption%sa.jpg,x y%s%s  %sb.jpg, z ",
                 ends[i], ends[i], ends[i], ends[i]);
        assert_parses(text, 0, "a.jpg: x y; b.jpg: z");
        snprintf(text, sizeof text,
                 "\xEF\xBB\xBF"
                 "a#0\tx%s%sb#0\ty",
                 ends[i], ends[i]);
        assert_parses(text, 0, "a: x; b: y");
        snprintf(text, sizeof text, "image_name| comment_number| comment%sa| 0| x%s%s", ends[i],
                 ends[i], ends[i]);
        assert_parses(text, 0, "a: x");
    }
}

static void captions_of_a_photo_are_brought_together(void **state)
{
    (void)state;
    assert_parses("b#0\t1\na#0\t2\nb#1\t3\nc#0\t4\na#1\t5\nb#2\t6\n", 0,
                  "b: 1 / 3 / 6; a: 2 / 5; c: 4");
}

static void names_stay_in_the_folder(void **state)
{
    (void)state;
    assert_parses("../a#0\tx\n/a#0\tx\na/../b#0\tx\na/..#0\tx\n..#0\tx\nok/a..b/..c#0\tx\n", 5,
                  "ok/a..b/..c: x");
}

static void bytes_that_are_no_text(void **state)
{
    (void)state;
    static const char text[] = "a#0\tcaf\xC3\xA9\nb#0\tcaf\xE9\nb\xFF#0\tx\nc#0\tx\0y\nd\0#0\tx\n";
    ct_dataset *dataset;
    assert_ok(ct_dataset_parse(text, sizeof text - 1, "c", CT_CAPTIONS_AUTO, 1, &dataset));
    assert_contents(dataset, "a: caf\xC3\xA9");
    assert_int_equal(dataset->skipped_rows, 4);
    ct_dataset_destroy(dataset);
}

static void assert_refused(const char *text, ct_captions_format format, double max_bad_share,
                           const char *message)
{
    ct_dataset *dataset;
    assert_int_equal(ct_dataset_parse(text, strlen(text), "c", format, max_bad_share, &dataset),
                     CT_ERR_FORMAT);
    assert_string_equal(ct_error_message(), message);
}

static void wrong_format(void **state)
{
    (void)state;
#define EXPECTED                                                                                   \
    "c:1: expected the header \"image,caption\" or \"image_name| comment_number| comment\", or "   \
    "name#number, a tab and a caption; found "
    assert_refused("photo,text\n", CT_CAPTIONS_AUTO, 1, EXPECTED "\"photo,text\"");
    assert_refused("", CT_CAPTIONS_AUTO, 1, EXPECTED "\"\"");
    assert_refused("\x89PNG\r\n", CT_CAPTIONS_AUTO, 1, EXPECTED "\"?PNG?\"");
    ct_dataset *dataset;
    static const char with_nul[] = "image,caption\0a\n";
    assert_int_equal(
        ct_dataset_parse(with_nul, sizeof with_nul - 1, "c", CT_CAPTIONS_AUTO, 1, &dataset),
        CT_ERR_FORMAT);
    assert_string_equal(ct_error_message(), EXPECTED "\"image,caption?a\"");
#undef EXPECTED
    assert_refused("a.jpg,x\n", CT_CAPTIONS_FLICKR8K_KAGGLE, 1,
                   "c:1: expected the header \"image,caption\", found \"a.jpg,x\"");
    assert_refused("image,caption,split\n", CT_CAPTIONS_FLICKR8K_KAGGLE, 1,
                   "c:1: expected the header \"image,caption\", found \"image,caption,split\"");
    assert_refused("a| 0| x\n", CT_CAPTIONS_FLICKR30K_KAGGLE, 1,
                   "c:1: expected the header \"image_name| comment_number| comment\", "
                   "found \"a| 0| x\"");
    assert_refused("image,caption\n", CT_CAPTIONS_AUTO, 1, "c: expected captions, found none");
    assert_refused("image,caption\na,\n", CT_CAPTIONS_AUTO, 1, "c: expected captions, found none");
}

static void too_many_malformed_rows(void **state)
{
    (void)state;
    const char *text = "a#0\tx\nb#0\ty\nc#0\t\nd#0\tz\n";
    assert_refused(text, CT_CAPTIONS_AUTO, 0.2,
                   "c: 1 of 4 rows are malformed, more than data.max_bad_share (0.2) allows; the "
                   "first on line 3: the caption is empty");
    ct_dataset *dataset;
    assert_ok(ct_dataset_parse(text, strlen(text), "c", CT_CAPTIONS_AUTO, 0.25, &dataset));
    assert_int_equal(dataset->caption_count, 3);
    ct_dataset_destroy(dataset);
}

/* What parsing `text` says on standard error; free(). */
static char *reports_on(const char *text)
{
    const capture kept = capture_begin();
    ct_log_set_level(CT_LOG_WARNING);
    ct_dataset_destroy(parsed(text, CT_CAPTIONS_AUTO));
    ct_log_set_level(CT_LOG_ERROR);
    return capture_end(&kept);
}

static void malformed_rows_are_reported(void **state)
{
    (void)state;
    char *reports = reports_on("image,caption\na,\"x\ny\"\nb\nc,z\n,\n");
    assert_string_equal(reports, "warning: c:4: expected name,caption; the row is left out\n"
                                 "warning: c:6: the name is empty; the row is left out\n");
    free(reports);
    char text[512] = "a#0\tx\n";
    for (int i = 0; i < 30; i++) strcat(text, "broken\n");
    reports = reports_on(text);
    int lines = 0;
    for (char *at = reports; (at = strchr(at, '\n')); at++) lines++;
    assert_int_equal(lines, 21);
    assert_non_null(strstr(reports, "c:21: expected name#number"));
    assert_non_null(strstr(reports, "c: further malformed rows are left out without a word"));
    free(reports);
}

/* The number of captions of COCO. Five captions a photo, then once more in another order, so that
 * the table of names is searched too. */
static void as_large_as_coco(void **state)
{
    (void)state;
    const int32_t photos = 120000;
    size_t capacity = (size_t)photos * 5 * 90, used = 14;
    char *text = malloc(capacity);
    assert_non_null(text);
    memcpy(text, "image,caption\n", 14);
    for (int32_t row = 0; row < photos * 5; row++) {
        int32_t photo = row < photos * 4 ? row / 4 : (int32_t)((int64_t)row * 7919 % photos);
        used += (size_t)sprintf(text + used,
                                "COCO_train2014_%012d.jpg,\"A person, number %d, rides a wave\"\n",
                                photo, row);
    }
    ct_dataset *dataset;
    clock_t start = clock();
    assert_ok(ct_dataset_parse(text, used, "c", CT_CAPTIONS_AUTO, 0, &dataset));
    print_message("600000 captions: %.2f s\n", (double)(clock() - start) / CLOCKS_PER_SEC);
    assert_int_equal(dataset->photo_count, photos);
    assert_int_equal(dataset->caption_count, photos * 5);
    for (int32_t p = 0; p < photos; p++) assert_int_equal(dataset->photos[p].caption_count, 5);
    ct_dataset_destroy(dataset);
    free(text);
}

int run_parse_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flickr8k_token),
        cmocka_unit_test(flickr30k),
        cmocka_unit_test(line_ends_marks_and_blank_lines),
        cmocka_unit_test(captions_of_a_photo_are_brought_together),
        cmocka_unit_test(names_stay_in_the_folder),
        cmocka_unit_test(bytes_that_are_no_text),
        cmocka_unit_test(wrong_format),
        cmocka_unit_test(too_many_malformed_rows),
        cmocka_unit_test(malformed_rows_are_reported),
        cmocka_unit_test(as_large_as_coco),
    };
    return cmocka_run_group_tests_name("parse", tests, NULL, NULL);
}
