#include "train/embed.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "loader/loader.h"

static ct_status check_interrupt(ct_interrupt *interrupt)
{
    if (ct_interrupt_pending(interrupt))
        return ct_fail(CT_ERR_INTERRUPTED, "stopped during evaluation");
    return CT_OK;
}

static ct_status embed_loaded(ct_loader *loader, ct_clip *clip, int64_t dim,
                              ct_interrupt *interrupt, ct_photo_embeddings *out)
{
    for (;;) {
        const ct_batch *batch;
        CT_TRY(check_interrupt(interrupt));
        CT_TRY(ct_loader_next(loader, &batch));
        if (!batch) return CT_OK;
        if (batch->count == 0) continue;
        ct_clip_input input = {.count = batch->count, .images = batch->images};
        CT_TRY(ct_clip_encode_images(clip, &input, out->embedding + out->count * dim));
        memcpy(out->photos + out->count, batch->photos, (size_t)batch->count * sizeof *out->photos);
        out->count += batch->count;
    }
}

ct_status ct_embed_photos(const ct_config *config, const ct_dataset *dataset, const int32_t *photos,
                          int32_t count, ct_clip *clip, ct_interrupt *interrupt,
                          ct_photo_embeddings *out)
{
    ct_loader *loader = NULL;
    ct_status status;
    int64_t dim = config->projection.dim;
    *out = (ct_photo_embeddings){0};
    CT_TRY_GOTO(status, ct_alloc((size_t)count, sizeof *out->photos, "photos", &out->photos), done);
    CT_TRY_GOTO(status,
                ct_alloc((size_t)(count * dim), sizeof(float), "embeddings", &out->embedding),
                done);
    CT_TRY_GOTO(status,
                ct_loader_create_evaluation(config, dataset, photos, count, ct_clip_pass_size(clip),
                                            &loader),
                done);
    CT_TRY_GOTO(status, embed_loaded(loader, clip, dim, interrupt, out), done);
done:
    ct_loader_destroy(loader);
    if (status != CT_OK) ct_photo_embeddings_free(out);
    return status;
}

void ct_photo_embeddings_free(ct_photo_embeddings *embeddings)
{
    free(embeddings->photos);
    free(embeddings->embedding);
    *embeddings = (ct_photo_embeddings){0};
}

/* Host copies of one batch of packed captions. */
typedef struct packed_texts {
    int32_t *tokens, *positions, *cu_seqlens;
} packed_texts;

static void pack(const ct_token_store *store, const int32_t *captions, int32_t count,
                 packed_texts *packed, ct_clip_input *input)
{
    int32_t total = 0, longest = 0;
    for (int32_t n = 0; n < count; n++) {
        int64_t begin = store->offset[captions[n]];
        int32_t length = (int32_t)(store->offset[captions[n] + 1] - begin);
        packed->cu_seqlens[n] = total;
        memcpy(packed->tokens + total, store->ids + begin, (size_t)length * sizeof *store->ids);
        for (int32_t i = 0; i < length; i++) packed->positions[total + i] = i;
        total += length;
        if (length > longest) longest = length;
    }
    packed->cu_seqlens[count] = total;
    *input = (ct_clip_input){.count = count,
                             .tokens = packed->tokens,
                             .positions = packed->positions,
                             .cu_seqlens = packed->cu_seqlens,
                             .total_tokens = total,
                             .max_seqlen = longest};
}

ct_status ct_embed_texts(const ct_config *config, const ct_token_store *store,
                         const int32_t *captions, int32_t count, ct_clip *clip,
                         ct_interrupt *interrupt, float *embedding)
{
    int32_t batch = ct_clip_pass_size(clip);
    size_t capacity = (size_t)batch * (size_t)store->longest;
    packed_texts packed = {0};
    ct_status status;
    CT_TRY_GOTO(status, ct_alloc(capacity, sizeof(int32_t), "tokens", &packed.tokens), done);
    CT_TRY_GOTO(status, ct_alloc(capacity, sizeof(int32_t), "positions", &packed.positions), done);
    CT_TRY_GOTO(status, ct_alloc((size_t)batch + 1, sizeof(int32_t), "offsets", &packed.cu_seqlens),
                done);
    for (int32_t first = 0; first < count; first += batch) {
        int32_t here = count - first < batch ? count - first : batch;
        ct_clip_input input;
        CT_TRY_GOTO(status, check_interrupt(interrupt), done);
        pack(store, captions + first, here, &packed, &input);
        CT_TRY_GOTO(status,
                    ct_clip_encode_texts(clip, &input, embedding + first * config->projection.dim),
                    done);
    }
done:
    free(packed.tokens);
    free(packed.positions);
    free(packed.cu_seqlens);
    return status;
}
