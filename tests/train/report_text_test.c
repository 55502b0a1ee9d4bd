/* The report's small parts: text, numbers, base64, the chance level. */
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "train/chance.h"
#include "train/report_text.h"
#include "train/support.h"
#include "train/tests.h"

#define FFFD "\xEF\xBF\xBD"

static void check_text(const char *in, const char *expected)
{
    char *out = NULL;
    size_t size;
    FILE *stream = open_memstream(&out, &size);
    assert_non_null(stream);
    ct_report_text(stream, in);
    fclose(stream);
    assert_string_equal(out, expected);
    free(out);
}

static void test_text(void **state)
{
    (void)state;
    check_text("", "");
    check_text("a dog runs", "a dog runs");
    check_text("<b>&\"'</b>", "&lt;b&gt;&amp;&quot;&#39;&lt;/b&gt;");
    check_text("tab\there\r\nand\x01\x7F", "tab here  and  ");
    check_text("Größe 犬 🐕", "Größe 犬 🐕");
    check_text("\xF4\x8F\xBF\xBF\xED\x9F\xBF\xE0\xA0\x80",
               "\xF4\x8F\xBF\xBF\xED\x9F\xBF\xE0\xA0\x80");
    check_text("\x80", FFFD);          /* no lead byte */
    check_text("\xC3", FFFD);          /* cut at the end */
    check_text("\xE2\x82", FFFD FFFD); /* cut at the end */
    check_text("\xF0\x9F\x90"
               "a",
               FFFD FFFD FFFD "a");                      /* cut inside */
    check_text("\xC0\xBC", FFFD FFFD);                   /* overlong '<' */
    check_text("\xE0\x80\xBC", FFFD FFFD FFFD);          /* overlong '<' */
    check_text("\xF0\x80\x80\xBC", FFFD FFFD FFFD FFFD); /* overlong '<' */
    check_text("\xED\xA0\x80", FFFD FFFD FFFD);          /* a surrogate */
    check_text("\xF4\x90\x80\x80", FFFD FFFD FFFD FFFD); /* beyond U+10FFFF */
    check_text("\xC3<", FFFD "&lt;");                    /* must not swallow the '<' */
    check_text("\xFF\xFE\xF5", FFFD FFFD FFFD);
}

static char *printed(void (*print)(FILE *, const void *), const void *value)
{
    char *out = NULL;
    size_t size;
    FILE *stream = open_memstream(&out, &size);
    assert_non_null(stream);
    print(stream, value);
    fclose(stream);
    return out;
}

static void print_count(FILE *stream, const void *value)
{
    ct_report_count(stream, *(const int64_t *)value);
}

static void print_rank(FILE *stream, const void *value)
{
    ct_report_rank(stream, *(const double *)value);
}

static void print_base64(FILE *stream, const void *value)
{
    ct_report_base64(stream, value, strlen(value));
}

static void check_printed(void (*print)(FILE *, const void *), const void *value,
                          const char *expected)
{
    char *text = printed(print, value);
    assert_string_equal(text, expected);
    free(text);
}

static void test_numbers(void **state)
{
    (void)state;
    static const int64_t counts[] = {0, 7, 999, 1000, 12345, 1234567, -1000, INT64_MIN};
    static const char *const count_texts[] = {
        "0", "7", "999", "1,000", "12,345", "1,234,567", "-1,000", "-9,223,372,036,854,775,808"};
    for (int i = 0; i < 8; i++) check_printed(print_count, &counts[i], count_texts[i]);
    static const double ranks[] = {1, 14.5, 250.04, 999.96, 1204.5, NAN, INFINITY, -1};
    static const char *const rank_texts[] = {"1", "14.5", "250", "1,000", "1,205", "–", "–", "–"};
    for (int i = 0; i < 8; i++) check_printed(print_rank, &ranks[i], rank_texts[i]);
}

/* RFC 4648, section 10. */
static void test_base64(void **state)
{
    (void)state;
    check_printed(print_base64, "", "");
    check_printed(print_base64, "f", "Zg==");
    check_printed(print_base64, "fo", "Zm8=");
    check_printed(print_base64, "foo", "Zm9v");
    check_printed(print_base64, "foob", "Zm9vYg==");
    check_printed(print_base64, "fooba", "Zm9vYmE=");
    check_printed(print_base64, "foobar", "Zm9vYmFy");
    check_printed(print_base64, "\xFF\xEF\xBE\xFB",
                  "/+++"
                  "+w==");
}

/* The chance level against a simulation of random ranking. */
static void test_chance(void **state)
{
    (void)state;
    enum { QUERIES = 5, CANDIDATES = 30, TRIALS = 40000 };
    static const int32_t own[QUERIES] = {1, 5, 0, 2, 5};
    ct_recall chance;
    double within[3] = {0}, sum = 0, ranked = 0;
    assert_ok(ct_chance_compute(own, QUERIES, CANDIDATES, &chance));
    for (int trial = 0; trial < TRIALS; trial++)
        for (int q = 0; q < QUERIES; q++) {
            int32_t order[CANDIDATES], best = CANDIDATES;
            if (own[q] == 0) continue;
            ct_rng_permute(ct_rng_make(1, CT_RNG_TEST, (uint64_t)q, (uint64_t)trial), order,
                           CANDIDATES);
            for (int32_t m = 0; m < own[q]; m++)
                if (order[m] < best) best = order[m];
            ranked++;
            sum += best + 1;
            within[0] += best < 1;
            within[1] += best < 5;
            within[2] += best < 10;
        }
    /* Five standard deviations of a share, and of a mean of ranks up to 30. */
    double limit = 5 * 50 / sqrt(ranked);
    assert_close(chance.r1, 100 * within[0] / ranked, limit);
    assert_close(chance.r5, 100 * within[1] / ranked, limit);
    assert_close(chance.r10, 100 * within[2] / ranked, limit);
    assert_close(chance.mean_rank, sum / ranked, 5 * CANDIDATES / 2 / sqrt(ranked));
}

static void test_chance_by_hand(void **state)
{
    (void)state;
    ct_recall chance;
    int32_t one = 1, all = 4, none = 0;
    assert_ok(ct_chance_compute(&one, 1, 1000, &chance));
    assert_close(chance.r1, 0.1, 1e-12);
    assert_close(chance.r10, 1.0, 1e-12);
    assert_close(chance.median_rank, 500, 0);
    assert_close(chance.mean_rank, 500.5, 1e-9);
    assert_ok(ct_chance_compute(&all, 1, 4, &chance)); /* every candidate is right */
    assert_close(chance.r1, 100, 1e-9);
    assert_close(chance.median_rank, 1, 0);
    assert_ok(ct_chance_compute(&one, 1, 3, &chance)); /* fewer candidates than ten */
    assert_close(chance.r5, 100, 1e-9);
    assert_close(chance.r10, 100, 1e-9);
    assert_ok(ct_chance_compute(&none, 1, 3, &chance));
    assert_close(chance.r10 + chance.mean_rank, 0, 0);
}

int run_report_text_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),           cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_base64),         cmocka_unit_test(test_chance),
        cmocka_unit_test(test_chance_by_hand),
    };
    return cmocka_run_group_tests_name("report parts", tests, NULL, NULL);
}
