/* From a text to the words WordPiece cuts up (inside this module only): BERT's cleaning,
 * normalisation and splitting, the same for the tokenizer and for the vocabulary's training.
 *
 *   "A\tCafé, 東京!"  ──►  a | cafe | , | 東 | 京 | !     (lowercase)
 */
#ifndef CT_TEXT_WORDS_H
#define CT_TEXT_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* A word of more characters is not looked up: it is [UNK]. */
#define CT_WORD_MAX_CHARS 100

typedef struct ct_word {
    size_t start, bytes; /* in ct_words.text */
    size_t chars;
} ct_word;

/* Zeroed at first; reused from text to text so that its buffers grow to the longest and stay. */
typedef struct ct_words {
    char *text; /* the words' UTF-8, one after the other, nothing between */
    ct_word *words;
    size_t count;
    int32_t *points; /* normalised code points of a text that is not all ASCII */
    size_t point_count, run_start;
    size_t text_capacity, word_capacity, point_capacity;
} ct_words;

/* Replaces the words by those of text[0 .. size). */
CT_NODISCARD ct_status ct_words_split(ct_words *words, const char *text, size_t size,
                                      bool lowercase);

void ct_words_free(ct_words *words);

#endif
