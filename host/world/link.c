#include "world/link.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void ct_link_open(ct_link *link, int socket)
{
    memset(link, 0, sizeof *link);
    link->socket = socket;
}

void ct_link_close(ct_link *link)
{
    if (link->socket >= 0) close(link->socket);
    link->socket = -1;
    link->out_bytes = 0;
}

/* Drops the message given out last. */
static void drop_taken(ct_link *link)
{
    if (!link->taken) return;
    link->in_bytes -= link->taken;
    memmove(link->in, link->in + link->taken, link->in_bytes);
    link->taken = 0;
}

bool ct_link_read(ct_link *link)
{
    drop_taken(link);
    size_t room = sizeof link->in - link->in_bytes;
    if (!room) return true; /* whole messages wait there */
    ssize_t got = recv(link->socket, link->in + link->in_bytes, room, MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    link->in_bytes += (size_t)got;
    link->silent_seconds = 0;
    return got > 0;
}

bool ct_link_next(ct_link *link, ct_message *out)
{
    drop_taken(link);
    if (link->broken) return false;
    ct_message_state state = ct_message_read(link->in, link->in_bytes, out, &link->taken);
    if (state == CT_MESSAGE_WRONG) link->broken = true;
    return state == CT_MESSAGE_WHOLE;
}

void ct_link_put_bytes(ct_link *link, const void *bytes, size_t size)
{
    if (link->socket < 0 || link->broken) return;
    if (size > sizeof link->out - link->out_bytes) {
        link->broken = true;
        return;
    }
    memcpy(link->out + link->out_bytes, bytes, size);
    link->out_bytes += size;
    ct_link_flush(link);
}

void ct_link_put(ct_link *link, const ct_message *message)
{
    uint8_t bytes[CT_MESSAGE_BYTES];
    ct_link_put_bytes(link, bytes, ct_message_write(message, bytes));
}

void ct_link_flush(ct_link *link)
{
    while (link->out_bytes && link->socket >= 0) {
        ssize_t sent = send(link->socket, link->out, link->out_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
        if (sent < 0) {
            link->out_bytes = 0;
            return;
        }
        link->out_bytes -= (size_t)sent;
        memmove(link->out, link->out + sent, link->out_bytes);
    }
}

short ct_link_events(const ct_link *link)
{
    return (short)(POLLIN | (link->out_bytes ? POLLOUT : 0));
}
