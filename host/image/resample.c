/* Two passes over 8-bit pixels, horizontal and vertical, with 8-bit pixels in between (Pillow's
 * ImagingResample). All sums are of integers, so the result does not depend on the vector width. */
#include <string.h>

#ifdef __SSE4_1__
#include <immintrin.h>
#endif

#include "base/memory.h"
#include "image/decoder.h"
#include "image/fixed.h"

#ifdef __AVX2__
#define LANES 8 /* of a vector of sums */
#else
#define LANES 4
#endif
#define ROWS_AT_ONCE 4 /* horizontal pass: independent sums hide the multiplications' latency */
#define BLOCK        8 /* vertical pass: vectors of sums at once, all in registers */
#define BLOCK_BYTES  (BLOCK * LANES)

/* A pixel in four lanes, the last one of no meaning; and LANES bytes of a row. */
typedef uint8_t pixel_bytes __attribute__((vector_size(4)));
typedef int32_t pixel_sums __attribute__((vector_size(16)));
typedef uint8_t lane_bytes __attribute__((vector_size(LANES)));
typedef int32_t lane_sums __attribute__((vector_size(LANES * 4)));

/* Bytes to 32-bit lanes: one instruction, which compilers do not find by themselves. */
static inline pixel_sums widen_pixel(const uint8_t *bytes)
{
#ifdef __SSE4_1__
    return (pixel_sums)_mm_cvtepu8_epi32(_mm_loadu_si32(bytes));
#else
    return (pixel_sums){bytes[0], bytes[1], bytes[2], bytes[3]};
#endif
}

static inline lane_sums widen_lanes(const uint8_t *bytes)
{
#ifdef __AVX2__
    return (lane_sums)_mm256_cvtepu8_epi32(_mm_loadu_si64(bytes));
#else
    return widen_pixel(bytes);
#endif
}

/* Integer part of vectors of sums, so that conversion to bytes gives the value clipped to 0..255:
 * negative lanes become 0, those over 255 all ones. */
#define CLIPPED(sums)                                                                              \
    ((((sums) >> CT_FIXED_BITS) & ~((sums) >> 31)) | (((sums) >> CT_FIXED_BITS) > 255))

/* Rows of pixels somewhere in a photo. */
typedef struct rows_view {
    const uint8_t *data; /* row 0, column first_column */
    size_t stride_bytes; /* from row to row */
    int32_t first_column;
    const uint8_t *last_row; /* replaces row `last` (NULL: none); see guard_last_row */
    int32_t last;
} rows_view;

static const uint8_t *row_of(const rows_view *view, int32_t row)
{
    if (view->last_row && row == view->last) return view->last_row;
    return view->data + (size_t)row * view->stride_bytes;
}

/* Loading a pixel as four bytes touches the byte behind it, and behind a photo's last row there may
 * be none: that row is read from a copy. */
static ct_status guard_last_row(ct_decoder *decoder, ct_box box, ct_pixels in, rows_view *view)
{
    size_t bytes = (size_t)box.width * 3;
    if (box.top + box.height < in.height) return CT_OK;
    CT_TRY(ct_grow(&decoder->last_row.data, &decoder->last_row.capacity, bytes + 1, 1,
                   "a row of pixels"));
    view->last = box.height - 1;
    memcpy(decoder->last_row.data, row_of(view, view->last), bytes);
    decoder->last_row.data[bytes] = 0;
    view->last_row = decoder->last_row.data;
    return CT_OK;
}

/* One output column of four rows; store_bytes: 4 where the byte behind the pixel may be touched. */
static inline void narrow_column(const uint8_t *const in[ROWS_AT_ONCE], int32_t taps,
                                 const int32_t *weight, size_t store_bytes,
                                 uint8_t *const out[ROWS_AT_ONCE])
{
    pixel_sums sums[ROWS_AT_ONCE];
    for (int r = 0; r < ROWS_AT_ONCE; r++) sums[r] = (pixel_sums){0} + CT_FIXED_HALF;
    for (int32_t t = 0; t < taps; t++) {
        for (int r = 0; r < ROWS_AT_ONCE; r++)
            sums[r] += widen_pixel(in[r] + (size_t)t * 3) * weight[t];
    }
    for (int r = 0; r < ROWS_AT_ONCE; r++) {
        pixel_bytes pixel = __builtin_convertvector(CLIPPED(sums[r]), pixel_bytes);
        memcpy(out[r], &pixel, store_bytes);
    }
}

