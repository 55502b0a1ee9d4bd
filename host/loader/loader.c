#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "loader/state.h"

/* ---- creation ---- */

static ct_status create_ring(ct_loader *loader, int64_t prefetch)
{
    int32_t size = (int32_t)loader->config->image.size;
    int32_t longest = loader->store ? loader->store->longest : 0;
    CT_TRY(ct_alloc((size_t)prefetch, sizeof *loader->slots, "the batches", &loader->slots));
    for (; loader->ring < prefetch; loader->ring++)
        CT_TRY(ct_slot_create(&loader->slots[loader->ring], loader->batch_size, size, longest));
    return CT_OK;
}

/* Takes the loader over: it is destroyed when the rest of its creation fails. */
static ct_status start(ct_loader *loader, ct_loader **out)
{
    ct_status status = create_ring(loader, loader->config->data.prefetch);
    if (status == CT_OK)
        status = ct_alloc((size_t)loader->dataset->photo_count, sizeof *loader->bad,
                          "the unreadable photos", &loader->bad);
    if (status == CT_OK) status = ct_workers_start(loader);
    if (status == CT_OK) *out = loader;
    else ct_loader_destroy(loader);
    return status;
}

static ct_status create(const ct_config *config, const ct_dataset *dataset, int64_t batch_size,
                        int32_t photo_count, ct_loader **out)
{
    ct_loader *loader;
    CT_TRY(ct_alloc(1, sizeof *loader, "a loader", &loader));
    loader->config = config;
    loader->dataset = dataset;
    loader->photo_count = photo_count;
    loader->batch_size = (int32_t)batch_size;
    pthread_mutex_init(&loader->mutex, NULL);
    pthread_cond_init(&loader->work, NULL);
    pthread_cond_init(&loader->ready, NULL);
    *out = loader;
    return CT_OK;
}

ct_status ct_loader_create_training(const ct_config *config, const ct_dataset *dataset,
                                    const ct_token_store *store, const int32_t *photos,
                                    int32_t photo_count, int64_t first_step, ct_loader_share share,
                                    ct_loader **out)
{
    ct_loader *loader;
    const int64_t batch = config->train.batch_size;
    CT_TRY(create(config, dataset, batch / share.ranks, photo_count, &loader));
    loader->first_slot = share.rank * loader->batch_size;
    loader->store = store;
    loader->first_step = first_step;
    loader->batch_limit = INT64_MAX;
    ct_status status = ct_sampler_create(dataset, photos, photo_count, (int32_t)batch,
                                         (uint64_t)config->seed, &loader->sampler);
    if (status == CT_OK) return start(loader, out);
    ct_loader_destroy(loader);
    return status;
}

ct_status ct_loader_create_evaluation(const ct_config *config, const ct_dataset *dataset,
                                      const int32_t *photos, int32_t photo_count,
                                      int32_t batch_size, ct_loader **out)
{
    ct_loader *loader;
    CT_TRY(create(config, dataset, batch_size, photo_count, &loader));
    loader->batch_limit = (photo_count + (int64_t)batch_size - 1) / batch_size;
    ct_status status = ct_alloc((size_t)photo_count, sizeof *photos, "photos", &loader->photos);
    if (status != CT_OK) {
        ct_loader_destroy(loader);
        return status;
    }
    if (photo_count) memcpy(loader->photos, photos, (size_t)photo_count * sizeof *photos);
    return start(loader, out);
}

void ct_loader_destroy(ct_loader *loader)
{
    if (!loader) return;
    ct_workers_stop(loader);
    for (int32_t i = 0; i < loader->ring; i++) ct_slot_destroy(&loader->slots[i]);
    free(loader->slots);
    free(loader->bad);
    free(loader->photos);
    ct_sampler_destroy(loader->sampler);
    pthread_cond_destroy(&loader->ready);
    pthread_cond_destroy(&loader->work);
    pthread_mutex_destroy(&loader->mutex);
    free(loader);
}

/* ---- the consumer's side ---- */

/* Gives the lent batch's slot back to the workers. Mutex held. */
static void release(ct_loader *loader)
{
    if (!loader->lent) return;
    loader->lent = false;
    loader->slots[loader->released % loader->ring].ready = false;
    loader->released++;
    pthread_cond_broadcast(&loader->work);
}

/* The oldest batch, waited for; NULL behind the last one and on failure. Mutex held. */
static ct_slot *wait_for_batch(ct_loader *loader)
{
    if (loader->released >= loader->batch_limit) return NULL;
    ct_slot *slot = &loader->slots[loader->released % loader->ring];
    double began = ct_clock_seconds();
    while (!slot->ready && loader->failure == CT_OK)
        pthread_cond_wait(&loader->ready, &loader->mutex);
    loader->wait_seconds += ct_clock_seconds() - began;
    return loader->failure == CT_OK ? slot : NULL;
}

ct_status ct_loader_next(ct_loader *loader, const ct_batch **batch)
{
    *batch = NULL;
    pthread_mutex_lock(&loader->mutex);
    ct_slot *slot;
    do { /* an evaluation's batch of unreadable photos only is passed over */
        release(loader);
        slot = wait_for_batch(loader);
        loader->lent = slot != NULL;
    } while (slot && slot->batch.count == 0);
    ct_status status = loader->failure;
    if (status != CT_OK) status = ct_fail(status, "%s", loader->failure_text);
    pthread_mutex_unlock(&loader->mutex);
    if (slot) *batch = &slot->batch;
    return status;
}

ct_loader_stats ct_loader_get_stats(ct_loader *loader)
{
    pthread_mutex_lock(&loader->mutex);
    ct_loader_stats stats = {.wait_seconds = loader->wait_seconds,
                             .bad_photos = loader->bad_count,
                             .steps_per_epoch = loader->sampler
                                                    ? ct_sampler_steps_per_epoch(loader->sampler)
                                                    : loader->batch_limit};
    pthread_mutex_unlock(&loader->mutex);
    return stats;
}
