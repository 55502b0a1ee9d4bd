#include "text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text_tests.h"

#define MAX_TOKENS 64

static const char vocab[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n"
                            "a\ndog\n##s\nrun\n##ning\n##n\n##i\n.\ncafe\n##d\nd\n#\nu\n##a";

typedef struct fixture {
    ct_tokenizer *tokenizer;
    ct_tokenizer_scratch *scratch;
} fixture;

static ct_status parse(const char *text, size_t size, ct_tokenizer **out)
{
    return ct_tokenizer_parse(text, size, "vocab.txt", true, out);
}

static int set_up(void **state)
{
    static fixture self;
    assert_ok(parse(vocab, sizeof vocab - 1, &self.tokenizer));
    assert_ok(ct_tokenizer_scratch_create(&self.scratch));
    *state = &self;
    return 0;
}

static int tear_down(void **state)
{
    fixture *self = *state;
    ct_tokenizer_destroy(self->tokenizer);
    ct_tokenizer_scratch_destroy(self->scratch);
    return 0;
}

/* Asserts that text[0 .. size) becomes the tokens written in `expected`, one space between. */
static void check(const fixture *self, const char *text, size_t size, int32_t max_tokens,
                  const char *expected)
{
    int32_t ids[MAX_TOKENS + 1], count;
    char found[1024] = "", *to = found;
    ids[max_tokens] = -77;
    assert_ok(
        ct_tokenizer_encode(self->tokenizer, self->scratch, text, size, max_tokens, ids, &count));
    assert_in_range(count, 2, max_tokens);
    assert_int_equal(ids[max_tokens], -77);
    for (int32_t i = 0; i < count; i++)
        to += sprintf(to, "%s%s", i ? " " : "", ct_tokenizer_token(self->tokenizer, ids[i]));
    assert_string_equal(found, expected);
}

static void check_text(void **state, const char *text, const char *expected)
{
    check(*state, text, strlen(text), MAX_TOKENS, expected);
}

static void longest_match_first(void **state)
{
    check_text(state, "A dog running.", "[CLS] a dog run ##ning . [SEP]");
    check_text(state, "dogs runnin", "[CLS] dog ##s run ##n ##i ##n [SEP]");
    check_text(state, "CAFÉ cafe\xCC\x81s", "[CLS] cafe cafe ##s [SEP]");
    check_text(state, "", "[CLS] [SEP]");
}

static void a_word_without_a_match_is_unknown_as_a_whole(void **state)
{
    check_text(state, "dogx dogsx s x. dog", "[CLS] [UNK] [UNK] [UNK] [UNK] . dog [SEP]");
    check_text(state, "##s #", "[CLS] # # [UNK] # [SEP]");
}

static void cutting_keeps_the_first_pieces_and_the_separator(void **state)
{
    const char *text = "dogs running";
    check(*state, text, strlen(text), 6, "[CLS] dog ##s run ##ning [SEP]");
    check(*state, text, strlen(text), 5, "[CLS] dog ##s run [SEP]");
    check(*state, text, strlen(text), 4, "[CLS] dog ##s [SEP]");
    check(*state, text, strlen(text), 2, "[CLS] [SEP]");
}

static void a_word_found_unknown_behind_the_cut_is_unknown(void **state)
{
    const char *text = "a dogsssx";
    check(*state, text, strlen(text), 4, "[CLS] a [UNK] [SEP]");
    text = "a dogsss";
    check(*state, text, strlen(text), 4, "[CLS] a dog [SEP]");
}

static void bytes_that_are_not_utf8_are_dropped(void **state)
{
    check_text(state, "d\xFFog", "[CLS] dog [SEP]");
    check_text(state, "do\xC3g", "[CLS] dog [SEP]");
    check_text(state, "do\xE2\x82g", "[CLS] dog [SEP]");
    check_text(state, "do\xED\xA0\x80g", "[CLS] dog [SEP]");     /* a surrogate */
    check_text(state, "do\xC0\xAEg", "[CLS] dog [SEP]");         /* an overlong full stop */
    check_text(state, "do\xF5\x80\x80\x80g", "[CLS] dog [SEP]"); /* beyond U+10FFFF */
    check_text(state, "dog\xF0\x9F\x90", "[CLS] dog [SEP]");     /* cut short */
}

static void nul_bytes_are_dropped(void **state)
{
    check(*state, "d\0og\0", 5, MAX_TOKENS, "[CLS] dog [SEP]");
    check(*state,
          "d\0og\xC2\xA0"
          "a",
          7, MAX_TOKENS, "[CLS] dog a [SEP]");
}

static void the_text_of_a_special_token_is_that_token(void **state)
{
    check_text(state, "a[SEP]dog [MASK]", "[CLS] a [SEP] dog [MASK] [SEP]");
    check_text(state, "[sep]", "[CLS] [UNK] [UNK] [UNK] [SEP]");
    check_text(state, "[[PAD]", "[CLS] [UNK] [PAD] [SEP]");
    check_text(state, "[SEP", "[CLS] [UNK] [UNK] [SEP]");
    check(*state, "dog[MASK]a", 10, 4, "[CLS] dog [MASK] [SEP]");
    check(*state, "dog[MASK]", 8, MAX_TOKENS, "[CLS] dog [UNK] [UNK] [SEP]"); /* "dog[MASK" */
}

static void a_word_of_over_100_characters_is_unknown(void **state)
{
    char text[3 * 101 + 1];
    for (int count = 100; count <= 101; count++) {
        char expected[1024] = "[CLS] d", *to = expected + strlen(expected);
        memset(text, 'd', (size_t)count);
        for (int i = 1; i < 62; i++) to += sprintf(to, " ##d");
        sprintf(to, " [SEP]");
        check(*state, text, (size_t)count, MAX_TOKENS,
              count == 100 ? expected : "[CLS] [UNK] [SEP]");
    }
    /* Characters are counted after normalisation: 101 accents do not count. */
    strcpy(text, "d");
    for (int i = 0; i < 101; i++) strcat(text, "\xCC\x81");
    check(*state, text, strlen(text), MAX_TOKENS, "[CLS] d [SEP]");
}

static void max_tokens_below_two_is_refused(void **state)
{
    const fixture *self = *state;
    int32_t ids[1], count;
    assert_fails(ct_tokenizer_encode(self->tokenizer, self->scratch, "a", 1, 1, ids, &count),
                 CT_ERR_ARGUMENT, "it is 1");
}

static void the_vocabulary_can_be_looked_into(void **state)
{
    const ct_tokenizer *tokenizer = ((fixture *)*state)->tokenizer;
    size_t size;
    assert_int_equal(ct_tokenizer_vocab_size(tokenizer), 19);
    assert_string_equal(ct_tokenizer_token(tokenizer, 0), "[PAD]");
    assert_string_equal(ct_tokenizer_token(tokenizer, 18), "##a");
    assert_null(ct_tokenizer_token(tokenizer, 19));
    assert_null(ct_tokenizer_token(tokenizer, -1));
    const char *text = ct_tokenizer_vocab_text(tokenizer, &size);
    assert_int_equal(size, sizeof vocab - 1);
    assert_memory_equal(text, vocab, size);
}

static void windows_line_ends_are_read(void **state)
{
    static const char text[] = "[PAD]\r\n[UNK]\r\n[CLS]\r\n[SEP]\r\ndog\r\n";
    ct_tokenizer *tokenizer;
    (void)state;
    assert_ok(parse(text, sizeof text - 1, &tokenizer));
    assert_int_equal(ct_tokenizer_vocab_size(tokenizer), 5);
    assert_string_equal(ct_tokenizer_token(tokenizer, 4), "dog");
    ct_tokenizer_destroy(tokenizer);
}

static void faulty_vocabularies_are_refused(void **state)
{
#define HEAD "[PAD]\n[UNK]\n[CLS]\n[SEP]\n"
    static const struct {
        const char *text;
        size_t size;
        const char *message;
    } cases[] = {
        {"", 0, "vocab.txt: no line is \"[UNK]\" (0 lines read)"},
        {"[UNK]\n[CLS]\n[SEP]\ndog\n", 20, "vocab.txt: no line is \"[PAD]\" (4 lines read)"},
        {HEAD "dog\na\ndog\n", 34, "vocab.txt:7: the token \"dog\" is already on line 5"},
        {HEAD "##a\na\n##a\n", 34, "vocab.txt:7: the token \"##a\" is already on line 5"},
        {HEAD "\na\n", 27, "vocab.txt:5: expected a token, found nothing"},
        {HEAD "a\n\n", 27, "vocab.txt:6: expected a token, found nothing"},
        {HEAD "do\xFFg\n", 29, "vocab.txt:5: byte 3 of the token is not UTF-8"},
        {HEAD "do\0g\n", 29, "vocab.txt:5: a token must not contain a NUL byte"},
    };
#undef HEAD
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ct_tokenizer *tokenizer;
        assert_fails(parse(cases[i].text, cases[i].size, &tokenizer), CT_ERR_FORMAT,
                     cases[i].message);
    }
}