/* out (end - begin, width, 3) = rows [begin, end) of the view, narrowed or widened. */
static void horizontal_pass(const rows_view *view, const ct_axis *axis, int32_t begin, int32_t end,
                            int32_t width, uint8_t *out)
{
    for (int32_t row = begin; row < end; row += ROWS_AT_ONCE) {
        const uint8_t *in_rows[ROWS_AT_ONCE];
        uint8_t *out_rows[ROWS_AT_ONCE];
        for (int r = 0; r < ROWS_AT_ONCE; r++) { /* past the end: the last row once more */
            int32_t at = row + r < end ? row + r : end - 1;
            in_rows[r] = row_of(view, at);
            out_rows[r] = out + (size_t)(at - begin) * (size_t)width * 3;
        }
        for (int32_t x = 0; x < width; x++) {
            const uint8_t *in[ROWS_AT_ONCE];
            const int32_t *weight = axis->weight + (size_t)x * (size_t)axis->stride;
            size_t first = (size_t)(axis->first[x] - view->first_column) * 3;
            for (int r = 0; r < ROWS_AT_ONCE; r++) in[r] = in_rows[r] + first;
            if (x + 1 < width) narrow_column(in, axis->taps[x], weight, 4, out_rows);
            else narrow_column(in, axis->taps[x], weight, 3, out_rows);
            for (int r = 0; r < ROWS_AT_ONCE; r++) out_rows[r] += 3;
        }
    }
}

/* BLOCK_BYTES bytes of one output row. */
static inline void blend_block(const uint8_t *in, size_t stride_bytes, int32_t taps,
                               const int32_t *weight, uint8_t *out)
{
    lane_sums sums[BLOCK];
    for (int i = 0; i < BLOCK; i++) sums[i] = (lane_sums){0} + CT_FIXED_HALF;
    for (int32_t t = 0; t < taps; t++, in += stride_bytes) {
        for (int i = 0; i < BLOCK; i++) sums[i] += widen_lanes(in + i * LANES) * weight[t];
    }
    for (int i = 0; i < BLOCK; i++) {
        lane_bytes bytes = __builtin_convertvector(CLIPPED(sums[i]), lane_bytes);
        memcpy(out + i * LANES, &bytes, sizeof bytes);
    }
}

