/* All that a run reads from disk before it starts: captions, splits, tokenizer, packed tokens. */
#ifndef CT_TRAIN_CORPUS_H
#define CT_TRAIN_CORPUS_H

#include "config/config.h"
#include "data/dataset.h"
#include "text/tokenizer.h"

typedef struct ct_corpus {
    ct_dataset *dataset;
    const ct_tokenizer *tokenizer; /* borrowed */
    ct_token_store *tokens;        /* every caption's */
    int32_t *photos[3];            /* by ct_split, ascending */
    int32_t photo_count[3];
} ct_corpus;

/* The tokenizer is borrowed and must outlive the corpus. threads: for tokenizing. */
CT_NODISCARD ct_status ct_corpus_open(const ct_config *config, const ct_tokenizer *tokenizer,
                                      int threads, ct_corpus **out);

/* Of all names, captions and splits: equal where the corpus is. */
uint64_t ct_corpus_hash(const ct_corpus *corpus);
void ct_corpus_destroy(ct_corpus *corpus);

#endif