static void a_file_is_loaded(void **state)
{
    char *folder = folder_create();
    const char *path = in_folder(folder, "vocab.txt");
    ct_tokenizer *tokenizer;
    (void)state;
    write_bytes(path, vocab, sizeof vocab - 1);
    assert_ok(ct_tokenizer_load(path, true, &tokenizer));
    assert_int_equal(ct_tokenizer_vocab_size(tokenizer), 19);
    ct_tokenizer_destroy(tokenizer);
    folder_remove(folder);
    assert_fails(ct_tokenizer_load(path, true, &tokenizer), CT_ERR_IO, path);
}

int run_tokenizer_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(longest_match_first),
        cmocka_unit_test(a_word_without_a_match_is_unknown_as_a_whole),
        cmocka_unit_test(cutting_keeps_the_first_pieces_and_the_separator),
        cmocka_unit_test(a_word_found_unknown_behind_the_cut_is_unknown),
        cmocka_unit_test(bytes_that_are_not_utf8_are_dropped),
        cmocka_unit_test(nul_bytes_are_dropped),
        cmocka_unit_test(the_text_of_a_special_token_is_that_token),
        cmocka_unit_test(a_word_of_over_100_characters_is_unknown),
        cmocka_unit_test(max_tokens_below_two_is_refused),
        cmocka_unit_test(the_vocabulary_can_be_looked_into),
        cmocka_unit_test(windows_line_ends_are_read),
        cmocka_unit_test(faulty_vocabularies_are_refused),
        cmocka_unit_test(a_file_is_loaded),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, set_up, tear_down);
}
