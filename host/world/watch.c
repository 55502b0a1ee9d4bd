/* The watching thread of a rank: receives, gives signs of life, notices their absence, tells of
 * failures, and ends a process that does not end by itself. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "world/state.h"

/* Longer between two rounds, and it was this process that did not run (stopped, or its machine
 * asleep): such time is not held against the others. */
#define ROUND_SECONDS_MAX 2.0

typedef struct watch {
    ct_job *job;
    struct pollfd *polls; /* the wake-up, then the links */
    double alive_seconds; /* between signs of life */
    double last_round, last_alive;
} watch;

/* ---- what comes in ---- */

static void receive(ct_job *job, int at, const ct_message *message)
{
    ct_link *link = &job->links[at];
    bool root = ct_job_is_root(job);
    if (message->kind == CT_MESSAGE_ALIVE) {
        return;
    } else if (message->kind == CT_MESSAGE_FAILED) {
        ct_failure_receive(job, at, message);
    } else if (message->kind == CT_MESSAGE_GOODBYE) {
        link->left = true;
        if (root) ct_link_put(link, &(ct_message){.kind = CT_MESSAGE_GOODBYE});
        pthread_cond_broadcast(&job->changed);
    } else if (root && message->kind == CT_MESSAGE_ARRIVED) {
        ct_exchange_arrive(job, at, message->number, message->value, message->payload,
                           message->bytes);
    } else if (root && message->kind == CT_MESSAGE_BUSY) {
        link->busy = message->value != 0;
    } else if (!root && message->kind == CT_MESSAGE_RESULT) {
        ct_exchange_result(job, message);
    } else {
        link->broken = true;
    }
}

static void read_link(ct_job *job, int at)
{
    ct_link *link = &job->links[at];
    ct_message message;
    bool open = ct_link_read(link);
    while (ct_link_next(link, &message)) receive(job, at, &message);
    int rank = ct_job_link_rank(job, at);
    if (link->broken)
        ct_failure_observe(job, CT_FAILURE_OTHER, rank, "sent what is no message of this job");
    else if (!open && !link->left)
        ct_failure_observe(job, CT_FAILURE_DEATH, rank,
                           "ended without a word (killed, or its connection was cut)");
    if (!open || link->broken) {
        ct_link_close(link);
        pthread_cond_broadcast(&job->changed);
    }
}

/* ---- what goes with time ---- */

static void watch_silence(ct_job *job, double seconds)
{
    for (int i = 0; i < job->link_count; i++) {
        ct_link *link = &job->links[i];
        if (link->socket < 0 || link->left) continue;
        link->silent_seconds += seconds;
        if (link->silent_seconds >= job->options.timeout_seconds)
            ct_failure_observe(job, CT_FAILURE_OTHER, ct_job_link_rank(job, i),
                               "no sign of life for %g s (stopped, or its machine or network is "
                               "gone)",
                               job->options.timeout_seconds);
    }
}

/* Not to one that has not even taken the last ones. */
static void give_sign(ct_job *job)
{
    for (int i = 0; i < job->link_count; i++)
        if (!job->links[i].out_bytes && !job->links[i].left)
            ct_link_put(&job->links[i], &(ct_message){.kind = CT_MESSAGE_ALIVE});
}

/* This rank's own message is printed by its main thread at its end, which has not come. */
static void end_process(const ct_job *job)
{
    if (!job->failure.told) ct_log(CT_LOG_ERROR, "%s", job->failure.text);
    _exit(1);
}

static void do_round(watch *round)
{
    ct_job *job = round->job;
    double now = ct_clock_seconds(), seconds = now - round->last_round;
    round->last_round = now;
    if (seconds > ROUND_SECONDS_MAX) seconds = ROUND_SECONDS_MAX;
    if (!job->failure.known) {
        watch_silence(job, seconds);
        if (ct_job_is_root(job)) ct_exchange_check(job, seconds);
    } else if (now - job->failure.when > job->options.grace_seconds) {
        end_process(job);
    }
    if (now - round->last_alive >= round->alive_seconds) {
        round->last_alive = now;
        give_sign(job);
    }
}

/* ---- what is done about a failure ---- */

static void *call_in_thread(void *argument)
{
    ct_job *job = argument;
    job->call(job->context);
    pthread_mutex_lock(&job->mutex);
    job->calling = false;
    pthread_cond_broadcast(&job->changed);
    ct_job_wake(job); /* to be joined */
    pthread_mutex_unlock(&job->mutex);
    return NULL;
}

