#include "train/corpus.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"

static ct_status tokenize(ct_corpus *corpus, int32_t max_tokens, int threads)
{
    const ct_dataset *dataset = corpus->dataset;
    const char **texts;
    CT_TRY(ct_alloc((size_t)dataset->caption_count, sizeof *texts, "captions", &texts));
    for (int32_t c = 0; c < dataset->caption_count; c++) texts[c] = dataset->captions[c].text;
    ct_status status = ct_token_store_create(corpus->tokenizer, texts, dataset->caption_count,
                                             max_tokens, threads, &corpus->tokens);
    free(texts);
    return status;
}

/* A wrong folder would otherwise show as thousands of unreadable photos. */
static ct_status check_images_folder(const ct_config *config, const ct_dataset *dataset)
{
    char path[4096];
    if (!ct_file_exists(config->data.images))
        return ct_fail(CT_ERR_IO,
                       "data.images: %s: no such folder (relative paths start at the "
                       "current folder)",
                       config->data.images);
    for (int32_t p = 0; p < dataset->photo_count; p++) {
        snprintf(path, sizeof path, "%s/%s", config->data.images, dataset->photos[p].name);
        if (ct_file_exists(path)) return CT_OK;
    }
    return ct_fail(CT_ERR_IO, "data.images: %s: holds none of the %d photos that %s names, e.g. %s",
                   config->data.images, dataset->photo_count, config->data.captions,
                   dataset->photo_count ? dataset->photos[0].name : "");
}

ct_status ct_corpus_open(const ct_config *config, const ct_tokenizer *tokenizer, int threads,
                         ct_corpus **out)
{
    ct_corpus *corpus;
    ct_status status;
    CT_TRY(ct_alloc(1, sizeof *corpus, "the corpus", &corpus));
    corpus->tokenizer = tokenizer;
    CT_TRY_GOTO(status, ct_dataset_open(config, &corpus->dataset), fail);
    CT_TRY_GOTO(status, check_images_folder(config, corpus->dataset), fail);
    for (int s = CT_SPLIT_TRAIN; s <= CT_SPLIT_TEST; s++)
        CT_TRY_GOTO(status,
                    ct_dataset_photos(corpus->dataset, (ct_split)s, &corpus->photos[s],
                                      &corpus->photo_count[s]),
                    fail);
    CT_TRY_GOTO(status, tokenize(corpus, (int32_t)config->text.max_tokens, threads), fail);
    *out = corpus;
    return CT_OK;
fail:
    ct_corpus_destroy(corpus);
    return status;
}

/* FNV-1a, 64 bits (Fowler, Noll, Vo). */
static uint64_t mix(uint64_t hash, const void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ ((const uint8_t *)bytes)[i]) * UINT64_C(0x100000001b3);
    return hash;
}

uint64_t ct_corpus_hash(const ct_corpus *corpus)
{
    const ct_dataset *dataset = corpus->dataset;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (int32_t p = 0; p < dataset->photo_count; p++) {
        const ct_photo *photo = &dataset->photos[p];
        hash = mix(hash, photo->name, strlen(photo->name) + 1);
        for (int32_t c = 0; c < photo->caption_count; c++) {
            const char *text = dataset->captions[photo->first_caption + c].text;
            hash = mix(hash, text, strlen(text) + 1);
        }
    }
    for (int s = CT_SPLIT_TRAIN; s <= CT_SPLIT_TEST; s++)
        hash = mix(hash, corpus->photos[s],
                   (size_t)corpus->photo_count[s] * sizeof *corpus->photos[s]);
    return hash;
}

void ct_corpus_destroy(ct_corpus *corpus)
{
    if (!corpus) return;
    for (int s = CT_SPLIT_TRAIN; s <= CT_SPLIT_TEST; s++) free(corpus->photos[s]);
    ct_token_store_destroy(corpus->tokens);
    ct_dataset_destroy(corpus->dataset);
    free(corpus);
}
