#include "train/report_text.h"

#include <inttypes.h>
#include <math.h>

/* Length of the well-formed UTF-8 character at `s` (Unicode 15, table 3-7), 0 if there is none. The
 * terminating NUL is no continuation byte, so nothing behind it is read. */
static int utf8_length(const unsigned char *s)
{
    unsigned char low = 0x80, high = 0xBF;
    int length;
    if (s[0] < 0x80) return 1;
    if (s[0] < 0xC2 || s[0] > 0xF4) return 0;
    length = s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    if (s[0] == 0xE0) low = 0xA0;       /* overlong */
    else if (s[0] == 0xED) high = 0x9F; /* surrogates */
    else if (s[0] == 0xF0) low = 0x90;  /* overlong */
    else if (s[0] == 0xF4) high = 0x8F; /* beyond U+10FFFF */
    if (s[1] < low || s[1] > high) return 0;
    for (int i = 2; i < length; i++)
        if (s[i] < 0x80 || s[i] > 0xBF) return 0;
    return length;
}

static const char *reference(unsigned char c)
{
    switch (c) {
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '&':
        return "&amp;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return c < 0x20 || c == 0x7F ? " " : NULL;
    }
}

void ct_report_text(FILE *stream, const char *text)
{
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        int length = utf8_length(s);
        const char *instead = length == 0 ? "\xEF\xBF\xBD" : reference(*s);
        if (instead) fputs(instead, stream);
        else fwrite(s, 1, (size_t)length, stream);
        s += length ? length : 1;
    }
}

void ct_report_count(FILE *stream, int64_t count)
{
    char digits[24];
    int n =
        snprintf(digits, sizeof digits, "%" PRIu64, count < 0 ? -(uint64_t)count : (uint64_t)count);
    if (count < 0) fputc('-', stream);
    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0) fputc(',', stream);
        fputc(digits[i], stream);
    }
}

void ct_report_rank(FILE *stream, double rank)
{
    if (!(rank >= 0 && rank < 0x1p53)) {
        fputs("–", stream);
        return;
    }
    if (rank >= 999.95) {
        ct_report_count(stream, llround(rank));
        return;
    }
    long tenths = lround(10 * rank);
    fprintf(stream, tenths % 10 ? "%ld.%ld" : "%ld", tenths / 10, tenths % 10);
}

void ct_report_base64(FILE *stream, const uint8_t *bytes, size_t size)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < size; i += 3) {
        size_t left = size - i;
        uint32_t group = (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                         (left > 2 ? bytes[i + 2] : 0);
        fputc(alphabet[group >> 18], stream);
        fputc(alphabet[group >> 12 & 63], stream);
        fputc(left > 1 ? alphabet[group >> 6 & 63] : '=', stream);
        fputc(left > 2 ? alphabet[group & 63] : '=', stream);
    }
}
