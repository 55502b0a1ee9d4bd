#include "world/job.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "world/state.h"

/* For rank 0 to say which of several failures was the first. */
#define VERDICT_SECONDS 2.0
/* For the last words of a job that has failed to leave. */
#define LAST_WORDS_SECONDS 1.0

/* ---- shared by the files of this folder ---- */

const char *ct_job_host(const ct_job *job, int rank)
{
    if (rank == job->world.rank) return job->host;
    if (!ct_job_is_root(job)) rank = 0; /* the only other one it hears of by itself */
    return job->links[rank].host[0] ? job->links[rank].host : "an unknown host";
}

bool ct_job_wait(ct_job *job, double deadline)
{
    double whole = (double)(time_t)deadline;
    struct timespec until = {(time_t)deadline, (long)((deadline - whole) * 1e9)};
    return pthread_cond_timedwait(&job->changed, &job->mutex, &until) != ETIMEDOUT;
}

void ct_job_wake(ct_job *job)
{
    uint64_t one = 1;
    if (job->wake >= 0 && write(job->wake, &one, sizeof one) < 0) return; /* it is awake already */
}

void ct_job_tell_all(ct_job *job, const ct_message *message)
{
    for (int i = 0; i < job->link_count; i++) ct_link_put(&job->links[i], message);
}

/* ---- meeting and leaving ---- */

static void destroy(ct_job *job)
{
    for (int i = 0; i < job->link_count; i++) ct_link_close(&job->links[i]);
    if (job->wake >= 0) close(job->wake);
    pthread_cond_destroy(&job->changed);
    pthread_mutex_destroy(&job->mutex);
    free(job->exchange.came);
    free(job->links);
    free(job);
}

static ct_status create(const ct_world *world, const ct_job_options *options, ct_job **out)
{
    ct_job *job;
    CT_TRY(ct_alloc(1, sizeof *job, "a job", &job));
    job->world = *world;
    job->options = *options;
    job->wake = -1;
    job->exchange.number = 1;
    if (gethostname(job->host, sizeof job->host - 1) != 0 || !job->host[0])
        snprintf(job->host, sizeof job->host, "an unnamed host");
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&job->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&job->mutex, NULL);
    int links = ct_job_is_root(job) ? world->size : 1;
    ct_status status = ct_alloc((size_t)links, sizeof *job->links, "connections", &job->links);
    if (status == CT_OK)
        status = ct_alloc((size_t)world->size, sizeof *job->exchange.came, "agreements",
                          &job->exchange.came);
    if (status != CT_OK) {
        destroy(job);
        return status;
    }
    job->link_count = links;
    for (int i = 0; i < links; i++) ct_link_open(&job->links[i], -1);
    *out = job;
    return CT_OK;
}

ct_status ct_job_meet(const ct_world *world, const ct_job_options *options, ct_job **out)
{
    ct_job *job;
    *out = NULL;
    if (world->size == 1) return CT_OK;
    double deadline = ct_clock_seconds() + options->timeout_seconds;
    if (!world->master[0] || !world->port)
        return ct_fail(CT_ERR_CONFIG,
                       "rank %d of %d does not know where rank 0 is: set "
                       "MASTER_ADDR and MASTER_PORT",
                       world->rank, world->size);
    CT_TRY(create(world, options, &job));
    ct_status status =
        ct_job_is_root(job) ? ct_meet_gather(job, deadline) : ct_meet_root(job, deadline);
    if (status == CT_OK) status = ct_watch_start(job);
    if (status == CT_OK) *out = job;
    else destroy(job);
    return status;
}

static bool all_have_left(const ct_job *job)
{
    for (int i = 0; i < job->link_count; i++)
        if (job->links[i].socket >= 0 && !job->links[i].left) return false;
    return true;
}

static bool all_is_sent(const ct_job *job)
{
    for (int i = 0; i < job->link_count; i++)
        if (job->links[i].out_bytes) return false;
    return true;
}

/* A rank says goodbye and waits for rank 0's answer, which comes at once. Rank 0 waits for all
 * goodbyes: its end would look like a death to a rank that is still there. After the time-out it
 * says goodbye itself. */
static void say_goodbye(ct_job *job)
{
    ct_message goodbye = {.kind = CT_MESSAGE_GOODBYE};
    double deadline = ct_clock_seconds() + job->options.timeout_seconds;
    job->leaving = true;
    if (!ct_job_is_root(job)) ct_job_tell_all(job, &goodbye);
    while (!job->failure.known && !all_have_left(job) && ct_job_wait(job, deadline)) continue;
    if (!ct_job_is_root(job) || job->failure.known) return;
    for (int i = 0; i < job->link_count; i++)
        if (!job->links[i].left) ct_link_put(&job->links[i], &goodbye);
}

void ct_job_leave(ct_job *job)
{
    if (!job) return;
    pthread_mutex_lock(&job->mutex);
    if (!job->failure.known) say_goodbye(job);
    double deadline = ct_clock_seconds() + LAST_WORDS_SECONDS;
    ct_job_wake(job); /* it sends what is left */
    while (!all_is_sent(job) && ct_clock_seconds() < deadline)
        ct_job_wait(job, ct_clock_seconds() + 0.01);
    pthread_mutex_unlock(&job->mutex);
    ct_watch_stop(job);
    destroy(job);
}

/* ---- exchanges ---- */

/* Brings `bytes` of `data`, and waits for the result of all. Rank 0 decides when it has waited too
 * long; when rank 0 is gone, the watching thread notices. */
