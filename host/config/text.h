/* Text that comes from outside: is it UTF-8, and how to show it in a message. */
#ifndef CT_CONFIG_TEXT_H
#define CT_CONFIG_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Whether the bytes are well-formed UTF-8 (RFC 3629) without NUL. */
bool ct_is_utf8(const char *text, size_t size);

/* Room for an excerpt with its dots and NUL. */
#define CT_EXCERPT_BYTES 68

/* out = the text, cut after some 60 bytes with "...". Control characters and bytes
 * that are not UTF-8 become '?', so a message stays one line and cannot drive a terminal. Returns
 * out, for use as an argument. */
const char *ct_excerpt(const char *text, size_t size, char out[CT_EXCERPT_BYTES]);

#endif
