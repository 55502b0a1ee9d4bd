/* Any bytes from a connection: messages of bounded size, or an end. Whole, or in two parts, they
 * are read alike; what was read is written as the same bytes. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "world/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition) abort();
}

static void check_text(const char *text, size_t capacity)
{
    size_t length = strnlen(text, capacity);
    require(length < capacity);
    for (size_t i = 0; i < length; i++) require((unsigned char)text[i] >= ' ' && text[i] != 127);
}

static void check(const ct_message *message, const uint8_t *from, size_t used)
{
    uint8_t bytes[CT_MESSAGE_BYTES];
    require(message->bytes <= CT_MESSAGE_PAYLOAD);
    require(ct_message_write(message, bytes) == used && memcmp(bytes, from, used) == 0);
    char text[100];
    ct_message_text(message, text, sizeof text);
    check_text(text, sizeof text);
    ct_hello hello;
    if (!ct_hello_read(message, &hello)) return;
    check_text(hello.host, sizeof hello.host);
    check_text(hello.version, sizeof hello.version);
    require(memchr(hello.token, '\0', sizeof hello.token));
    require(ct_hello_write(&hello, bytes) == used);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ct_message message, again;
    size_t used = 0;
    while (ct_message_read(data, size, &message, &used) == CT_MESSAGE_WHOLE) {
        require(used >= CT_MESSAGE_HEADER && used <= size && used <= CT_MESSAGE_BYTES);
        size_t part = used / 2, ignored = 0;
        require(ct_message_read(data, part, &again, &ignored) == CT_MESSAGE_PART);
        check(&message, data, used);
        data += used;
        size -= used;
    }
    return 0;
}
