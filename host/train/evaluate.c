#include "train/evaluate.h"

#include <stdlib.h>

#include "base/memory.h"

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

ct_status ct_evaluate(const ct_config *config, const ct_corpus *corpus, ct_clip *clip,
                      ct_split split, int threads, ct_interrupt *interrupt, ct_evaluation **out)
{
    ct_evaluation *evaluation = NULL;
    ct_photo_embeddings photos = {0};
    float *text = NULL;
    int32_t *owner = NULL, texts = 0;
    ct_status status;
    if (corpus->photo_count[split] == 0)
        return ct_fail(CT_ERR_CONFIG, "the %s split has no photos", ct_split_name(split));
    CT_TRY(ct_alloc(1, sizeof *evaluation, "an evaluation", &evaluation));
    CT_TRY_GOTO(status,
                ct_embed_photos(config, corpus->dataset, corpus->photos[split],
                                corpus->photo_count[split], clip, interrupt, &photos),
                done);
    if (photos.count == 0) {
        status = ct_fail(CT_ERR_IO, "none of the %d photos of the %s split can be read",
                         corpus->photo_count[split], ct_split_name(split));
        goto done;
    }
    CT_TRY_GOTO(status,
                list_captions(corpus->dataset, &photos, &evaluation->captions, &owner, &texts),
                done);
    CT_TRY_GOTO(
        status,
        ct_alloc((size_t)(texts * config->projection.dim), sizeof *text, "embeddings", &text),
        done);
    CT_TRY_GOTO(
        status,
        ct_embed_texts(config, corpus->tokens, evaluation->captions, texts, clip, interrupt, text),
        done);
    CT_TRY_GOTO(status,
                ct_retrieval_compute(photos.embedding, photos.count, text, texts,
                                     (int32_t)config->projection.dim, owner, threads,
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
