/* One connection to another rank: messages in and out of a socket that never blocks. Not
 * thread-safe. */
#ifndef CT_WORLD_LINK_H
#define CT_WORLD_LINK_H

#include "world/message.h"

/* The most that waits for one rank: a result of CT_MESSAGE_BYTES, one failure, a sign of life and a
 * goodbye; nothing more is said before it has answered. */
#define CT_LINK_OUT_BYTES (2 * CT_MESSAGE_BYTES)

typedef struct ct_link {
    int socket;            /* -1: closed */
    double silent_seconds; /* watched since the last byte came */
    bool left;             /* it has said goodbye */
    bool busy;             /* it has said that it will be long */
    bool broken;           /* it has read or written something wrong */
    char host[CT_HOST_BYTES];
    size_t in_bytes, taken; /* `taken` of the bytes in `in` are the last message given out */
    size_t out_bytes;
    uint8_t in[CT_MESSAGE_BYTES], out[CT_LINK_OUT_BYTES];
} ct_link;

/* Takes the socket, or -1, over. */
void ct_link_open(ct_link *link, int socket);

/* Closes the socket; fine on a closed one. */
void ct_link_close(ct_link *link);

/* Reads what there is. False at the end of the connection. */
bool ct_link_read(ct_link *link);

/* The next message that is whole; its payload is valid until the next call. False when there is
 * none; when the bytes are no message of ours, the link is `broken`. */
bool ct_link_next(ct_link *link, ct_message *out);

/* Sends it, or as much as the socket takes, the rest in ct_link_flush. Nothing happens on a closed
 * or broken link. */
void ct_link_put(ct_link *link, const ct_message *message);
void ct_link_put_bytes(ct_link *link, const void *bytes, size_t size);

/* Sends what is left. Errors are left to reading, which first sees what the other side still said.
 */
void ct_link_flush(ct_link *link);

/* What to poll its socket for. */
short ct_link_events(const ct_link *link);

#endif
