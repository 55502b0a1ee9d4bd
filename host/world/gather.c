/* How rank 0 gathers the others: listens, lets each introduce itself, refuses who does not belong,
 * and says who is missing. Connections that are not ranks of ours (a port scanner, a browser) are
 * dropped. */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "world/socket.h"
#include "world/state.h"

#define STRANGERS         32  /* connections at a time that have not introduced themselves */
#define STRANGER_SECONDS  5.0 /* in which they must */
#define MISSING_NAMES_MAX 16
#define FAREWELL_SECONDS  2.0 /* for ranks that come when the meeting has already failed */

typedef struct gathering {
    ct_job *job;
    int listener;
    int missing;          /* ranks */
    ct_link *strangers;   /* (STRANGERS) */
    struct pollfd *polls; /* the listener, strangers, links */
    ct_status status;     /* what went wrong */
    char text[CT_REASON_BYTES];
    char foreigners[256]; /* who came of another job, for the message when somebody is missing */
} gathering;

/* ---- what is said ---- */

/* "ranks 2, 5 are missing" */
static void name_missing(const gathering *here, char *text, size_t capacity)
{
    const ct_job *job = here->job;
    int named = 0;
    size_t used = (size_t)snprintf(text, capacity, "rank%s", here->missing > 1 ? "s" : "");
    for (int rank = 1; rank < job->world.size && named < MISSING_NAMES_MAX; rank++) {
        if (job->links[rank].socket >= 0) continue;
        used += (size_t)snprintf(text + used, capacity - used, "%s %d", named ? "," : "", rank);
        named++;
    }
    if (here->missing > named)
        used +=
            (size_t)snprintf(text + used, capacity - used, " and %d more", here->missing - named);
    snprintf(text + used, capacity - used, " %s missing", here->missing > 1 ? "are" : "is");
}

static void tell_missing(const gathering *here, ct_link *link)
{
    char text[512];
    name_missing(here, text, sizeof text);
    ct_link_put(link,
                &(ct_message){.kind = CT_MESSAGE_ALIVE, .payload = text, .bytes = strlen(text)});
}

static void refuse(ct_link *link, ct_status status, const char *text)
{
    ct_link_put(link, &(ct_message){CT_MESSAGE_REFUSED, 0, (int32_t)status, 0, text, strlen(text)});
}

/* The meeting has failed: for everyone, with the same words. */
static void CT_PRINTF(3, 4) end(gathering *here, ct_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(here->text, sizeof here->text, format, args);
    va_end(args);
    here->status = status;
    for (int rank = 1; rank < here->job->world.size; rank++)
        refuse(&here->job->links[rank], status, here->text);
}

/* ---- who comes ---- */

/* Whether the rank that introduces itself belongs here; otherwise it is told why not. A rank of
 * this job that differs ends the meeting: waiting would not mend it. */
static bool belongs(gathering *here, ct_link *link, const ct_hello *hello)
{
    const ct_job *job = here->job;
    const ct_world *world = &job->world;
    if (strcmp(hello->token, world->token) != 0) {
        snprintf(here->foreigners, sizeof here->foreigners,
                 "; rank %d of another job came from %.100s", hello->rank, hello->host);
        char text[CT_REASON_BYTES];
        snprintf(text, sizeof text, "rank %d on %s: rank 0 on %s at %s:%d belongs to another job",
                 hello->rank, hello->host, job->host, world->master, world->port);
        refuse(link, CT_ERR_ARGUMENT, text);
        return false;
    }
    if (here->status != CT_OK) here->missing--; /* it comes late, and learns of the failure */
    else if (strcmp(hello->version, job->options.version) != 0)
        end(here, CT_ERR_CONFIG, "rank %d on %s runs version %s, rank 0 on %s version %s",
            hello->rank, hello->host, hello->version, job->host, job->options.version);
    else if (hello->size != world->size)
        end(here, CT_ERR_CONFIG, "rank %d on %s is one of %d ranks, rank 0 on %s one of %d",
            hello->rank, hello->host, hello->size, job->host, world->size);
    else if (hello->config_hash != job->options.config_hash)
        end(here, CT_ERR_CONFIG,
            "rank %d on %s has another configuration than rank 0 on %s: all ranks need the same",
            hello->rank, hello->host, job->host);
    else if (hello->rank < 0 || hello->rank >= world->size)
        end(here, CT_ERR_CONFIG, "rank %d on %s: ranks are 0 to %d", hello->rank, hello->host,
            world->size - 1);
    else if (hello->rank == 0 || job->links[hello->rank].socket >= 0)
        end(here, CT_ERR_CONFIG, "rank %d came twice: from %s and from %s", hello->rank,
            ct_job_host(job, hello->rank), hello->host);
    if (here->status == CT_OK) return true;
    refuse(link, here->status, here->text);
    return false;
}

static void hear_stranger(gathering *here, ct_link *link)
{
    ct_message message;
    ct_hello hello;
    bool open = ct_link_read(link);
    if (ct_link_next(link, &message)) {
        if (ct_hello_read(&message, &hello) && belongs(here, link, &hello)) {
            ct_link *place = &here->job->links[hello.rank];
            ct_link_open(place, link->socket);
            snprintf(place->host, sizeof place->host, "%s", hello.host);
            link->socket = -1;
            here->missing--;
            tell_missing(here, place);
            return;
        }
        open = false;
    }
    if (!open || link->broken) ct_link_close(link);
}

/* For one more connection: a free place, or that of the one that has been silent longest, if that
 * was some time already. NULL: it must wait. */
static ct_link *find_place(const gathering *here)
{
    ct_link *place = NULL;
    for (int i = 0; i < STRANGERS; i++) {
        ct_link *other = &here->strangers[i];
        if (other->socket < 0) return other;
        if (other->silent_seconds > (place ? place->silent_seconds : 0)) place = other;
    }
    return place;
}

