/* Vocabularies and texts from outside. Input: a byte of options (bit 0: lower-case; bits 1..6:
 * max_tokens - 2), then the vocabulary up to the first NUL, then the text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"
#include "text/vocab_trainer.h"

#define MAX_TOKENS (2 + 63)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds, const char *what)
{
    if (holds) return;
    fprintf(stderr, "violated: %s (%s)\n", what, ct_error_message());
    abort();
}

/* Fewer tokens are the beginning of more; all are of the vocabulary, between [CLS] and [SEP]. */
static void check_ids(const ct_tokenizer *tokenizer, const char *text, size_t size,
                      int32_t max_tokens)
{
    int32_t ids[MAX_TOKENS], all[MAX_TOKENS], count, all_count;
    ct_tokenizer_scratch *scratch;
    require(ct_tokenizer_scratch_create(&scratch) == CT_OK, "scratch memory");
    require(ct_tokenizer_encode(tokenizer, scratch, text, size, MAX_TOKENS, all, &all_count) ==
                CT_OK,
            "encoding succeeds");
    require(ct_tokenizer_encode(tokenizer, scratch, text, size, max_tokens, ids, &count) == CT_OK,
            "encoding succeeds");
    require(count >= 2 && count <= max_tokens, "2 to max_tokens ids");
    require(count == (all_count < max_tokens ? all_count : max_tokens), "cut only when too long");
    require(memcmp(ids, all, (size_t)(count - 1) * sizeof *ids) == 0, "a prefix");
    for (int32_t i = 0; i < count; i++)
        require(ct_tokenizer_token(tokenizer, ids[i]) != NULL, "ids of the vocabulary");
    require(strcmp(ct_tokenizer_token(tokenizer, ids[0]), "[CLS]") == 0, "[CLS] first");
    require(strcmp(ct_tokenizer_token(tokenizer, ids[count - 1]), "[SEP]") == 0, "[SEP] last");
    ct_tokenizer_scratch_destroy(scratch);
}

/* What is learnt from a text is a valid vocabulary of at most the size asked for. */
static void check_training(const char *text, bool lowercase)
{
    char *vocab;
    size_t bytes;
    ct_tokenizer *tokenizer;
    if (ct_vocab_train(&text, 1, lowercase, 300, 2, &vocab, &bytes) != CT_OK) return;
    require(ct_tokenizer_parse(vocab, bytes, "learnt", lowercase, &tokenizer) == CT_OK,
            "a learnt vocabulary is valid");
    require(ct_tokenizer_vocab_size(tokenizer) <= 300, "the size asked for");
    check_ids(tokenizer, text, strlen(text), MAX_TOKENS);
    ct_tokenizer_destroy(tokenizer);
    free(vocab);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size) return 0;
    bool lowercase = data[0] & 1;
    int32_t max_tokens = 2 + (data[0] >> 1) % (MAX_TOKENS - 1);
    const char *vocab = (const char *)data + 1;
    const char *end = memchr(vocab, '\0', size - 1);
    size_t vocab_size = end ? (size_t)(end - vocab) : size - 1;
    size_t text_size = end ? size - 2 - vocab_size : 0;
    const char *text = end ? end + 1 : "";
    ct_tokenizer *tokenizer;
    if (ct_tokenizer_parse(vocab, vocab_size, "fuzz", lowercase, &tokenizer) == CT_OK) {
        check_ids(tokenizer, text, text_size, max_tokens);
        ct_tokenizer_destroy(tokenizer);
    }
    char *copy = strndup(text, text_size);
    require(copy != NULL, "memory");
    check_training(copy, lowercase);
    free(copy);
    return 0;
}
