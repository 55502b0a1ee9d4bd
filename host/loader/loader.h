/* Batches of decoded photos and packed captions, made by worker threads ahead of the trainer.
 *
 *   workers ──► ring of `prefetch` batches ──► ct_loader_next (in step order)
 *
 * Work is handed out a photo at a time, in order, so the batch that is needed first is ready first.
 * What a batch holds depends on the step alone, never on timing or the number of workers. All
 * memory is allocated at creation. */
#ifndef CT_LOADER_LOADER_H
#define CT_LOADER_LOADER_H

#include <stdint.h>

#include "config/config.h"
#include "data/dataset.h"
#include "data/sampler.h"
#include "text/tokenizer.h"

/* Captions are never padded: sequence n is tokens[cu_seqlens[n] .. cu_seqlens[n + 1]). */
typedef struct ct_batch {
    int64_t step; /* training: the step; evaluation: the batch's number */
    int64_t epoch;
    int32_t count;       /* photos: N; the last evaluation batch may be smaller */
    int32_t *photos;     /* (N) index into the dataset: also the loss's photo ids */
    uint8_t *images;     /* (N, size, size, 3) */
    int32_t *captions;   /* (N) index into the dataset; training only */
    int32_t *tokens;     /* (total_tokens) training only */
    int32_t *positions;  /* (total_tokens) position within its sequence */
    int32_t *cu_seqlens; /* (N + 1) */
    int32_t total_tokens, max_seqlen;
} ct_batch;

typedef struct ct_loader ct_loader;

/* Which part of each batch a loader makes. */
typedef struct ct_loader_share {
    int rank, ranks; /* photos [rank B/ranks, (rank + 1) B/ranks) of a batch of B */
} ct_loader_share;

/* config, dataset and store are borrowed and must outlive the loader. Training: endless from
 * first_step; all ranks' parts together are what one rank would get. train.batch_size is a multiple
 * of share.ranks. A photo that cannot be read is reported once by name and replaced by the
 * sampler's substitute; when more than data.max_bad_share of the photos have failed, ct_loader_next
 * fails with the count and the last one's message. */
CT_NODISCARD ct_status ct_loader_create_training(const ct_config *config, const ct_dataset *dataset,
                                                 const ct_token_store *store, const int32_t *photos,
                                                 int32_t photo_count, int64_t first_step,
                                                 ct_loader_share share, ct_loader **out);

/* Evaluation: each photo once, in the given order, centre-cropped; unreadable ones are reported
 * and left out (their batches are smaller). No captions. */
CT_NODISCARD ct_status ct_loader_create_evaluation(const ct_config *config,
                                                   const ct_dataset *dataset, const int32_t *photos,
                                                   int32_t photo_count, int32_t batch_size,
                                                   ct_loader **out);

/* Stops and joins the workers at once, also with batches in the making. */
void ct_loader_destroy(ct_loader *loader);

/* *batch = the next batch, borrowed until the next call or destroy; NULL after the last one of an
 * evaluation. Waits for it if it must. One consumer thread. */
CT_NODISCARD ct_status ct_loader_next(ct_loader *loader, const ct_batch **batch);

typedef struct ct_loader_stats {
    double wait_seconds;     /* time ct_loader_next spent waiting, since creation */
    int32_t bad_photos;      /* distinct photos that could not be read */
    int64_t steps_per_epoch; /* training: of the sampler; evaluation: batches in all */
} ct_loader_stats;
ct_loader_stats ct_loader_get_stats(ct_loader *loader);

#endif
