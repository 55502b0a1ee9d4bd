#include "loader/batch.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

static size_t image_bytes(int32_t size)
{
    return (size_t)size * (size_t)size * 3;
}

static ct_status allocate(ct_slot *slot, size_t batch_size, int32_t size, size_t longest)
{
    ct_batch *batch = &slot->batch;
    size_t most_tokens = batch_size * longest;
    CT_TRY(ct_alloc(batch_size, image_bytes(size), "a batch's photos", &batch->images));
    CT_TRY(ct_alloc(batch_size, sizeof *batch->photos, "a batch", &batch->photos));
    CT_TRY(ct_alloc(batch_size, sizeof *slot->readable, "a batch", &slot->readable));
    if (!longest) return CT_OK;
    CT_TRY(ct_alloc(batch_size, sizeof *batch->captions, "a batch", &batch->captions));
    CT_TRY(ct_alloc(most_tokens, sizeof *batch->tokens, "a batch's tokens", &batch->tokens));
    CT_TRY(ct_alloc(most_tokens, sizeof *batch->positions, "a batch's tokens", &batch->positions));
    return ct_alloc(batch_size + 1, sizeof *batch->cu_seqlens, "a batch", &batch->cu_seqlens);
}

ct_status ct_slot_create(ct_slot *slot, int32_t batch_size, int32_t size, int32_t longest)
{
    *slot = (ct_slot){0};
    ct_status status = allocate(slot, (size_t)batch_size, size, (size_t)longest);
    if (status != CT_OK) ct_slot_destroy(slot);
    return status;
}

void ct_slot_destroy(ct_slot *slot)
{
    free(slot->batch.images);
    free(slot->batch.photos);
    free(slot->batch.captions);
    free(slot->batch.tokens);
    free(slot->batch.positions);
    free(slot->batch.cu_seqlens);
    free(slot->readable);
    *slot = (ct_slot){0};
}

void ct_slot_pack(ct_slot *slot, const ct_token_store *store)
{
    ct_batch *batch = &slot->batch;
    batch->count = slot->planned;
    batch->max_seqlen = 0;
    int32_t used = 0;
    for (int32_t n = 0; n < batch->count; n++) {
        const int64_t *offset = store->offset + batch->captions[n];
        int32_t length = (int32_t)(offset[1] - offset[0]);
        memcpy(batch->tokens + used, store->ids + offset[0], (size_t)length * sizeof *store->ids);
        for (int32_t i = 0; i < length; i++) batch->positions[used + i] = i;
        batch->cu_seqlens[n] = used;
        used += length;
        if (length > batch->max_seqlen) batch->max_seqlen = length;
    }
    batch->cu_seqlens[batch->count] = used;
    batch->total_tokens = used;
}

void ct_slot_compact(ct_slot *slot, int32_t size)
{
    ct_batch *batch = &slot->batch;
    size_t bytes = image_bytes(size);
    batch->count = 0;
    for (int32_t n = 0; n < slot->planned; n++) {
        if (!slot->readable[n]) continue;
        if (n > batch->count)
            memcpy(batch->images + (size_t)batch->count * bytes, batch->images + (size_t)n * bytes,
                   bytes);
        batch->photos[batch->count++] = batch->photos[n];
    }
}
