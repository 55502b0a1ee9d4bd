#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "text/tokenizer.h"
#include "text_tests.h"

#define CAPTIONS   301
#define MAX_TOKENS 9

static const char vocab[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\ndog\n##s\nrun\n##s\xC3\xA9\n";

static int make_tokenizer(void **state)
{
    ct_tokenizer *tokenizer;
    assert_ok(ct_tokenizer_parse(vocab, sizeof vocab - 1, "vocab.txt", false, &tokenizer));
    *state = tokenizer;
    return 0;
}

static int drop_tokenizer(void **state)
{
    ct_tokenizer_destroy(*state);
    return 0;
}

/* Up to 11 random words in each of the texts. */
static void make_texts(uint64_t seed, char (*texts)[80], const char **pointers)
{
    static const char *const words[] = {"a", "dogs", "runs\xC3\xA9", "cat", "run"};
    for (uint32_t c = 0; c < CAPTIONS; c++) {
        ct_rng_key key = ct_rng_make(seed, CT_RNG_TEST, 0, c);
        texts[c][0] = '\0';
        for (uint32_t w = 1; w <= ct_rng_below(key, 0, 12); w++)
            sprintf(texts[c] + strlen(texts[c]), "%s ", words[ct_rng_below(key, w, 5)]);
        pointers[c] = texts[c];
    }
}

/* The store holds what encoding each text alone gives, whatever the number of threads. */
static void equals_encoding_one_by_one(void **state)
{
    static char texts[CAPTIONS][80];
    const char *pointers[CAPTIONS];
    const uint64_t seed = 20;
    ct_tokenizer_scratch *scratch;
    print_message("random seed %llu\n", (unsigned long long)seed);
    make_texts(seed, texts, pointers);
    assert_ok(ct_tokenizer_scratch_create(&scratch));
    for (int threads = 1; threads <= 7; threads += 2) {
        ct_token_store *store;
        int32_t ids[MAX_TOKENS], count, longest = 0;
        assert_ok(ct_token_store_create(*state, pointers, CAPTIONS, MAX_TOKENS, threads, &store));
        assert_int_equal(store->count, CAPTIONS);
        assert_int_equal(store->offset[0], 0);
        for (int32_t c = 0; c < CAPTIONS; c++) {
            assert_ok(ct_tokenizer_encode(*state, scratch, texts[c], strlen(texts[c]), MAX_TOKENS,
                                          ids, &count));
            assert_int_equal(store->offset[c + 1] - store->offset[c], count);
            assert_memory_equal(store->ids + store->offset[c], ids, (size_t)count * sizeof *ids);
            if (count > longest) longest = count;
        }
        assert_int_equal(store->longest, longest);
        ct_token_store_destroy(store);
    }
    ct_tokenizer_scratch_destroy(scratch);
}

static void few_captions_and_many_threads(void **state)
{
    static const char *const texts[] = {"a", "dog"};
    ct_token_store *store;
    assert_ok(ct_token_store_create(*state, texts, 2, MAX_TOKENS, 16, &store));
    assert_int_equal(store->offset[2], 6);
    assert_int_equal(store->longest, 3);
    ct_token_store_destroy(store);
    assert_ok(ct_token_store_create(*state, texts, 0, MAX_TOKENS, 16, &store));
    assert_int_equal(store->count, 0);
    assert_int_equal(store->offset[0], 0);
    assert_int_equal(store->longest, 0);
    ct_token_store_destroy(store);
}

/* The message is set in another thread, and must be heard in this one. */
static void a_failure_in_a_thread_is_reported(void **state)
{
    static const char *const texts[] = {"a", "dog", "a"};
    ct_token_store *store;
    assert_fails(ct_token_store_create(*state, texts, 3, 1, 3, &store), CT_ERR_ARGUMENT, "it is 1");
    assert_fails(ct_token_store_create(*state, texts, 3, MAX_TOKENS, 0, &store), CT_ERR_ARGUMENT,
                 "threads >= 1");
}

int run_token_store_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_encoding_one_by_one),
        cmocka_unit_test(few_captions_and_many_threads),
        cmocka_unit_test(a_failure_in_a_thread_is_reported),
    };
    return cmocka_run_group_tests_name("token store", tests, make_tokenizer, drop_tokenizer);
}
