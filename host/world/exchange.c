/* Agreements and broadcasts: rank 0 collects what the ranks bring, and sends all the result. */
#include <stdio.h>
#include <string.h>

#include "world/state.h"

/* The greatest of each number. */
static void merge_numbers(uint8_t *present, const uint8_t *more, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += 8) {
        int64_t a = (int64_t)ct_message_get_u64(present + at);
        int64_t b = (int64_t)ct_message_get_u64(more + at);
        ct_message_put_u64(present + at, (uint64_t)(a > b ? a : b));
    }
}

static void finish(ct_job *job)
{
    ct_exchange *exchange = &job->exchange;
    ct_message result = {CT_MESSAGE_RESULT, 0, exchange->kind, exchange->number, exchange->data,
                         exchange->bytes};
    ct_job_tell_all(job, &result);
    memcpy(exchange->result, exchange->data, exchange->bytes);
    exchange->result_bytes = exchange->bytes;
    exchange->open = false;
    exchange->number++;
    pthread_cond_broadcast(&job->changed);
}

void ct_exchange_arrive(ct_job *job, int rank, uint64_t number, int kind, const void *data,
                        size_t bytes)
{
    ct_exchange *exchange = &job->exchange;
    bool numbers = kind == CT_EXCHANGE_AGREE;
    if (!exchange->open) {
        exchange->open = true;
        exchange->kind = kind;
        exchange->bytes = 0;
        exchange->arrived = 0;
        exchange->waited_seconds = 0;
        memset(exchange->came, 0, (size_t)job->world.size * sizeof *exchange->came);
    }
    bool fits = number == exchange->number && kind == (int)exchange->kind &&
                !exchange->came[rank] && bytes <= sizeof exchange->data;
    if (fits && numbers)
        fits = bytes && bytes % 8 == 0 && (!exchange->arrived || bytes == exchange->bytes);
    if (!fits) {
        ct_failure_observe(job, CT_FAILURE_OTHER, rank,
                           "is out of step: came to exchange %llu when the others were in %llu, or "
                           "with other contents",
                           (unsigned long long)number, (unsigned long long)exchange->number);
        return;
    }
    if (numbers && exchange->arrived) merge_numbers(exchange->data, data, bytes);
    else if (numbers || rank == 0) {
        if (bytes) memcpy(exchange->data, data, bytes);
        exchange->bytes = bytes;
    }
    exchange->came[rank] = true;
    if (++exchange->arrived == job->world.size) finish(job);
}

void ct_exchange_result(ct_job *job, const ct_message *message)
{
    ct_exchange *exchange = &job->exchange;
    if (message->number != exchange->number) {
        ct_failure_observe(job, CT_FAILURE_OTHER, 0, "is out of step");
        return;
    }
    if (message->bytes) memcpy(exchange->result, message->payload, message->bytes);
    exchange->result_bytes = message->bytes;
    exchange->number++;
    pthread_cond_broadcast(&job->changed);
}

static bool is_busy(const ct_job *job, int rank)
{
    return rank == 0 ? job->busy : job->links[rank].busy;
}

static bool has_left(const ct_job *job, int rank)
{
    return rank == 0 ? job->leaving : job->links[rank].left;
}

/* "rank 1 on host-a, rank 3 on host-b: ..." */
static void name_late(ct_job *job, int first)
{
    const ct_exchange *exchange = &job->exchange;
    char text[CT_REASON_BYTES];
    size_t used = 0, room = sizeof text - 100;
    int named = 0, more = 0;
    for (int rank = 0; rank < job->world.size; rank++) {
        if (exchange->came[rank]) continue;
        char name[CT_HOST_BYTES + 32];
        size_t bytes = (size_t)snprintf(name, sizeof name, "%srank %d on %s", named ? ", " : "",
                                        rank, ct_job_host(job, rank));
        if (more || used + bytes > room) {
            more++;
            continue;
        }
        memcpy(text + used, name, bytes);
        used += bytes;
        named++;
    }
    if (more) used += (size_t)snprintf(text + used, 32, " and %d more", more);
    snprintf(text + used, sizeof text - used, ": did not come to step agreement %llu within %g s",
             (unsigned long long)exchange->number, job->options.timeout_seconds);
    ct_failure_notice(job, CT_FAILURE_OTHER, first, CT_ERR_DEVICE, text);
}

void ct_exchange_check(ct_job *job, double seconds)
{
    ct_exchange *exchange = &job->exchange;
    int first = -1;
    if (!exchange->open) return;
    bool busy = false;
    for (int rank = 0; rank < job->world.size; rank++) {
        if (exchange->came[rank]) continue;
        if (has_left(job, rank)) {
            ct_failure_observe(job, CT_FAILURE_OTHER, rank,
                               "left the job, but others wait for it in step agreement %llu",
                               (unsigned long long)exchange->number);
            return;
        }
        busy = busy || is_busy(job, rank);
        if (first < 0) first = rank;
    }
    if (busy) return;
    exchange->waited_seconds += seconds;
    if (exchange->waited_seconds >= job->options.timeout_seconds) name_late(job, first);
}
