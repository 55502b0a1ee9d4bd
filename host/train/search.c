#include "train/search.h"

#include <stdlib.h>

#include "base/memory.h"
#include "cpu/cpu.h"
#include "train/embed.h"

static ct_status embed_texts(ct_restored *restored, const ct_token_store *store, float *embedding)
{
    int32_t *order;
    CT_TRY(ct_alloc((size_t)store->count, sizeof *order, "texts", &order));
    for (int32_t t = 0; t < store->count; t++) order[t] = t;
    ct_status status = ct_embed_texts(restored->config, store, order, store->count, restored->clip,
                                      NULL, embedding);
    free(order);
    return status;
}

ct_status ct_search_run(ct_restored *restored, const ct_dataset *dataset, const int32_t *photos,
                        int32_t photo_count, const char *const *texts, int32_t text_count,
                        ct_search *out)
{
    const ct_config *config = restored->config;
    int32_t dim = (int32_t)config->projection.dim;
    ct_token_store *store = NULL;
    ct_photo_embeddings images = {0};
    float *text = NULL;
    ct_status status;
    *out = (ct_search){0};
    CT_TRY(ct_token_store_create(restored->tokenizer, texts, text_count,
                                 (int32_t)config->text.max_tokens, ct_cpu_count(), &store));
    CT_TRY_GOTO(status, ct_restored_build(restored, store->longest), done);
    CT_TRY_GOTO(status,
                ct_alloc((size_t)text_count * (size_t)dim, sizeof *text, "embeddings", &text),
                done);
    CT_TRY_GOTO(status, embed_texts(restored, store, text), done);
    CT_TRY_GOTO(
        status,
        ct_embed_photos(config, dataset, photos, photo_count, restored->clip, NULL, &images), done);
    if (images.count == 0) {
        status = ct_fail(CT_ERR_IO, "%s: none of the %d photos can be read", dataset->images,
                         photo_count);
        goto done;
    }
    CT_TRY_GOTO(status,
                ct_retrieval_compute(images.embedding, images.count, text, text_count, dim, NULL,
                                     restored->threads, &out->retrieval),
                done);
    out->photos = images.photos;
    images.photos = NULL;
done:
    free(text);
    ct_photo_embeddings_free(&images);
    ct_token_store_destroy(store);
    return status;
}

void ct_search_free(ct_search *search)
{
    ct_retrieval_destroy(search->retrieval);
    free(search->photos);
    *search = (ct_search){0};
}
