/* Photos and captions to unit embeddings on the host, in batches of the model's size. */
#ifndef CT_TRAIN_EMBED_H
#define CT_TRAIN_EMBED_H

#include "base/interrupt.h"
#include "config/config.h"
#include "data/dataset.h"
#include "model/clip.h"
#include "text/tokenizer.h"

/* Photos of a data set that could be read, and their embeddings. */
typedef struct ct_photo_embeddings {
    int32_t count;
    int32_t *photos;  /* (count) index into the dataset; unreadable ones are missing */
    float *embedding; /* (count, dim) */
} ct_photo_embeddings;

/* interrupt may be NULL; when it is pending CT_ERR_INTERRUPTED is returned. */
CT_NODISCARD ct_status ct_embed_photos(const ct_config *config, const ct_dataset *dataset,
                                       const int32_t *photos, int32_t count, ct_clip *clip,
                                       ct_interrupt *interrupt, ct_photo_embeddings *out);
void ct_photo_embeddings_free(ct_photo_embeddings *embeddings);

/* embedding (count, dim): of captions `captions[i]` of the store. The model's token limit must be
 * at least config->train.batch_size times the store's longest. */
CT_NODISCARD ct_status ct_embed_texts(const ct_config *config, const ct_token_store *store,
                                      const int32_t *captions, int32_t count, ct_clip *clip,
                                      ct_interrupt *interrupt, float *embedding);

#endif
