/* The merges that a vocabulary's training may make next, best first (inside this module only). */
#ifndef CT_TEXT_MERGE_QUEUE_H
#define CT_TEXT_MERGE_QUEUE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* Numbers of words, ascending. */
typedef struct ct_word_list {
    int32_t *items;
    size_t count, capacity;
} ct_word_list;

/* Join pieces `left` and `right`, adjacent `count` times in the captions, in `words`. */
typedef struct ct_merge {
    int64_t count;
    int32_t left, right;
    int32_t pair; /* the pair's number, for the owner */
    ct_word_list words;
} ct_merge;

/* A binary heap in an array: the higher count first, then the lower numbers of the pieces. Zeroed
 * at first; it owns the lists of words. */
typedef struct ct_merge_queue {
    ct_merge *heap;
    size_t count, capacity;
} ct_merge_queue;

/* Takes over merge.words when it succeeds. */
CT_NODISCARD ct_status ct_merge_queue_push(ct_merge_queue *queue, ct_merge merge);

/* Changes the count of the best merge, heap[0], which may then no longer be the best. */
void ct_merge_queue_correct(ct_merge_queue *queue, int64_t count);

/* Takes out the best merge; the caller frees its words.items. The queue must not be empty. */
ct_merge ct_merge_queue_pop(ct_merge_queue *queue);

void ct_merge_queue_free(ct_merge_queue *queue);

#endif
