#include "config/text.h"

#include <string.h>
#include <utf8proc.h>

#define EXCERPT_TEXT_BYTES 64

bool ct_is_utf8(const char *text, size_t size)
{
    for (size_t at = 0; at < size;) {
        unsigned char byte = (unsigned char)text[at];
        if (byte == 0) return false;
        if (byte < 0x80) {
            at++;
            continue;
        }
        utf8proc_int32_t code;
        utf8proc_ssize_t bytes = utf8proc_iterate((const utf8proc_uint8_t *)text + at,
                                                  (utf8proc_ssize_t)(size - at), &code);
        if (bytes <= 0) return false;
        at += (size_t)bytes;
    }
    return true;
}

const char *ct_excerpt(const char *text, size_t size, char out[CT_EXCERPT_BYTES])
{
    char *end = out;
    size_t at = 0;
    while (at < size) {
        utf8proc_int32_t code;
        utf8proc_ssize_t bytes = utf8proc_iterate((const utf8proc_uint8_t *)text + at,
                                                  (utf8proc_ssize_t)(size - at), &code);
        bool shown = bytes > 0 && utf8proc_category(code) != UTF8PROC_CATEGORY_CC;
        size_t used = bytes > 0 ? (size_t)bytes : 1;
        if ((size_t)(end - out) + used > EXCERPT_TEXT_BYTES) break;
        if (shown) {
            memcpy(end, text + at, used);
            end += used;
        } else *end++ = '?';
        at += used;
    }
    strcpy(end, at < size ? "..." : "");
    return out;
}
