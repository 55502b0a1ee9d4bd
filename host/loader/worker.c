/* The worker threads: claim a position, decode its photo, complete the batch if it was the last. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "image/image.h"
#include "loader/state.h"

#define MOST_WORKERS 1024

/* One worker's own state. */
typedef struct worker {
    ct_loader *loader;
    ct_decoder *decoder;
    char *path;
    size_t path_capacity;
} worker;

/* A position of a batch to fill. */
typedef struct claim {
    ct_slot *slot;
    int64_t step;
    int32_t position;
    ct_sample sample;
} claim;

/* Keeps the first failure; the thread's present message is its text. Mutex held. */
static void fail(ct_loader *loader, ct_status status)
{
    if (loader->failure == CT_OK) {
        loader->failure = status;
        snprintf(loader->failure_text, sizeof loader->failure_text, "%s", ct_error_message());
    }
    loader->stop = true;
    pthread_cond_broadcast(&loader->work);
    pthread_cond_broadcast(&loader->ready);
}

/* ---- claiming ---- */

static void begin_batch(ct_loader *loader, ct_slot *slot)
{
    int64_t first = loader->claimed * loader->batch_size;
    slot->planned = loader->batch_size;
    if (!loader->sampler && loader->photo_count - first < slot->planned)
        slot->planned = (int32_t)(loader->photo_count - first);
    slot->remaining = slot->planned;
    slot->ready = false;
    slot->batch.step = loader->first_step + loader->claimed;
    slot->batch.epoch =
        loader->sampler ? slot->batch.step / ct_sampler_steps_per_epoch(loader->sampler) : 0;
}

static ct_sample sample_of(ct_loader *loader, const claim *work, int32_t attempt)
{
    if (loader->sampler)
        return ct_sampler_get(loader->sampler, work->step, loader->first_slot + work->position,
                              attempt);
    int64_t index = work->step * loader->batch_size + work->position;
    return (ct_sample){.photo = loader->photos[index], .caption = -1};
}

/* Waits for a free position; false when there will be none. Mutex held. */
static bool claim_next(ct_loader *loader, claim *work)
{
    while (!loader->stop && loader->claimed < loader->batch_limit &&
           loader->claimed >= loader->released + loader->ring)
        pthread_cond_wait(&loader->work, &loader->mutex);
    if (loader->stop || loader->claimed >= loader->batch_limit) return false;
    work->slot = &loader->slots[loader->claimed % loader->ring];
    if (loader->claimed_next == 0) begin_batch(loader, work->slot);
    work->step = work->slot->batch.step;
    work->position = loader->claimed_next++;
    work->sample = sample_of(loader, work, 0);
    if (loader->claimed_next == work->slot->planned) {
        loader->claimed++;
        loader->claimed_next = 0;
    }
    return true;
}

/* ---- unreadable photos ---- */

/* Marks the photo; true when it was not known to be bad. The thread's message says why it is.
 * Training fails when there are too many. Mutex held. */
static bool note_bad(ct_loader *loader, int32_t photo)
{
    if (loader->bad[photo]) return false;
    loader->bad[photo] = true;
    loader->bad_count++;
    double share = loader->config->data.max_bad_share;
    if (loader->sampler && loader->bad_count > share * loader->photo_count)
        fail(loader, ct_fail_context(CT_ERR_FORMAT,
                                     "%d of %d photos could not be read, more than "
                                     "data.max_bad_share = %g allows; the last one",
                                     loader->bad_count, loader->photo_count, share));
    return true;
}

/* Decides what follows an unreadable photo; true when the position has a substitute. */
static bool substitute(ct_loader *loader, claim *work, int32_t attempt)
{
    char reason[1024];
    snprintf(reason, sizeof reason, "%s", ct_error_message());
    pthread_mutex_lock(&loader->mutex);
    bool first_time = note_bad(loader, work->sample.photo);
    bool again = loader->sampler && !loader->stop;
    if (again && attempt >= loader->photo_count) {
        fail(loader, ct_fail(CT_ERR_FORMAT, "none of %d photos could be read; the last one: %s",
                             loader->photo_count, reason));
        again = false;
    }
    if (again) work->sample = sample_of(loader, work, attempt + 1);
    pthread_mutex_unlock(&loader->mutex);
    if (first_time)
        ct_log(CT_LOG_WARNING, "%s (photo %s)", reason,
               loader->sampler ? "replaced by another" : "left out");
    return again;
}

/* ---- decoding ---- */

