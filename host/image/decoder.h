/* Inside of the image module: what a ct_decoder holds. */
#ifndef CT_IMAGE_DECODER_H
#define CT_IMAGE_DECODER_H

#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <jpeglib.h>

#include "image/image.h"

/* Grows, never shrinks (ct_grow). */
typedef struct ct_bytes {
    uint8_t *data;
    size_t capacity;
} ct_bytes;

/* One direction of a resampling: output o is the sum of weight[o * stride + t] times input
 * first[o] + t over t < taps[o]. */
typedef struct ct_axis {
    int32_t *first, *taps, *weight;
    double *real; /* the weights of one output before rounding */
    size_t first_capacity, taps_capacity, weight_capacity, real_capacity;
    int32_t stride;
} ct_axis;

struct ct_decoder {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    jmp_buf failed;    /* libjpeg's errors arrive here */
    ct_status status;  /* of the failure */
    const char *name;  /* of the photo, for messages */
    ct_bytes file;     /* its bytes */
    ct_bytes pixels;   /* decoded */
    ct_bytes cmyk_row; /* one row before its conversion */

    ct_axis horizontal, vertical;
    ct_bytes between;  /* pixels between the two passes */
    ct_bytes last_row; /* copy of a photo's last row, with room behind it */
};

/* Reads a file (parse: takes bytes, borrowed until the photo is decoded) up to the image data and
 * tells the photo's size. */
CT_NODISCARD ct_status ct_decoder_open(ct_decoder *decoder, const char *path, int32_t *width,
                                       int32_t *height);
CT_NODISCARD ct_status ct_decoder_open_bytes(ct_decoder *decoder, const uint8_t *bytes, size_t size,
                                             const char *name, int32_t *width, int32_t *height);

/* Decodes the opened photo as far as `box` needs: *out is a region that holds it, *inside is the
 * box in that region. The pixels of the box are those of the whole photo's decoding. Rows behind
 * the box of a photo of one scan are not decoded: that the file ends properly is checked, other
 * damage there goes unseen. */
CT_NODISCARD ct_status ct_decoder_decode(ct_decoder *decoder, ct_box box, ct_pixels *out,
                                         ct_box *inside);

/* As ct_image_resample to full_width x full_height, of which only `window` is computed into out
 * (window.height, window.width, 3). */
CT_NODISCARD ct_status ct_image_resample_window(ct_decoder *decoder, ct_pixels in, ct_box box,
                                                ct_interpolation interpolation, bool mirror,
                                                int32_t full_width, int32_t full_height,
                                                ct_box window, uint8_t *out);

/* Sets up the weights of outputs [begin, begin + count) of a resampling from in_size to out_size;
 * reversed: in descending order. */
CT_NODISCARD ct_status ct_axis_build(ct_axis *axis, ct_interpolation interpolation, int32_t in_size,
                                     int32_t out_size, int32_t begin, int32_t count, bool reversed);
void ct_axis_free(ct_axis *axis);

/* The inputs [*begin, *end) that outputs [0, count) of the axis read. */
void ct_axis_inputs(const ct_axis *axis, int32_t count, int32_t *begin, int32_t *end);

#endif
