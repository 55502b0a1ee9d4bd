#include "support.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const good[] = {
    "baseline_420.jpg", "baseline_444.jpg", "progressive.jpg", "grey.jpg",
    "cmyk.jpg",         "restart.jpg",      "odd_17x15.jpg",   "exif_orientation.jpg",
};

void world_init(world *w)
{
    memset(w, 0, sizeof *w);
    w->config.seed = 11;
    w->config.threads = 2;
    w->config.data.max_bad_share = 0.2;
    w->config.image.size = SIZE;
    w->config.image.crop_scale[0] = 0.5;
    w->config.image.crop_scale[1] = 1.0;
    w->config.image.crop_ratio[0] = 0.75;
    w->config.image.crop_ratio[1] = 4.0 / 3.0;
    w->config.image.flip = 0.5;
    w->config.image.eval_resize = 1.15;
    w->config.train.batch_size = BATCH;
    for (int32_t p = 0; p < PHOTOS; p++) {
        w->all[p] = p;
        w->photos[p] = (ct_photo){.name = good[(size_t)p % (sizeof good / sizeof *good)],
                                  .first_caption = p * CAPTIONS_A_PHOTO,
                                  .caption_count = CAPTIONS_A_PHOTO};
    }
    for (int32_t c = 0; c < CAPTIONS; c++) {
        int32_t length = 2 + c % (MOST_TOKENS - 1);
        w->captions[c] = (ct_caption){.text = "", .photo = c / CAPTIONS_A_PHOTO};
        w->offset[c + 1] = w->offset[c] + length;
        for (int32_t i = 0; i < length; i++) w->ids[w->offset[c] + i] = c * 100 + i;
    }
    w->dataset = (ct_dataset){.photos = w->photos,
                              .captions = w->captions,
                              .photo_count = PHOTOS,
                              .caption_count = CAPTIONS,
                              .images = (char *)(uintptr_t)IMAGES_FOLDER};
    w->store = (ct_token_store){
        .ids = w->ids, .offset = w->offset, .count = CAPTIONS, .longest = MOST_TOKENS};
}

void world_break(world *w, int32_t index, const char *name)
{
    w->photos[index].name = name;
}

ct_loader *start_share(world *w, int64_t workers, int64_t first_step, ct_loader_share share)
{
    ct_loader *loader;
    w->config.data.workers = workers;
    assert_ok(ct_loader_create_training(&w->config, &w->dataset, &w->store, w->all, PHOTOS,
                                        first_step, share, &loader));
    return loader;
}

ct_loader *start_training(world *w, int64_t workers, int64_t prefetch, int64_t first_step)
{
    w->config.data.prefetch = prefetch;
    return start_share(w, workers, first_step, (ct_loader_share){0, 1});
}

ct_loader *start_evaluation(world *w, int64_t workers, int64_t prefetch)
{
    ct_loader *loader;
    w->config.data.workers = workers;
    w->config.data.prefetch = prefetch;
    assert_ok(ct_loader_create_evaluation(&w->config, &w->dataset, w->all, PHOTOS, BATCH, &loader));
    return loader;
}

const ct_batch *next_batch(ct_loader *loader)
{
    const ct_batch *batch;
    assert_ok(ct_loader_next(loader, &batch));
    assert_non_null(batch);
    return batch;
}

/* FNV-1a. */
static uint64_t mix(uint64_t hash, const void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ ((const uint8_t *)bytes)[i]) * UINT64_C(1099511628211);
    return hash;
}

uint64_t digest(const ct_batch *batch)
{
    uint64_t hash = UINT64_C(14695981039346656037);
    size_t count = (size_t)batch->count, tokens = (size_t)batch->total_tokens;
    hash = mix(hash, &batch->step, sizeof batch->step);
    hash = mix(hash, &batch->epoch, sizeof batch->epoch);
    hash = mix(hash, batch->photos, count * sizeof *batch->photos);
    hash = mix(hash, batch->images, count * IMAGE_BYTES);
    if (!batch->captions) return hash;
    hash = mix(hash, batch->captions, count * sizeof *batch->captions);
    hash = mix(hash, batch->tokens, tokens * sizeof *batch->tokens);
    hash = mix(hash, batch->positions, tokens * sizeof *batch->positions);
    return mix(hash, batch->cu_seqlens, (count + 1) * sizeof *batch->cu_seqlens);
}
