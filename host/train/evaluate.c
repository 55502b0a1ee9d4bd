#include "train/evaluate.h"

#include <stdlib.h>

#include "base/memory.h"
#include "train/gather.h"

/* Lists the photos' captions in rows: captions[row], and owner[row] the photo's row. */
static ct_status list_captions(const ct_dataset *dataset, const ct_photo_embeddings *photos,
                               int32_t **captions, int32_t **owner, int32_t *count)
{
    int32_t total = 0;
    for (int32_t i = 0; i < photos->count; i++)
        total += dataset->photos[photos->photos[i]].caption_count;
    CT_TRY(ct_alloc((size_t)total, sizeof **captions, "captions", captions));
    CT_TRY(ct_alloc((size_t)total, sizeof **owner, "captions", owner));
    *count = 0;
    for (int32_t i = 0; i < photos->count; i++) {
        const ct_photo *photo = &dataset->photos[photos->photos[i]];
        for (int32_t k = 0; k < photo->caption_count; k++) {
            (*captions)[*count] = photo->first_caption + k;
            (*owner)[(*count)++] = i;
        }
    }
    return CT_OK;
}

/* *photos = the split's photos that can be read, in its order: each rank encodes a part. */
static ct_status embed_photos(const ct_config *config, const ct_corpus *corpus, ct_clip *clip,
                              ct_split split, ct_comm *comm, ct_interrupt *interrupt,
                              ct_photo_embeddings *photos)
{
    const ct_part part = ct_part_of(comm, corpus->photo_count[split]);
    const size_t row = (size_t)config->projection.dim * sizeof(float);
    ct_photo_embeddings own = {0};
    int64_t total = 0;
    CT_TRY(ct_embed_photos(config, corpus->dataset, corpus->photos[split] + part.begin,
                           (int32_t)(part.end - part.begin), clip, interrupt, &own));
    ct_status status =
        ct_gather_rows(comm, own.photos, own.count, sizeof *own.photos, &photos->photos, &total);
    own.photos = NULL; /* taken over, as is embedding */
    if (status == CT_OK) {
        status = ct_gather_rows(comm, own.embedding, own.count, row, &photos->embedding, &total);
        own.embedding = NULL;
    }
    ct_photo_embeddings_free(&own);
    photos->count = (int32_t)total;
    if (status == CT_OK && total == 0)
        status = ct_fail(CT_ERR_IO, "none of the %d photos of the %s split can be read",
                         corpus->photo_count[split], ct_split_name(split));
    return status;
}

/* *embedding (count, dim): each rank encodes a part of the captions. */
static ct_status embed_texts(const ct_config *config, const ct_corpus *corpus, ct_clip *clip,
                             const int32_t *captions, int32_t count, ct_comm *comm,
                             ct_interrupt *interrupt, float **embedding)
{
    const ct_part part = ct_part_of(comm, count);
    const int64_t own_count = part.end - part.begin;
    const size_t row = (size_t)config->projection.dim * sizeof(float);
    int64_t total;
    float *own;
    CT_TRY(ct_alloc((size_t)own_count, row, "embeddings", &own));
    const ct_status status = ct_embed_texts(config, corpus->tokens, captions + part.begin,
                                            (int32_t)own_count, clip, interrupt, own);
    if (status != CT_OK) {
        free(own);
        return status;
    }
    return ct_gather_rows(comm, own, own_count, row, embedding, &total);
}

ct_status ct_evaluate(const ct_config *config, const ct_corpus *corpus, ct_clip *clip,
                      ct_split split, int threads, ct_comm *comm, ct_interrupt *interrupt,
                      ct_evaluation **out)
{
    ct_evaluation *evaluation = NULL;
    ct_photo_embeddings photos = {0};
    float *text = NULL;
    int32_t *owner = NULL, texts = 0;
    ct_status status;
    if (corpus->photo_count[split] == 0)
        return ct_fail(CT_ERR_CONFIG, "the %s split has no photos", ct_split_name(split));
    CT_TRY(ct_alloc(1, sizeof *evaluation, "an evaluation", &evaluation));
    CT_TRY_GOTO(status, embed_photos(config, corpus, clip, split, comm, interrupt, &photos), done);
    CT_TRY_GOTO(status,
                list_captions(corpus->dataset, &photos, &evaluation->captions, &owner, &texts),
                done);
    CT_TRY_GOTO(
        status,
        embed_texts(config, corpus, clip, evaluation->captions, texts, comm, interrupt, &text),
        done);
    CT_TRY_GOTO(status,
                ct_retrieval_compute_shared(photos.embedding, photos.count, text, texts,
                                            (int32_t)config->projection.dim, owner, threads, comm,
                                            &evaluation->retrieval),
                done);
    evaluation->photos = photos.photos;
    photos.photos = NULL;
    *out = evaluation;
done:
    free(text);
    free(owner);
    ct_photo_embeddings_free(&photos);
    if (status != CT_OK) ct_evaluation_destroy(evaluation);
    return status;
}

void ct_evaluation_destroy(ct_evaluation *evaluation)
{
    if (!evaluation) return;
    ct_retrieval_destroy(evaluation->retrieval);
    free(evaluation->photos);
    free(evaluation->captions);
    free(evaluation);
}
