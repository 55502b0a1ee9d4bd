/* Inside of the loader: what the consumer and the workers share.
 *
 * Batches are counted from 0 at the loader's creation; batch b lives in slot b % ring of the ring.
 *
 *   0 ........ released ............ claimed ........ released + ring
 *    (given back)   | ready or in the making |   (free slots)   |
 *
 * Workers claim one position of batch `claimed` at a time. Everything but a claimed position's
 * memory is touched with the mutex held. */
#ifndef CT_LOADER_STATE_H
#define CT_LOADER_STATE_H

#include <pthread.h>
#include <stdbool.h>

#include "loader/batch.h"

struct ct_loader {
    const ct_config *config; /* borrowed, as the next two */
    const ct_dataset *dataset;
    const ct_token_store *store; /* NULL: evaluation */
    ct_sampler *sampler;         /* training */
    int32_t *photos;             /* (photo_count) evaluation */
    int32_t photo_count;
    int32_t batch_size; /* photos of a batch that this loader makes */
    int32_t first_slot; /* training: the sampler's slot of its first photo */
    int64_t first_step;
    int64_t batch_limit; /* batches in all */

    pthread_mutex_t mutex;
    pthread_cond_t work;  /* a slot was given back, or the loader stops */
    pthread_cond_t ready; /* a batch is complete, or the loader failed */

    ct_slot *slots; /* (ring) */
    int32_t ring;
    int64_t released;     /* batches that the consumer gave back */
    int64_t claimed;      /* the batch whose positions are handed out */
    int32_t claimed_next; /* its next position */
    bool lent;            /* the consumer holds batch `released` */
    bool stop;            /* workers must end */
    ct_status failure;    /* of a worker; kept */
    char failure_text[1024];
    bool *bad; /* (dataset photos) found unreadable */
    int32_t bad_count;
    double wait_seconds;

    pthread_t *threads;
    int32_t thread_count; /* those that were started */
};

/* Starts config->data.workers threads (0: one a processor or compute thread). */
CT_NODISCARD ct_status ct_workers_start(ct_loader *loader);

/* Ends and joins those that were started. */
void ct_workers_stop(ct_loader *loader);

#endif
