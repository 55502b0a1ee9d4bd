/* Quotes in Kaggle's captions.txt (RFC 4180), right and wrong. */
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "support.h"

#define HEADER "image,caption\n"

static void quotes(void **state)
{
    (void)state;
    assert_parses(HEADER "a,\"one, two\"\n"
                         "a,\"a \"\"dog\"\" runs\"\n"
                         "a,\"\"\"A\"\"\"\n"
                         "a,say \"hi\" now\n"
                         "\"b, c\",plain\n"
                         "\"d\" ,\"x\" \n",
                  0, "a: one, two / a \"dog\" runs / \"A\" / say \"hi\" now; b, c: plain; d: x");
    assert_parses("\"Image\" , \"Caption\"\r\na,\"x\"\r\nb,\"y\"\r\n", 0, "a: x; b: y");
}

static void an_unquoted_caption_takes_the_line(void **state)
{
    (void)state;
    assert_parses(HEADER "a,one, two, three\n", 0, "a: one, two, three");
}

static void line_breaks_in_quotes(void **state)
{
    (void)state;
    assert_parses(HEADER "a,\"one\ntwo\n\nthree\"\nb,\"x\r\n\"\nc,z", 0,
                  "a: one\ntwo\n\nthree; b: x; c: z");
}

/* After a wrong quote reading goes on with the next line, as the file had it. */
static void wrong_quotes(void **state)
{
    (void)state;
    assert_parses(HEADER "a,\"never closed\nb,x\nc,y\n", 1, "b: x; c: y");
    assert_parses(HEADER "a,\"never \"\"closed\nb,x\n", 1, "b: x");
    assert_parses(HEADER "a,\"x\" y\nb,z\n", 1, "b: z");
    assert_parses(HEADER "a,\"open\nb,\"x, \"\"y\"\"\"\nc,z\n", 1, "b: x, \"y\"; c: z");
    assert_parses(HEADER "\"a,x\nb,y\n", 1, "b: y");
    assert_parses(HEADER "\"a\nb\",\"x\nc,y\n", 2, "c: y");
    assert_parses(HEADER "a,\"x\",\"y\"\nb,z\n", 1, "b: z");
    assert_parses(HEADER "a,\"\"\nb,\"  \"\n\"\",x\nc,y\n", 3, "c: y");
    assert_parses(HEADER "a\n\"b\"\nc,y\n\"", 3, "c: y");
    assert_parses(HEADER "c,y\na,\"", 1, "c: y");
    assert_parses(HEADER "c,y\na,\"x\"\"", 1, "c: y");
}

/* Longer than any caption: the quote is taken for a stray one, and the rest is read. */
static void a_quote_does_not_swallow_the_file(void **state)
{
    (void)state;
    const int lines = 3000;
    char *text = malloc((size_t)lines * 16 + 64), *at = text;
    assert_non_null(text);
    at += sprintf(at, HEADER "a,\"stray\n");
    for (int i = 0; i < lines; i++) at += sprintf(at, "b,caption %d\n", i);
    at += sprintf(at, "a,\"late\"\n");
    ct_dataset *dataset = parsed(text, CT_CAPTIONS_AUTO);
    assert_int_equal(dataset->skipped_rows, 1);
    assert_int_equal(dataset->caption_count, lines + 1);
    ct_dataset_destroy(dataset);
    free(text);
}

/* A caption of 1..12 characters, no white space at its ends, with a quote, comma or line break
 * often. */
static void random_caption(ct_rng_key key, char out[32])
{
    static const char characters[] = "abcdef,,\"\"\n ";
    uint32_t length = 1 + ct_rng_below(key, 0, 12);
    for (uint32_t i = 0; i < length; i++) {
        bool end = i == 0 || i == length - 1;
        out[i] = characters[ct_rng_below(key, 1 + i, end ? 10 : 12)];
    }
    out[length] = '\0';
}

static void write_quoted(FILE *stream, const char *text)
{
    fputc('"', stream);
    for (; *text; text++) {
        if (*text == '"') fputc('"', stream);
        fputc(*text, stream);
    }
    fputc('"', stream);
}

static void random_rows_come_back(void **state)
{
    (void)state;
    const uint64_t seed = 5;
    print_message("random seed %llu\n", (unsigned long long)seed);
    for (uint32_t run = 0; run < 300; run++) {
        static char captions[20][32];
        char *text;
        size_t size;
        FILE *stream = open_memstream(&text, &size);
        assert_non_null(stream);
        fputs(HEADER, stream);
        for (uint32_t i = 0; i < 20; i++) {
            random_caption(ct_rng_make(seed, CT_RNG_TEST, run, i), captions[i]);
            fputs("p,", stream);
            /* Quotes where RFC 4180 asks for them; a comma alone may stand without. */
            if (strpbrk(captions[i], "\"\n")) write_quoted(stream, captions[i]);
            else fputs(captions[i], stream);
            fputs(i % 2 ? "\n" : "\r\n", stream);
        }
        fclose(stream);
        ct_dataset *dataset = parsed(text, CT_CAPTIONS_AUTO);
        assert_int_equal(dataset->skipped_rows, 0);
        assert_int_equal(dataset->caption_count, 20);
        for (int i = 0; i < 20; i++) assert_string_equal(dataset->captions[i].text, captions[i]);
        ct_dataset_destroy(dataset);
        free(text);
    }
}

int run_csv_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quotes),
        cmocka_unit_test(an_unquoted_caption_takes_the_line),
        cmocka_unit_test(line_breaks_in_quotes),
        cmocka_unit_test(wrong_quotes),
        cmocka_unit_test(a_quote_does_not_swallow_the_file),
        cmocka_unit_test(random_rows_come_back),
    };
    return cmocka_run_group_tests_name("csv", tests, NULL, NULL);
}
