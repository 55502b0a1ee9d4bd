/* BERT's WordPiece tokenizer (Devlin et al. 2019): equal, id for id, to Hugging Face's
 * BertTokenizerFast with the same vocab.txt and do_lower_case = lowercase.
 *
 * Cleaning (control characters out, white space to spaces), CJK spaced out, lower-casing with
 * accents stripped (NFD, category Mn removed) when `lowercase`, splitting at white space and
 * punctuation, then greedy longest match with "##" continuations; a word over 100 characters or
 * without a match is [UNK]. Bytes that are not UTF-8 become U+FFFD, which cleaning drops.
 *
 * As there, the literal text "[SEP]" (or another special token of the vocabulary, exactly so
 * written) in a caption is that special token.
 *
 * Character properties are utf8proc's (Unicode 15 in its version 2.8). Hugging Face's categories
 * are those of Unicode 8 (2015), and its lower-casing is newer than 15. So the two differ on 624 of
 * Unicode's 1,112,064 characters, assigned or reclassified since 2015: mostly accents and
 * punctuation of rare scripts that Hugging Face does not know to be such. */
#ifndef CT_TEXT_TOKENIZER_H
#define CT_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct ct_tokenizer ct_tokenizer;

/* vocab.txt: one token a line, the line's number from 0 is its id. [UNK], [CLS], [SEP] and [PAD]
 * must be there; a token twice is an error. CT_ERR_FORMAT names the line. */
CT_NODISCARD ct_status ct_tokenizer_load(const char *path, bool lowercase, ct_tokenizer **out);
CT_NODISCARD ct_status ct_tokenizer_parse(const char *text, size_t size, const char *name,
                                          bool lowercase, ct_tokenizer **out);
void ct_tokenizer_destroy(ct_tokenizer *tokenizer);

int32_t ct_tokenizer_vocab_size(const ct_tokenizer *tokenizer);

/* The vocabulary's text as it was read (for checkpoints); borrowed. */
const char *ct_tokenizer_vocab_text(const ct_tokenizer *tokenizer, size_t *size);

/* "[CLS] text [SEP]", cut to max_tokens as Hugging Face's truncation does ([SEP] stays).
 * ids has room for max_tokens (>= 2); *count = how many were written. Thread-safe: the tokenizer
 * is read only; scratch memory lives in `scratch`. */
typedef struct ct_tokenizer_scratch ct_tokenizer_scratch;
CT_NODISCARD ct_status ct_tokenizer_scratch_create(ct_tokenizer_scratch **out);
void ct_tokenizer_scratch_destroy(ct_tokenizer_scratch *scratch);
CT_NODISCARD ct_status ct_tokenizer_encode(const ct_tokenizer *tokenizer,
                                           ct_tokenizer_scratch *scratch, const char *text,
                                           size_t size, int32_t max_tokens, int32_t *ids,
                                           int32_t *count);

/* The token's text ("##ing"), borrowed; NULL when id is out of range. */
const char *ct_tokenizer_token(const ct_tokenizer *tokenizer, int32_t id);

/* All captions of a data set, tokenized once: caption c is ids[offset[c] .. offset[c + 1]). */
typedef struct ct_token_store {
    int32_t *ids;
    int64_t *offset; /* (count + 1) */
    int32_t count, longest;
} ct_token_store;

/* texts: count NUL-terminated strings, read with `threads` threads. */
CT_NODISCARD ct_status ct_token_store_create(const ct_tokenizer *tokenizer,
                                             const char *const *texts, int32_t count,
                                             int32_t max_tokens, int threads, ct_token_store **out);
void ct_token_store_destroy(ct_token_store *store);

#endif
