/* What the tests of images share. */
#ifndef CT_TESTS_IMAGE_SUPPORT_H
#define CT_TESTS_IMAGE_SUPPORT_H

#include "../support.h"
#include "image/image.h"

/* CRC-32 of zlib, as golden.txt has it. */
uint32_t crc32_of(const void *bytes, size_t size);

/* width * height * 3 bytes of a fixed pattern, in a block of exactly that size; free(). */
uint8_t *pattern(int32_t width, int32_t height);

/* Calls `check` with the rest of each line of golden.txt that starts with `kind`; returns their
 * number. */
int for_each_golden(const char *kind, void (*check)(ct_decoder *decoder, const char *line));

int run_decode_tests(void);
int run_region_tests(void);
int run_resample_tests(void);
int run_view_tests(void);

#endif
