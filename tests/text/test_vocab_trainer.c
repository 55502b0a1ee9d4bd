/* Cases small enough to work out by hand; test_golden.c has Hugging Face's. */
#include "text/vocab_trainer.h"

#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"
#include "text_tests.h"

#define SPECIAL "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n"

static void check(const char *const *texts, int32_t count, bool lowercase, int32_t size,
                  int32_t min_frequency, const char *expected)
{
    char *vocab;
    size_t bytes;
    assert_ok(ct_vocab_train(texts, count, lowercase, size, min_frequency, &vocab, &bytes));
    assert_string_equal(vocab, expected);
    assert_int_equal(bytes, strlen(expected));
    free(vocab);
}

static void the_most_frequent_pair_is_merged_first(void **state)
{
    /* cab 3 times, ab 2, b once: "##a ##b" 3, "c ##a" 3, "a ##b" 2. Ids: a 5, b 6, c 7, ##a 8,
     * ##b 9, so of the two with 3 the pair (7, 8) wins; then (10, 9) with 3. */
    static const char *const texts[] = {"Cab cab ab", "CAB ab B"};
    (void)state;
    check(texts, 2, true, 100, 1, SPECIAL "a\nb\nc\n##a\n##b\nca\ncab\nab\n");
    check(texts, 2, true, 12, 1, SPECIAL "a\nb\nc\n##a\n##b\nca\ncab\n");
    check(texts, 2, true, 100, 3, SPECIAL "a\nb\nc\n##a\n##b\nca\ncab\n");
    check(texts, 2, true, 10, 1, SPECIAL "a\nb\nc\n##a\n##b\n");
}

static void overlapping_pairs_are_merged_from_the_left(void **state)
{
    /* aaaaa = a ##a ##a ##a ##a: (##a ##a) 3, merged from the left: a ##aa ##aa. */
    static const char *const texts[] = {"aaaaa"};
    (void)state;
    check(texts, 1, true, 8, 0, SPECIAL "a\n##a\n##aa\n");
    check(texts, 1, true, 9, 0, SPECIAL "a\n##a\n##aa\naaa\n");
}

static void case_is_kept_when_asked(void **state)
{
    static const char *const texts[] = {"A a\xC3\x89"};
    (void)state;
    check(texts, 1, false, 9, 1, SPECIAL "A\na\n\xC3\x89\n##\xC3\x89\n");
    check(texts, 1, true, 8, 1, SPECIAL "a\ne\n##e\n");
}

static void nothing_to_learn_from(void **state)
{
    static const char *const texts[] = {" \t"};
    (void)state;
    check(texts, 0, true, 5, 1, SPECIAL);
    check(texts, 1, true, 5, 1, SPECIAL);
}

static void too_small_a_size_is_refused(void **state)
{
    static const char *const texts[] = {"cab"};
    char *vocab;
    size_t bytes;
    (void)state;
    assert_fails(ct_vocab_train(texts, 1, true, 9, 1, &vocab, &bytes), CT_ERR_ARGUMENT,
                 "characters of these captions alone are 10");
}

static void words_that_are_never_looked_up_are_left_out(void **state)
{
    char text[104] = "b ";
    const char *const texts[] = {text};
    (void)state;
    memset(text + 2, 'a', 101);
    check(texts, 1, true, 20, 0, SPECIAL "b\n");
    text[102] = '\0';
    char *vocab;
    size_t bytes;
    assert_ok(ct_vocab_train(texts, 1, true, 8, 0, &vocab, &bytes));
    assert_string_equal(vocab, SPECIAL "a\nb\n##a\n");
    free(vocab);
}

static void the_tokenizer_reads_the_result(void **state)
{
    static const char *const texts[] = {"A dog runs .", "Two dogs run !", "caf\xC3\xA9"};
    char *vocab;
    size_t bytes;
    ct_tokenizer *tokenizer;
    ct_token_store *store;
    (void)state;
    assert_ok(ct_vocab_train(texts, 3, true, 200, 1, &vocab, &bytes));
    assert_ok(ct_tokenizer_parse(vocab, bytes, "learnt", true, &tokenizer));
    assert_ok(ct_token_store_create(tokenizer, texts, 3, 10, 1, &store));
    /* Everything could be merged, so that every word is one piece. */
    assert_int_equal(store->offset[3], 2 + 4 + 2 + 4 + 2 + 1);
    for (int64_t i = 0; i < store->offset[3]; i++) assert_int_not_equal(store->ids[i], 1);
    ct_token_store_destroy(store);
    ct_tokenizer_destroy(tokenizer);
    free(vocab);
}

int run_vocab_trainer_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_most_frequent_pair_is_merged_first),
        cmocka_unit_test(overlapping_pairs_are_merged_from_the_left),
        cmocka_unit_test(case_is_kept_when_asked),
        cmocka_unit_test(nothing_to_learn_from),
        cmocka_unit_test(too_small_a_size_is_refused),
        cmocka_unit_test(words_that_are_never_looked_up_are_left_out),
        cmocka_unit_test(the_tokenizer_reads_the_result),
    };
    return cmocka_run_group_tests_name("vocabulary trainer", tests, NULL, NULL);
}
