/* Writing text, numbers and bytes into the report. Write errors stay in the stream (ferror) and are
 * looked at once, at the end. */
#ifndef CT_TRAIN_REPORT_TEXT_H
#define CT_TRAIN_REPORT_TEXT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* User text, for element content and quoted attributes: <, >, &, " and ' become references, control
 * characters spaces, and each byte that is no part of well-formed UTF-8 U+FFFD. */
void ct_report_text(FILE *stream, const char *text);

/* 1234567 as "1,234,567". */
void ct_report_count(FILE *stream, int64_t count);

/* A rank: "14", "14.5", "1,204". */
void ct_report_rank(FILE *stream, double rank);

/* RFC 4648 section 4, with padding. */
void ct_report_base64(FILE *stream, const uint8_t *bytes, size_t size);

#endif
