/* The first failure of a job: who it was, who is told, and who prints. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "world/state.h"

/* Keeps it, and wakes everyone who waits for something that will not come. */
static void keep(ct_job *job, int rank, ct_status status, const char *text)
{
    ct_failure *failure = &job->failure;
    failure->known = true;
    failure->told = true;
    failure->rank = rank;
    failure->status = status;
    failure->when = ct_clock_seconds();
    snprintf(failure->text, sizeof failure->text, "%s", text);
    pthread_cond_broadcast(&job->changed);
    ct_job_wake(job);
}

static ct_message as_message(const ct_failure *failure, ct_failure_kind kind)
{
    return (ct_message){CT_MESSAGE_FAILED, failure->rank,        (int32_t)failure->status, kind,
                        failure->text,     strlen(failure->text)};
}

void ct_failure_notice(ct_job *job, ct_failure_kind kind, int rank, ct_status status,
                       const char *text)
{
    ct_failure *failure = &job->failure;
    if (failure->known) return;
    keep(job, rank, status, text);
    if (kind == CT_FAILURE_WORD) {
        failure->told = rank != job->world.rank;
    } else if (!(kind == CT_FAILURE_DEATH && job->world.launched)) {
        /* Rank 0 notices what the others do; that rank 0 is gone, all others do. */
        failure->to_print = job->world.rank == (rank == 0 && !ct_job_is_root(job) ? 1 : 0);
    }
    ct_message message = as_message(failure, kind);
    ct_job_tell_all(job, &message);
}

void ct_failure_observe(ct_job *job, ct_failure_kind kind, int rank, const char *format, ...)
{
    char text[CT_REASON_BYTES];
    int used = snprintf(text, sizeof text, "rank %d on %s: ", rank, ct_job_host(job, rank));
    va_list args;
    va_start(args, format);
    vsnprintf(text + used, sizeof text - (size_t)used, format, args);
    va_end(args);
    ct_failure_notice(job, kind, rank, CT_ERR_DEVICE, text);
}

static ct_status status_of(int32_t value)
{
    return value > CT_OK && value <= CT_ERR_INTERNAL ? (ct_status)value : CT_ERR_DEVICE;
}

void ct_failure_receive(ct_job *job, int link, const ct_message *message)
{
    char text[CT_REASON_BYTES];
    int rank = ct_job_link_rank(job, link);
    if (job->failure.known) return;
    ct_message_text(message, text, sizeof text);
    if (ct_job_is_root(job) && message->number == CT_FAILURE_WORD) {
        ct_failure_notice(job, CT_FAILURE_WORD, rank, status_of(message->value), text);
        return;
    }
    if (ct_job_is_root(job)) { /* it misses this very rank; rank 1 has said so if it was that one */
        ct_failure_notice(job, CT_FAILURE_WORD, 0, status_of(message->value), text);
        job->failure.told = rank == 1;
        return;
    }
    keep(job, message->rank, status_of(message->value), text);
    if (message->number == CT_FAILURE_WORD && message->rank == job->world.rank)
        job->failure.told = false;
}