/* In a thread of its own: aborting a communicator may take long, or hang, and the others have yet
 * to be told. */
static void start_call(ct_job *job)
{
    job->called = job->calling = true;
    job->caller_runs = pthread_create(&job->caller, NULL, call_in_thread, job) == 0;
    if (job->caller_runs) return;
    pthread_mutex_unlock(&job->mutex);
    call_in_thread(job);
    pthread_mutex_lock(&job->mutex);
}

static void act_on_failure(ct_job *job)
{
    if (!job->failure.known) return;
    if (job->call && !job->called && !job->stop) start_call(job);
    if (job->caller_runs && !job->calling) {
        job->caller_runs = false;
        pthread_mutex_unlock(&job->mutex);
        pthread_join(job->caller, NULL); /* it is at its end */
        pthread_mutex_lock(&job->mutex);
    }
    if (job->failure.to_print) {
        job->failure.to_print = false;
        pthread_mutex_unlock(&job->mutex); /* who reads standard error may be slow */
        ct_log(CT_LOG_ERROR, "%s", job->failure.text);
        pthread_mutex_lock(&job->mutex);
    }
}

/* ---- the thread ---- */

static void wait_for_events(watch *round)
{
    ct_job *job = round->job;
    round->polls[0] = (struct pollfd){.fd = job->wake, .events = POLLIN};
    for (int i = 0; i < job->link_count; i++)
        round->polls[1 + i] =
            (struct pollfd){.fd = job->links[i].socket, .events = ct_link_events(&job->links[i])};
    pthread_mutex_unlock(&job->mutex);
    poll(round->polls, (nfds_t)job->link_count + 1, (int)(round->alive_seconds * 500) + 1);
    pthread_mutex_lock(&job->mutex);
}

static void *watch_job(void *argument)
{
    watch *round = argument;
    ct_job *job = round->job;
    pthread_mutex_lock(&job->mutex);
    while (!job->stop) {
        wait_for_events(round);
        uint64_t wakes;
        if (round->polls[0].revents && read(job->wake, &wakes, sizeof wakes) < 0) wakes = 0;
        for (int i = 0; i < job->link_count; i++) {
            short events = round->polls[1 + i].revents;
            if (job->links[i].socket < 0 || !events) continue;
            if (events & POLLOUT) ct_link_flush(&job->links[i]);
            if (events & ~POLLOUT) read_link(job, i);
        }
        do_round(round);
        act_on_failure(job);
    }
    act_on_failure(job); /* one that the main thread noticed as it left; a call that has ended */
    pthread_mutex_unlock(&job->mutex);
    free(round->polls);
    free(round);
    return NULL;
}

ct_status ct_watch_start(ct_job *job)
{
    watch *round;
    CT_TRY(ct_alloc(1, sizeof *round, "the watching thread", &round));
    double quarter = job->options.timeout_seconds / 4, now = ct_clock_seconds();
    round->job = job;
    round->alive_seconds = quarter < CT_ALIVE_SECONDS ? quarter : CT_ALIVE_SECONDS;
    round->last_round = round->last_alive = now;
    ct_status status = ct_alloc((size_t)job->link_count + 1, sizeof *round->polls,
                                "the watching thread", &round->polls);
    job->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (status == CT_OK && job->wake < 0)
        status = ct_fail_errno(CT_ERR_INTERNAL, "cannot make an event descriptor");
    if (status == CT_OK) {
        sigset_t all, before; /* signals are the main thread's */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        errno = pthread_create(&job->watcher, NULL, watch_job, round);
        if (errno) status = ct_fail_errno(CT_ERR_INTERNAL, "cannot start the watching thread");
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    job->watched = status == CT_OK;
    if (status == CT_OK) return CT_OK;
    free(round->polls);
    free(round);
    return status;
}

void ct_watch_stop(ct_job *job)
{
    if (!job->watched) return;
    pthread_mutex_lock(&job->mutex);
    job->called = true;
    while (job->calling) pthread_cond_wait(&job->changed, &job->mutex);
    job->stop = true;
    ct_job_wake(job);
    pthread_mutex_unlock(&job->mutex);
    pthread_join(job->watcher, NULL);
    job->watched = false;
}