static ct_status load_photo(worker *self, const ct_sample *sample, uint8_t *out)
{
    const ct_loader *loader = self->loader;
    const char *folder = loader->dataset->images;
    const char *name = loader->dataset->photos[sample->photo].name;
    size_t bytes = strlen(folder) + strlen(name) + 2;
    CT_TRY(ct_grow(&self->path, &self->path_capacity, bytes, 1, "a file name"));
    snprintf(self->path, bytes, "%s/%s", folder, name);
    if (!loader->sampler) return ct_image_load_eval(self->decoder, self->path, loader->config, out);
    ct_rng_key key = ct_rng_make((uint64_t)loader->config->seed, CT_RNG_AUGMENT,
                                 (uint64_t)sample->epoch, (uint64_t)sample->photo);
    return ct_image_load_training(self->decoder, self->path, loader->config, key, out);
}

/* Fills the position. A photo known to be bad is tried again all the same: whether a crop meets the
 * damage differs from epoch to epoch, and what a batch holds must not depend on where the run
 * began. */
static ct_status fill(worker *self, claim *work)
{
    ct_loader *loader = self->loader;
    ct_batch *batch = &work->slot->batch;
    size_t size = (size_t)loader->config->image.size;
    uint8_t *out = batch->images + (size_t)work->position * size * size * 3;
    bool readable = false;
    for (int32_t attempt = 0; !readable; attempt++) {
        ct_status status = load_photo(self, &work->sample, out);
        readable = status == CT_OK;
        if (status == CT_ERR_MEMORY) return status;
        if (!readable && !substitute(loader, work, attempt)) break;
    }
    work->slot->readable[work->position] = readable;
    batch->photos[work->position] = work->sample.photo;
    if (batch->captions) batch->captions[work->position] = work->sample.caption;
    return CT_OK;
}

/* Counts a position as done; the last one completes the batch, alone by then, without the mutex. */
static void complete(ct_loader *loader, ct_slot *slot)
{
    pthread_mutex_lock(&loader->mutex);
    bool last = --slot->remaining == 0 && !loader->stop;
    pthread_mutex_unlock(&loader->mutex);
    if (!last) return;
    if (loader->sampler) ct_slot_pack(slot, loader->store);
    else ct_slot_compact(slot, (int32_t)loader->config->image.size);
    pthread_mutex_lock(&loader->mutex);
    slot->ready = true;
    pthread_cond_signal(&loader->ready);
    pthread_mutex_unlock(&loader->mutex);
}

static ct_status work_on(worker *self)
{
    ct_loader *loader = self->loader;
    CT_TRY(ct_decoder_create(&self->decoder));
    for (claim work;;) {
        pthread_mutex_lock(&loader->mutex);
        bool more = claim_next(loader, &work);
        pthread_mutex_unlock(&loader->mutex);
        if (!more) return CT_OK;
        CT_TRY(fill(self, &work));
        complete(loader, work.slot);
    }
}

static void *worker_main(void *argument)
{
    worker self = {.loader = argument};
    ct_status status = work_on(&self);
    if (status != CT_OK) {
        pthread_mutex_lock(&self.loader->mutex);
        fail(self.loader, status);
        pthread_mutex_unlock(&self.loader->mutex);
    }
    ct_decoder_destroy(self.decoder);
    free(self.path);
    return NULL;
}

/* ---- starting and stopping ---- */

static int32_t worker_count(const ct_config *config)
{
    cpu_set_t allowed;
    int64_t count = config->data.workers ? config->data.workers : config->threads;
    if (count == 0 && sched_getaffinity(0, sizeof allowed, &allowed) == 0)
        count = CPU_COUNT(&allowed);
    return (int32_t)(count < 1 ? 1 : count > MOST_WORKERS ? MOST_WORKERS : count);
}

static ct_status start_all(ct_loader *loader, int32_t count)
{
    for (; loader->thread_count < count; loader->thread_count++) {
        char name[16]; /* the kernel's limit */
        pthread_t *thread = &loader->threads[loader->thread_count];
        errno = pthread_create(thread, NULL, worker_main, loader);
        if (errno)
            return ct_fail_errno(CT_ERR_MEMORY, "cannot start decoding thread %d of %d",
                                 loader->thread_count + 1, count);
        snprintf(name, sizeof name, "ct-loader-%d", loader->thread_count % 10000);
        pthread_setname_np(*thread, name);
    }
    return CT_OK;
}

/* Threads inherit the mask: signals are the main thread's business. */
ct_status ct_workers_start(ct_loader *loader)
{
    sigset_t all, before;
    int32_t count = worker_count(loader->config);
    CT_TRY(ct_alloc((size_t)count, sizeof *loader->threads, "threads", &loader->threads));
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    ct_status status = start_all(loader, count);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}

void ct_workers_stop(ct_loader *loader)
{
    pthread_mutex_lock(&loader->mutex);
    loader->stop = true;
    pthread_cond_broadcast(&loader->work);
    pthread_mutex_unlock(&loader->mutex);
    for (int32_t i = 0; i < loader->thread_count; i++) pthread_join(loader->threads[i], NULL);
    free(loader->threads);
}
