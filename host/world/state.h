/* The inside of a job, for the files of this folder.
 *
 * One mutex guards it all. The watching thread holds it but for its poll(2); sockets never block,
 * so nobody holds it long. The calling thread sends by itself, and sleeps on `changed` for what the
 * watching thread receives. */
#ifndef CT_WORLD_STATE_H
#define CT_WORLD_STATE_H

#include <pthread.h>

#include "world/job.h"
#include "world/link.h"

#define CT_REASON_BYTES  1000 /* of a failure's message */
#define CT_NUMBERS_MAX   8
#define CT_ALIVE_SECONDS 1.0

typedef enum ct_failure_kind {
    CT_FAILURE_WORD,  /* the rank itself said so, and prints */
    CT_FAILURE_DEATH, /* its connection ended; our own launcher prints if it is one */
    CT_FAILURE_OTHER  /* silent, late or out of step; who notices prints */
} ct_failure_kind;

typedef struct ct_failure {
    bool known;
    bool told;     /* another rank or the launcher prints, or this one already has */
    bool to_print; /* the watching thread has yet to print it */
    int rank;
    ct_status status; /* of the rank that said so */
    double when;      /* ct_clock_seconds */
    char text[CT_REASON_BYTES];
} ct_failure;

typedef enum ct_exchange_kind { CT_EXCHANGE_AGREE, CT_EXCHANGE_BROADCAST } ct_exchange_kind;

/* What all ranks come to together. Rank 0 collects, and sends the result. */
typedef struct ct_exchange {
    uint64_t number; /* of the next, or of the one under way; the first is 1 */
    bool open;       /* rank 0: somebody has come */
    ct_exchange_kind kind;
    size_t bytes;
    uint8_t data[CT_MESSAGE_PAYLOAD];   /* rank 0: as far as they have come */
    int arrived;                        /* rank 0 */
    bool *came;                         /* rank 0: (size) */
    double waited_seconds;              /* rank 0: since the first came, but for busy ranks */
    uint8_t result[CT_MESSAGE_PAYLOAD]; /* of the one before `number` */
    size_t result_bytes;
} ct_exchange;

struct ct_job {
    ct_world world;
    ct_job_options options; /* `version` is the caller's, only used while meeting */
    char host[CT_HOST_BYTES];
    /* Rank 0: links[r] to rank r, links[0] closed. Others: links[0], to rank 0. */
    ct_link *links;
    int link_count;

    pthread_mutex_t mutex;
    pthread_cond_t changed; /* a result, a failure, a goodbye; on the monotonic clock */
    pthread_t watcher;
    bool watched; /* the watching thread runs */
    int wake;     /* eventfd: something to do for the watching thread */
    bool stop;    /* the watching thread is to end */
    bool leaving; /* this rank has said, or waits to say, goodbye */
    bool busy;    /* rank 0 itself */

    ct_failure failure;
    ct_exchange exchange;

    void (*call)(void *context);
    void *context;
    bool called, calling; /* once in the job's life; right now */
    pthread_t caller;
    bool caller_runs; /* to be joined */
};

static inline bool ct_job_is_root(const ct_job *job)
{
    return job->world.rank == 0;
}

/* The rank at the other end. */
static inline int ct_job_link_rank(const ct_job *job, int link)
{
    return ct_job_is_root(job) ? link : 0;
}

/* The name of a rank's host, as far as this rank knows it. */
const char *ct_job_host(const ct_job *job, int rank);

/* Sleeps on `changed` until `deadline` (ct_clock_seconds). False when that has passed. */
bool ct_job_wait(ct_job *job, double deadline);

/* Lets the watching thread look at once. */
void ct_job_wake(ct_job *job);

/* To every rank there is a link with. */
void ct_job_tell_all(ct_job *job, const ct_message *message);

/* ---- failure.c: the mutex is held ---- */

/* This rank has noticed it, or it is this rank's own word: kept, unless one is known already, and
 * told to the others. `text` is the whole message. */
void ct_failure_notice(ct_job *job, ct_failure_kind kind, int rank, ct_status status,
                       const char *text);

/* ct_failure_notice of a rank by its name: "rank 3 on host-b: ...". */
void ct_failure_observe(ct_job *job, ct_failure_kind kind, int rank, const char *format, ...)
    CT_PRINTF(4, 5);

/* A FAILED message that came over a link. */
void ct_failure_receive(ct_job *job, int link, const ct_message *message);

/* ---- exchange.c: the mutex is held ---- */

/* Rank 0: `rank` has come to the exchange `number`. */
void ct_exchange_arrive(ct_job *job, int rank, uint64_t number, int kind, const void *data,
                        size_t bytes);

/* Others: the result has come. */
void ct_exchange_result(ct_job *job, const ct_message *message);

/* Rank 0, now and then: whether somebody is too late, or will never come. */
void ct_exchange_check(ct_job *job, double seconds);

/* ---- meet.c, gather.c: before the watching thread starts ---- */

/* Others: finds rank 0 and waits until all have met. */
CT_NODISCARD ct_status ct_meet_root(ct_job *job, double deadline);

/* Rank 0: waits for the others. */
CT_NODISCARD ct_status ct_meet_gather(ct_job *job, double deadline);

/* ---- watch.c ---- */

CT_NODISCARD ct_status ct_watch_start(ct_job *job);

/* Waits for a call of on_failure that is under way, then ends the watching thread. */
void ct_watch_stop(ct_job *job);

#endif
