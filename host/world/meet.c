/* How a rank other than 0 comes to the meeting: looks for rank 0 until it is there, introduces
 * itself, and waits until all have come. */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "world/socket.h"
#include "world/state.h"

#define RETRY_SECONDS 0.1

typedef enum answer {
    ANSWER_NONE,    /* not yet */
    ANSWER_WELCOME, /* all have met */
    ANSWER_REFUSED,
    ANSWER_LOST,   /* rank 0 has gone */
    ANSWER_FOREIGN /* whoever listens there is not rank 0 of a job */
} answer;

typedef struct search {
    ct_job *job;
    double deadline;
    bool heard;        /* rank 0 has answered */
    char trouble[128]; /* why it was not reached */
    char missing[512]; /* who has not come, as rank 0 says */
    ct_status status;  /* when refused */
    char refusal[CT_REASON_BYTES];
} search;

static void introduce(ct_job *job, ct_link *link)
{
    ct_hello hello = {job->world.rank, job->world.size, job->options.config_hash, "", "", ""};
    uint8_t bytes[CT_MESSAGE_BYTES];
    snprintf(hello.host, sizeof hello.host, "%s", job->host);
    snprintf(hello.version, sizeof hello.version, "%s", job->options.version);
    snprintf(hello.token, sizeof hello.token, "%s", job->world.token);
    ct_link_put_bytes(link, bytes, ct_hello_write(&hello, bytes));
}

static answer read_answer(search *at, ct_link *link)
{
    ct_message message;
    bool open = ct_link_read(link);
    while (ct_link_next(link, &message)) {
        if (message.kind == CT_MESSAGE_WELCOME) {
            ct_message_text(&message, link->host, sizeof link->host);
            return ANSWER_WELCOME;
        } else if (message.kind == CT_MESSAGE_REFUSED) {
            bool sound = message.value > CT_OK && message.value <= CT_ERR_INTERNAL;
            at->status = sound ? (ct_status)message.value : CT_ERR_IO;
            ct_message_text(&message, at->refusal, sizeof at->refusal);
            return ANSWER_REFUSED;
        } else if (message.kind == CT_MESSAGE_ALIVE) {
            ct_message_text(&message, at->missing, sizeof at->missing);
            at->heard = true;
        } else {
            return ANSWER_FOREIGN;
        }
    }
    if (open && !link->broken) return ANSWER_NONE;
    return at->heard && !link->broken ? ANSWER_LOST : ANSWER_FOREIGN;
}

static answer await_answer(search *at, ct_link *link)
{
    for (double left; (left = at->deadline - ct_clock_seconds()) > 0;) {
        struct pollfd event = {.fd = link->socket, .events = ct_link_events(link)};
        if (poll(&event, 1, (int)(left * 1e3) + 1) <= 0) continue;
        if (event.revents & POLLOUT) ct_link_flush(link);
        answer got = event.revents & ~POLLOUT ? read_answer(at, link) : ANSWER_NONE;
        if (got != ANSWER_NONE) return got;
    }
    return ANSWER_NONE;
}

static ct_status timed_out(search *at, ct_link *link)
{
    const ct_world *world = &at->job->world;
    double seconds = at->job->options.timeout_seconds;
    if (!at->heard)
        return ct_fail(CT_ERR_IO, "rank %d: rank 0 was not found at %s:%d within %g s: %s",
                       world->rank, world->master, world->port, seconds, at->trouble);
    char text[CT_REASON_BYTES];
    snprintf(text, sizeof text, "rank %d on %s waited %g s for the others: %s", world->rank,
             at->job->host, seconds, at->missing);
    ct_link_put(link, &(ct_message){CT_MESSAGE_FAILED, world->rank, CT_ERR_IO, CT_FAILURE_WORD,
                                    text, strlen(text)});
    return ct_fail(CT_ERR_IO, "%s", text);
}

ct_status ct_meet_root(ct_job *job, double deadline)
{
    const ct_world *world = &job->world;
    ct_link *link = &job->links[0];
    search at = {.job = job, .deadline = deadline, .trouble = "no answer"};
    while (ct_clock_seconds() < deadline) {
        int connection;
        ct_socket_connect(world->master, world->port, deadline, &connection, at.trouble);
        if (connection >= 0) {
            ct_link_open(link, connection);
            introduce(job, link);
            snprintf(at.trouble, sizeof at.trouble, "who listens there does not answer");
            answer got = await_answer(&at, link);
            if (got == ANSWER_WELCOME) return CT_OK;
            if (got == ANSWER_REFUSED) return ct_fail(at.status, "%s", at.refusal);
            if (got == ANSWER_LOST)
                return ct_fail(CT_ERR_IO, "rank 0 at %s:%d ended before all had met: %s",
                               world->master, world->port, at.missing);
            if (got == ANSWER_NONE) break;
            snprintf(at.trouble, sizeof at.trouble, "who listens there is not clip-train");
            ct_link_close(link);
        }
        usleep((useconds_t)(RETRY_SECONDS * 1e6));
    }
    return timed_out(&at, link);
}
