/* Messages between the ranks of a job, as bytes. Little-endian, whatever the machine:
 *
 *   0  magic    "ctj1"
 *   4  kind     u16
 *   6  bytes    u16, of the payload
 *   8  rank     i32
 *  12  value    i32
 *  16  number   u64
 *  24  payload  at most CT_MESSAGE_PAYLOAD bytes
 *
 *   kind      way     rank      value         number        payload
 *   HELLO     r -> 0  sender    world's size  config hash   host, version, token; each ends with
 * NUL WELCOME   0 -> r  0                                     rank 0's host REFUSED   0 -> r  0
 * status                      text: the meeting has failed ALIVE     both text: in a meeting, who
 * is missing ARRIVED   r -> 0  sender    kind of exchange  its number  the sender's numbers RESULT
 * 0 -> r  0         kind of exchange  its number  the result FAILED    both    the one   status
 * ct_failure_kind  text BUSY      r -> 0  sender    1 or 0 GOODBYE   both
 *
 * What is read comes from a network: nothing here trusts it. */
#ifndef CT_WORLD_MESSAGE_H
#define CT_WORLD_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "world/world.h"

#define CT_MESSAGE_HEADER  24
#define CT_MESSAGE_PAYLOAD 4096
#define CT_MESSAGE_BYTES   (CT_MESSAGE_HEADER + CT_MESSAGE_PAYLOAD)
#define CT_VERSION_BYTES   64

typedef enum ct_message_kind {
    CT_MESSAGE_HELLO = 1,
    CT_MESSAGE_WELCOME,
    CT_MESSAGE_REFUSED,
    CT_MESSAGE_ALIVE,
    CT_MESSAGE_ARRIVED,
    CT_MESSAGE_RESULT,
    CT_MESSAGE_FAILED,
    CT_MESSAGE_BUSY,
    CT_MESSAGE_GOODBYE
} ct_message_kind;

typedef struct ct_message {
    ct_message_kind kind;
    int32_t rank, value;
    uint64_t number;
    const void *payload; /* borrowed */
    size_t bytes;
} ct_message;

typedef enum ct_message_state {
    CT_MESSAGE_PART, /* more bytes are needed */
    CT_MESSAGE_WHOLE,
    CT_MESSAGE_WRONG /* no message of ours */
} ct_message_state;

/* Writes it to `to`, of CT_MESSAGE_BYTES; the payload is cut to CT_MESSAGE_PAYLOAD. Returns the
 * bytes written. */
size_t ct_message_write(const ct_message *message, uint8_t *to);

/* The message at the beginning of `size` bytes; its payload lies among them. *used = its bytes when
 * it is whole. Wrong bytes are found out as soon as the first of them is there. */
ct_message_state ct_message_read(const uint8_t *bytes, size_t size, ct_message *out, size_t *used);

/* The payload as text for people: cut to the capacity, control characters replaced. */
void ct_message_text(const ct_message *message, char *to, size_t capacity);

/* Numbers in a payload. */
void ct_message_put_u64(uint8_t *to, uint64_t value);
uint64_t ct_message_get_u64(const uint8_t *from);

/* What a rank says of itself. */
typedef struct ct_hello {
    int rank, size;
    uint64_t config_hash;
    char host[CT_HOST_BYTES], version[CT_VERSION_BYTES], token[CT_TOKEN_BYTES];
} ct_hello;

/* Writes the message to `to`, of CT_MESSAGE_BYTES. Returns the bytes written. */
size_t ct_hello_write(const ct_hello *hello, uint8_t *to);

/* False when the message is none. The host has no control characters. */
bool ct_hello_read(const ct_message *message, ct_hello *out);

#endif