static void admit(gathering *here)
{
    for (ct_link *place; (place = find_place(here));) {
        int connection = ct_socket_accept(here->listener);
        if (connection >= 0) {
            ct_link_close(place);
            ct_link_open(place, connection);
            continue;
        }
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR && errno != ECONNABORTED) {
            ct_log(CT_LOG_WARNING, "a connection cannot be accepted: %s", strerror(errno));
            usleep(100000); /* out of descriptors: no spinning */
        }
        return;
    }
}

/* A rank that waits has little to say. */
static void hear_rank(gathering *here, int rank)
{
    ct_link *link = &here->job->links[rank];
    ct_message message;
    char missing[512];
    bool open = ct_link_read(link);
    name_missing(here, missing, sizeof missing);
    while (ct_link_next(link, &message)) {
        char text[CT_REASON_BYTES];
        if (message.kind != CT_MESSAGE_FAILED) {
            link->broken = true;
        } else if (here->status == CT_OK) {
            ct_message_text(&message, text, sizeof text);
            end(here, CT_ERR_IO, "%s", text);
        }
    }
    if (open && !link->broken) return;
    if (here->status == CT_OK)
        end(here, CT_ERR_IO, "rank %d on %s ended before all had met: %s", rank, link->host,
            missing);
    ct_link_close(link);
}

/* ---- the meeting ---- */

static void wait_for_events(gathering *here, double seconds)
{
    ct_job *job = here->job;
    struct pollfd *polls = here->polls;
    int size = job->world.size;
    polls[0] = (struct pollfd){.fd = find_place(here) ? here->listener : -1, .events = POLLIN};
    for (int i = 0; i < STRANGERS; i++)
        polls[1 + i] = (struct pollfd){.fd = here->strangers[i].socket, .events = POLLIN};
    for (int rank = 0; rank < size; rank++)
        polls[1 + STRANGERS + rank] = (struct pollfd){.fd = job->links[rank].socket,
                                                      .events = ct_link_events(&job->links[rank])};
    if (poll(polls, (nfds_t)(1 + STRANGERS + size), (int)(seconds * 1e3) + 1) <= 0) return;
    for (int i = 0; i < STRANGERS; i++)
        if (polls[1 + i].revents) hear_stranger(here, &here->strangers[i]);
    for (int rank = 1; rank < size; rank++) {
        short events = polls[1 + STRANGERS + rank].revents;
        if (events & POLLOUT) ct_link_flush(&job->links[rank]);
        if (events & ~POLLOUT) hear_rank(here, rank);
    }
    if (polls[0].revents) admit(here);
}

/* Strangers that do not introduce themselves go; ranks hear who is missing. */
static void pass_time(gathering *here, double seconds)
{
    for (int i = 0; i < STRANGERS; i++) {
        here->strangers[i].silent_seconds += seconds;
        if (here->strangers[i].silent_seconds > STRANGER_SECONDS)
            ct_link_close(&here->strangers[i]);
    }
    for (int rank = 1; rank < here->job->world.size; rank++)
        if (!here->job->links[rank].out_bytes) tell_missing(here, &here->job->links[rank]);
}

/* Until all have come, or the meeting has failed. */
static void gather(gathering *here, double deadline)
{
    const ct_job *job = here->job;
    double told = ct_clock_seconds();
    while (here->missing && here->status == CT_OK) {
        double now = ct_clock_seconds(), left = deadline - now;
        if (left <= 0) {
            char missing[512];
            name_missing(here, missing, sizeof missing);
            end(here, CT_ERR_IO, "rank 0 on %s at %s:%d waited %g s for the others: %s%s",
                job->host, job->world.master, job->world.port, job->options.timeout_seconds,
                missing, here->foreigners);
            return;
        }
        if (now - told >= CT_ALIVE_SECONDS) {
            pass_time(here, now - told);
            told = now;
        }
        wait_for_events(here, left < CT_ALIVE_SECONDS ? left : CT_ALIVE_SECONDS);
    }
}

/* Ranks that come a little later than the failure would look for rank 0 until their time is over.
 */
static void tell_late_ranks(gathering *here, double deadline)
{
    double now = ct_clock_seconds(), until = now + FAREWELL_SECONDS;
    if (deadline < until) until = deadline;
    for (; here->missing > 0 && now < until; now = ct_clock_seconds())
        wait_for_events(here, until - now);
}

ct_status ct_meet_gather(ct_job *job, double deadline)
{
    gathering here = {.job = job, .listener = -1, .missing = job->world.size - 1};
    ct_status status = ct_alloc(STRANGERS, sizeof *here.strangers, "connections", &here.strangers);
    if (status == CT_OK)
        status = ct_alloc((size_t)(1 + STRANGERS + job->world.size), sizeof *here.polls,
                          "connections", &here.polls);
    if (status == CT_OK)
        status = ct_socket_listen(job->world.master, job->world.port, &here.listener);
    if (status == CT_OK) {
        for (int i = 0; i < STRANGERS; i++) ct_link_open(&here.strangers[i], -1);
        gather(&here, deadline);
        if (here.status != CT_OK) {
            tell_late_ranks(&here, deadline);
            status = ct_fail(here.status, "%s", here.text);
        }
        for (int i = 0; i < STRANGERS; i++) ct_link_close(&here.strangers[i]);
        close(here.listener);
    }
    ct_message welcome = {
        .kind = CT_MESSAGE_WELCOME, .payload = job->host, .bytes = strlen(job->host)};
    if (status == CT_OK) ct_job_tell_all(job, &welcome);
    free(here.strangers);
    free(here.polls);
    return status;
}
