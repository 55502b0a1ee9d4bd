#include "text/merge_queue.h"

#include <stdbool.h>
#include <stdlib.h>

#include "base/memory.h"

static bool better(const ct_merge *a, const ct_merge *b)
{
    if (a->count != b->count) return a->count > b->count;
    return a->left != b->left ? a->left < b->left : a->right < b->right;
}

static void sift_down(ct_merge_queue *queue)
{
    ct_merge *heap = queue->heap, moved = heap[0];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < queue->count; at = child) {
        if (child + 1 < queue->count && better(&heap[child + 1], &heap[child])) child++;
        if (!better(&heap[child], &moved)) break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

ct_status ct_merge_queue_push(ct_merge_queue *queue, ct_merge merge)
{
    CT_TRY(ct_grow(&queue->heap, &queue->capacity, queue->count + 1, sizeof merge,
                   "vocabulary merges"));
    size_t at = queue->count++;
    for (; at && better(&merge, &queue->heap[(at - 1) / 2]); at = (at - 1) / 2)
        queue->heap[at] = queue->heap[(at - 1) / 2];
    queue->heap[at] = merge;
    return CT_OK;
}

void ct_merge_queue_correct(ct_merge_queue *queue, int64_t count)
{
    queue->heap[0].count = count;
    sift_down(queue);
}

ct_merge ct_merge_queue_pop(ct_merge_queue *queue)
{
    ct_merge best = queue->heap[0];
    queue->heap[0] = queue->heap[--queue->count];
    sift_down(queue);
    return best;
}

void ct_merge_queue_free(ct_merge_queue *queue)
{
    for (size_t i = 0; i < queue->count; i++) free(queue->heap[i].words.items);
    free(queue->heap);
    *queue = (ct_merge_queue){0};
}