/* One byte, for rows shorter than a block. */
static inline uint8_t blend_byte(const uint8_t *in, size_t stride_bytes, int32_t taps,
                                 const int32_t *weight)
{
    int32_t sum = CT_FIXED_HALF;
    for (int32_t t = 0; t < taps; t++) sum += in[(size_t)t * stride_bytes] * weight[t];
    sum >>= CT_FIXED_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* out (height, row_bytes); in: row `first_row` of the axis's input, rows stride_bytes apart. */
static void vertical_pass(const uint8_t *in, size_t stride_bytes, int32_t first_row,
                          const ct_axis *axis, int32_t height, int32_t row_bytes, uint8_t *out)
{
    for (int32_t y = 0; y < height; y++, out += row_bytes) {
        const uint8_t *rows = in + (size_t)(axis->first[y] - first_row) * stride_bytes;
        const int32_t *weight = axis->weight + (size_t)y * (size_t)axis->stride;
        int32_t taps = axis->taps[y];
        if (row_bytes < BLOCK_BYTES) {
            for (int32_t x = 0; x < row_bytes; x++)
                out[x] = blend_byte(rows + x, stride_bytes, taps, weight);
            continue;
        }
        for (int32_t x = 0; x < row_bytes; x += BLOCK_BYTES) {
            int32_t at = x + BLOCK_BYTES <= row_bytes ? x : row_bytes - BLOCK_BYTES;
            blend_block(rows + at, stride_bytes, taps, weight, out + at);
        }
    }
}

static ct_status check_boxes(ct_pixels in, ct_box box, int32_t full_width, int32_t full_height,
                             ct_box window)
{
    bool inside = box.left >= 0 && box.top >= 0 && box.width > 0 && box.height > 0 &&
                  box.width <= in.width - box.left && box.height <= in.height - box.top;
    if (!inside)
        return ct_fail(CT_ERR_ARGUMENT,
                       "box of %d x %d pixels at (%d, %d) is not within a photo of %d x %d",
                       box.width, box.height, box.left, box.top, in.width, in.height);
    inside = window.left >= 0 && window.top >= 0 && window.width > 0 && window.height > 0 &&
             window.width <= full_width - window.left && window.height <= full_height - window.top;
    if (!inside)
        return ct_fail(CT_ERR_ARGUMENT, "no %d x %d pixels at (%d, %d) in a view of %d x %d",
                       window.width, window.height, window.left, window.top, full_width,
                       full_height);
    return CT_OK;
}

/* Which pass comes first shows in the last place, as pixels are rounded to 8 bits in between.
 * Pillow starts with the horizontal one, but from version 13 on (its pull request 9549) with the
 * vertical one where the height shrinks by more than twice as many pixels as the width. */
static bool vertical_first(ct_box box, int32_t width, int32_t height)
{
    return height < box.height && (int64_t)box.height - height > 2 * ((int64_t)box.width - width);
}

static ct_status grow_between(ct_decoder *decoder, size_t rows, size_t row_bytes)
{
    return ct_grow(&decoder->between.data, &decoder->between.capacity, rows * row_bytes + 1, 1,
                   "pixels between two passes");
}

static ct_status narrow_then_blend(ct_decoder *decoder, const rows_view *view, int32_t width,
                                   int32_t height, uint8_t *out)
{
    int32_t begin, end;
    ct_axis_inputs(&decoder->vertical, height, &begin, &end);
    CT_TRY(grow_between(decoder, (size_t)(end - begin), (size_t)width * 3));
    horizontal_pass(view, &decoder->horizontal, begin, end, width, decoder->between.data);
    vertical_pass(decoder->between.data, (size_t)width * 3, begin, &decoder->vertical, height,
                  width * 3, out);
    return CT_OK;
}

static ct_status blend_then_narrow(ct_decoder *decoder, const rows_view *view, int32_t width,
                                   int32_t height, uint8_t *out)
{
    int32_t begin, end;
    ct_axis_inputs(&decoder->horizontal, width, &begin, &end);
    size_t row_bytes = (size_t)(end - begin) * 3;
    CT_TRY(grow_between(decoder, (size_t)height, row_bytes));
    vertical_pass(view->data + (size_t)begin * 3, view->stride_bytes, 0, &decoder->vertical, height,
                  (int32_t)row_bytes, decoder->between.data);
    rows_view blended = {
        .data = decoder->between.data, .stride_bytes = row_bytes, .first_column = begin};
    horizontal_pass(&blended, &decoder->horizontal, 0, height, width, out);
    return CT_OK;
}

ct_status ct_image_resample_window(ct_decoder *decoder, ct_pixels in, ct_box box,
                                   ct_interpolation interpolation, bool mirror, int32_t full_width,
                                   int32_t full_height, ct_box window, uint8_t *out)
{
    CT_TRY(check_boxes(in, box, full_width, full_height, window));
    bool narrow = full_width != box.width || mirror, blend = full_height != box.height;
    rows_view view = {.stride_bytes = (size_t)in.width * 3};
    view.data = in.data + (size_t)box.top * view.stride_bytes + (size_t)box.left * 3;
    if (blend)
        CT_TRY(ct_axis_build(&decoder->vertical, interpolation, box.height, full_height, window.top,
                             window.height, false));
    if (narrow) {
        CT_TRY(guard_last_row(decoder, box, in, &view));
        CT_TRY(ct_axis_build(&decoder->horizontal, interpolation, box.width, full_width,
                             window.left, window.width, mirror));
    }
    if (narrow && blend && vertical_first(box, full_width, full_height))
        return blend_then_narrow(decoder, &view, window.width, window.height, out);
    if (narrow && blend) return narrow_then_blend(decoder, &view, window.width, window.height, out);
    if (narrow) {
        horizontal_pass(&view, &decoder->horizontal, window.top, window.top + window.height,
                        window.width, out);
        return CT_OK;
    }
    const uint8_t *rows = view.data + (size_t)window.left * 3;
    int32_t row_bytes = window.width * 3;
    if (blend)
        vertical_pass(rows, view.stride_bytes, 0, &decoder->vertical, window.height, row_bytes,
                      out);
    else
        for (int32_t y = window.top; y < window.top + window.height; y++, out += row_bytes)
            memcpy(out, rows + (size_t)y * view.stride_bytes, (size_t)row_bytes);
    return CT_OK;
}

ct_status ct_image_resample(ct_decoder *decoder, ct_pixels in, ct_box box,
                            ct_interpolation interpolation, bool mirror, int32_t width,
                            int32_t height, uint8_t *out)
{
    return ct_image_resample_window(decoder, in, box, interpolation, mirror, width, height,
                                    (ct_box){0, 0, width, height}, out);
}
