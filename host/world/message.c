#include "world/message.h"

#include <string.h>

static const uint8_t magic[4] = {'c', 't', 'j', '1'};

static void put_little(uint8_t *to, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) to[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get_little(const uint8_t *from, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) value |= (uint64_t)from[i] << (8 * i);
    return value;
}

void ct_message_put_u64(uint8_t *to, uint64_t value)
{
    put_little(to, value, 8);
}

uint64_t ct_message_get_u64(const uint8_t *from)
{
    return get_little(from, 8);
}

size_t ct_message_write(const ct_message *message, uint8_t *to)
{
    size_t bytes = message->bytes < CT_MESSAGE_PAYLOAD ? message->bytes : CT_MESSAGE_PAYLOAD;
    memcpy(to, magic, sizeof magic);
    put_little(to + 4, message->kind, 2);
    put_little(to + 6, bytes, 2);
    put_little(to + 8, (uint32_t)message->rank, 4);
    put_little(to + 12, (uint32_t)message->value, 4);
    put_little(to + 16, message->number, 8);
    if (bytes) memcpy(to + CT_MESSAGE_HEADER, message->payload, bytes);
    return CT_MESSAGE_HEADER + bytes;
}

ct_message_state ct_message_read(const uint8_t *bytes, size_t size, ct_message *out, size_t *used)
{
    if (size && memcmp(bytes, magic, size < sizeof magic ? size : sizeof magic) != 0)
        return CT_MESSAGE_WRONG;
    if (size < CT_MESSAGE_HEADER) return CT_MESSAGE_PART;
    uint64_t kind = get_little(bytes + 4, 2);
    size_t payload = (size_t)get_little(bytes + 6, 2);
    if (kind < CT_MESSAGE_HELLO || kind > CT_MESSAGE_GOODBYE || payload > CT_MESSAGE_PAYLOAD)
        return CT_MESSAGE_WRONG;
    if (size - CT_MESSAGE_HEADER < payload) return CT_MESSAGE_PART;
    *out = (ct_message){
        .kind = (ct_message_kind)kind,
        .rank = (int32_t)get_little(bytes + 8, 4),
        .value = (int32_t)get_little(bytes + 12, 4),
        .number = get_little(bytes + 16, 8),
        .payload = bytes + CT_MESSAGE_HEADER,
        .bytes = payload,
    };
    *used = CT_MESSAGE_HEADER + payload;
    return CT_MESSAGE_WHOLE;
}

static void make_printable(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 127) *text = '?';
}

void ct_message_text(const ct_message *message, char *to, size_t capacity)
{
    size_t bytes = message->bytes < capacity - 1 ? message->bytes : capacity - 1;
    if (bytes) memcpy(to, message->payload, bytes);
    to[bytes] = '\0';
    make_printable(to);
}

static size_t put_string(uint8_t *to, size_t used, const char *text)
{
    size_t bytes = strlen(text) + 1;
    memcpy(to + used, text, bytes);
    return used + bytes;
}

size_t ct_hello_write(const ct_hello *hello, uint8_t *to)
{
    uint8_t payload[CT_HOST_BYTES + CT_VERSION_BYTES + CT_TOKEN_BYTES];
    size_t bytes = put_string(payload, 0, hello->host);
    bytes = put_string(payload, bytes, hello->version);
    bytes = put_string(payload, bytes, hello->token);
    ct_message message = {CT_MESSAGE_HELLO,   hello->rank, hello->size,
                          hello->config_hash, payload,     bytes};
    return ct_message_write(&message, to);
}

/* The next string of the payload; false when it does not end in it, or is too long. */
static bool get_string(const ct_message *message, size_t *at, char *to, size_t capacity)
{
    const char *from = (const char *)message->payload + *at;
    size_t left = message->bytes - *at, length = strnlen(from, left);
    if (length == left || length >= capacity) return false;
    memcpy(to, from, length + 1);
    *at += length + 1;
    return true;
}

bool ct_hello_read(const ct_message *message, ct_hello *out)
{
    size_t at = 0;
    if (message->kind != CT_MESSAGE_HELLO) return false;
    *out =
        (ct_hello){.rank = message->rank, .size = message->value, .config_hash = message->number};
    if (!get_string(message, &at, out->host, sizeof out->host) ||
        !get_string(message, &at, out->version, sizeof out->version) ||
        !get_string(message, &at, out->token, sizeof out->token) || at != message->bytes)
        return false;
    make_printable(out->host);
    make_printable(out->version);
    return true;
}