static ct_status exchange(ct_job *job, ct_exchange_kind kind, const void *data, size_t bytes,
                          void *result, size_t result_bytes)
{
    ct_status status = CT_OK;
    pthread_mutex_lock(&job->mutex);
    uint64_t number = job->exchange.number;
    if (!job->failure.known) {
        if (ct_job_is_root(job)) {
            ct_exchange_arrive(job, 0, number, kind, data, bytes);
        } else {
            ct_link_put(&job->links[0], &(ct_message){CT_MESSAGE_ARRIVED, job->world.rank, kind,
                                                      number, data, bytes});
            if (job->links[0].out_bytes) ct_job_wake(job);
        }
    }
    bool gone = false;
    while (!job->failure.known && !gone && job->exchange.number == number) {
        gone = !ct_job_is_root(job) && job->links[0].left;
        if (!gone) pthread_cond_wait(&job->changed, &job->mutex);
    }
    if (job->exchange.number != number && job->exchange.result_bytes == result_bytes)
        memcpy(result, job->exchange.result, result_bytes);
    else if (job->failure.known) status = ct_fail(CT_ERR_DEVICE, "%s", job->failure.text);
    else if (gone)
        status = ct_fail(CT_ERR_DEVICE, "rank 0 on %s has left the job", ct_job_host(job, 0));
    else
        status = ct_fail(CT_ERR_INTERNAL, "ranks exchange messages of %zu and of %zu bytes",
                         result_bytes, job->exchange.result_bytes);
    pthread_mutex_unlock(&job->mutex);
    return status;
}

ct_status ct_job_agree(ct_job *job, int64_t *numbers, int count)
{
    uint8_t bytes[8 * CT_NUMBERS_MAX];
    if (!job) return CT_OK;
    if (count < 1 || count > CT_NUMBERS_MAX)
        return ct_fail(CT_ERR_INTERNAL, "an agreement is about 1 to %d numbers, not %d",
                       CT_NUMBERS_MAX, count);
    for (int i = 0; i < count; i++) ct_message_put_u64(bytes + 8 * i, (uint64_t)numbers[i]);
    CT_TRY(exchange(job, CT_EXCHANGE_AGREE, bytes, 8 * (size_t)count, bytes, 8 * (size_t)count));
    for (int i = 0; i < count; i++) numbers[i] = (int64_t)ct_message_get_u64(bytes + 8 * i);
    return CT_OK;
}

ct_status ct_job_broadcast(ct_job *job, void *data, size_t bytes)
{
    if (!job) return CT_OK;
    if (bytes > CT_MESSAGE_PAYLOAD)
        return ct_fail(CT_ERR_INTERNAL, "%zu bytes are too many to broadcast", bytes);
    return exchange(job, CT_EXCHANGE_BROADCAST, data, ct_job_is_root(job) ? bytes : 0, data, bytes);
}

void ct_job_busy(ct_job *job, bool busy)
{
    if (!job) return;
    pthread_mutex_lock(&job->mutex);
    job->busy = busy;
    if (!ct_job_is_root(job)) {
        ct_link_put(&job->links[0],
                    &(ct_message){.kind = CT_MESSAGE_BUSY, .rank = job->world.rank, .value = busy});
        if (job->links[0].out_bytes) ct_job_wake(job);
    }
    pthread_mutex_unlock(&job->mutex);
}

/* ---- failure ---- */

void ct_job_on_failure(ct_job *job, void (*call)(void *context), void *context)
{
    if (!job) return;
    pthread_mutex_lock(&job->mutex);
    while (job->calling) pthread_cond_wait(&job->changed, &job->mutex);
    job->call = call;
    job->context = context;
    bool at_once = call && job->failure.known && !job->called;
    if (at_once) job->called = true;
    pthread_mutex_unlock(&job->mutex);
    if (at_once) call(context);
}

ct_status ct_job_fail(ct_job *job, ct_status status)
{
    if (!job) return status;
    char text[CT_REASON_BYTES];
    snprintf(text, sizeof text, "rank %d on %s: %s", job->world.rank, job->host,
             ct_error_message());
    pthread_mutex_lock(&job->mutex);
    if (!job->failure.known && !ct_job_is_root(job)) {
        /* Several ranks may fail at once, and one message is enough: rank 0 says whose. */
        ct_link_put(&job->links[0],
                    &(ct_message){CT_MESSAGE_FAILED, job->world.rank, (int32_t)status,
                                  CT_FAILURE_WORD, text, strlen(text)});
        if (job->links[0].out_bytes) ct_job_wake(job);
        double wait = job->options.timeout_seconds;
        double deadline = ct_clock_seconds() + (wait < VERDICT_SECONDS ? wait : VERDICT_SECONDS);
        while (!job->failure.known && !job->links[0].left && ct_job_wait(job, deadline)) continue;
    }
    ct_failure_notice(job, CT_FAILURE_WORD, job->world.rank, status, text);
    snprintf(text, sizeof text, "%s", job->failure.text);
    pthread_mutex_unlock(&job->mutex);
    return ct_fail(status, "%s", text);
}

bool ct_job_told(const ct_job *job)
{
    if (!job) return false;
    pthread_mutex_t *mutex = (pthread_mutex_t *)&job->mutex; /* not part of what is asked about */
    pthread_mutex_lock(mutex);
    bool told = job->failure.known && job->failure.told;
    pthread_mutex_unlock(mutex);
    return told;
}
