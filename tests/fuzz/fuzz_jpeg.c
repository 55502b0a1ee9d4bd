/* The JPEG decoder: any bytes give pixels or an error, and a region gives the whole's pixels. */
#include <stdlib.h>
#include <string.h>

#include "image/decoder.h"

#define MAX_PIXELS (1 << 16)

/* Frames larger than this take long and show nothing new. All frame headers are looked at. */
static int is_large(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i + 9 <= size; i++) {
        uint8_t marker = data[i + 1];
        if (data[i] != 0xFF || (marker & 0xF0) != 0xC0) continue;
        if (marker == 0xC4 || marker == 0xC8 || marker == 0xCC) continue; /* tables */
        uint32_t height = (uint32_t)data[i + 5] << 8 | data[i + 6];
        uint32_t width = (uint32_t)data[i + 7] << 8 | data[i + 8];
        if (height * width > MAX_PIXELS) return 1;
    }
    return 0;
}

/* Undamaged or not, a region that can be decoded is equal to that part of the whole. */
static void compare(const ct_pixels *whole, const ct_pixels *region, ct_box box, ct_box inside)
{
    for (int32_t y = 0; y < box.height; y++) {
        size_t from = ((size_t)(box.top + y) * (size_t)whole->width + (size_t)box.left) * 3;
        size_t to = ((size_t)(inside.top + y) * (size_t)region->width + (size_t)inside.left) * 3;
        if (memcmp(whole->data + from, region->data + to, (size_t)box.width * 3) != 0) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ct_decoder *first = NULL, *second = NULL;
    ct_pixels whole, region;
    ct_box box = {0}, inside;
    int32_t width, height;
    if (is_large(data, size)) return 0;
    if (ct_decoder_create(&first) != CT_OK || ct_decoder_create(&second) != CT_OK) abort();
    if (ct_decoder_parse(first, data, size, "fuzz", &whole) == CT_OK) {
        box = (ct_box){whole.width / 3, whole.height / 4, (whole.width + 2) / 3,
                       (whole.height + 1) / 2};
        if (ct_decoder_open_bytes(second, data, size, "fuzz", &width, &height) != CT_OK) abort();
        if (ct_decoder_decode(second, box, &region, &inside) == CT_OK)
            compare(&whole, &region, box, inside);
        uint8_t view[16 * 16 * 3];
        if (ct_image_resample(first, whole, box, CT_BICUBIC, true, 16, 16, view) != CT_OK) abort();
    }
    ct_decoder_destroy(first);
    ct_decoder_destroy(second);
    return 0;
}
