/* Max and average pooling, vectorised over channels. Each worker writes its own rows of the
 * output, so nothing depends on the number of threads. */
#include <assert.h>

#include "cpu/internal.h"

/* A square window over one image; positions count row by row from its upper left corner. */
typedef struct window {
    int64_t h, w, ho, wo, c;
    int size, stride, pad;
} window;

/* Starts with the first valid position; a later one wins when it is larger or NaN, as in PyTorch,
 * so a NaN anywhere is seen in the result. */
static void max_position(const window *p, const float *restrict x, int64_t oh, int64_t ow,
                         float *restrict y, uint8_t *restrict index)
{
    bool first = true;
    for (int kh = 0; kh < p->size; kh++) {
        int64_t h = oh * p->stride - p->pad + kh;
        if (h < 0 || h >= p->h) continue;
        for (int kw = 0; kw < p->size; kw++) {
            int64_t w = ow * p->stride - p->pad + kw;
            if (w < 0 || w >= p->w) continue;
            const float *restrict v = x + (h * p->w + w) * p->c;
            const uint8_t place = (uint8_t)(kh * p->size + kw);
#pragma omp simd
            for (int64_t c = 0; c < p->c; c++) {
                bool wins = first || v[c] > y[c] || v[c] != v[c];
                y[c] = wins ? v[c] : y[c];
                index[c] = wins ? place : index[c];
            }
            first = false;
        }
    }
}

ct_status ct_cpu_maxpool_fwd(ct_device *device, const ct_maxpool_fwd_args *args)
{
    const window p = {.h = args->x.dim[1],
                      .w = args->x.dim[2],
                      .ho = args->y.dim[1],
                      .wo = args->y.dim[2],
                      .c = args->x.dim[3],
                      .size = args->window,
                      .stride = args->stride,
                      .pad = args->pad};
    assert(p.size * p.size <= 256 && 2 * p.pad <= p.size);
    const float *x = ct_f32(&args->x);
    float *y = ct_f32(&args->y);
    uint8_t *index = ct_u8(&args->index);
    const int64_t rows = args->y.dim[0] * p.ho;
#pragma omp parallel for schedule(static) num_threads(ct_cpu(device)->threads)
    for (int64_t row = 0; row < rows; row++) {
        const float *image = x + row / p.ho * p.h * p.w * p.c;
        for (int64_t ow = 0; ow < p.wo; ow++) {
            int64_t at = (row * p.wo + ow) * p.c;
            max_position(&p, image, row % p.ho, ow, y + at, index + at);
        }
    }
    return CT_OK;
}

/* The windows o with o stride - pad <= i < o stride - pad + size are *first ... *last. */
static void windows_over(int64_t i, const window *p, int64_t count, int64_t *first, int64_t *last)
{
    int64_t end = i + p->pad;
    *first = end < p->size ? 0 : (end - p->size) / p->stride + 1;
    *last = end / p->stride < count ? end / p->stride : count - 1;
}

/* Collects, for one input position, from every window over it that it won. */
static void collect_position(const window *p, int64_t h, int64_t w, const float *restrict dy,
                             const uint8_t *restrict index, float *restrict dx)
{
    int64_t oh_first, oh_last, ow_first, ow_last;
    windows_over(h, p, p->ho, &oh_first, &oh_last);
    windows_over(w, p, p->wo, &ow_first, &ow_last);
    for (int64_t c = 0; c < p->c; c++) dx[c] = 0.0f;
    for (int64_t oh = oh_first; oh <= oh_last; oh++) {
        for (int64_t ow = ow_first; ow <= ow_last; ow++) {
            int64_t kh = h + p->pad - oh * p->stride, kw = w + p->pad - ow * p->stride;
            const uint8_t place = (uint8_t)(kh * p->size + kw);
            const int64_t at = (oh * p->wo + ow) * p->c;
#pragma omp simd
            for (int64_t c = 0; c < p->c; c++) dx[c] += index[at + c] == place ? dy[at + c] : 0.0f;
        }
    }
}

ct_status ct_cpu_maxpool_bwd(ct_device *device, const ct_maxpool_bwd_args *args)
{
    const window p = {.h = args->dx.dim[1],
                      .w = args->dx.dim[2],
                      .ho = args->dy.dim[1],
                      .wo = args->dy.dim[2],
                      .c = args->dx.dim[3],
                      .size = args->window,
                      .stride = args->stride,
                      .pad = args->pad};
    const float *dy = ct_f32(&args->dy);
    const uint8_t *index = ct_u8(&args->index);
    float *dx = ct_f32(&args->dx);
    const int64_t rows = args->dx.dim[0] * p.h;
#pragma omp parallel for schedule(static) num_threads(ct_cpu(device)->threads)
    for (int64_t row = 0; row < rows; row++) {
        const int64_t image = row / p.h * p.ho * p.wo * p.c;
        for (int64_t w = 0; w < p.w; w++)
            collect_position(&p, row % p.h, w, dy + image, index + image,
                             dx + (row * p.w + w) * p.c);
    }
    return CT_OK;
}

/* Channels that one worker averages at a time. */
#define AVERAGE_CHANNELS 64

ct_status ct_cpu_avgpool_fwd(ct_device *device, const ct_avgpool_fwd_args *args)
{
    const int64_t channels = args->x.dim[3], positions = args->x.dim[1] * args->x.dim[2];
    const int64_t blocks = (channels + AVERAGE_CHANNELS - 1) / AVERAGE_CHANNELS;
    const float *x = ct_f32(&args->x);
    float *y = ct_f32(&args->y);
#pragma omp parallel for collapse(2) schedule(static) num_threads(ct_cpu(device)->threads)
    for (int64_t n = 0; n < args->x.dim[0]; n++) {
        for (int64_t block = 0; block < blocks; block++) {
            const int64_t begin = block * AVERAGE_CHANNELS;
            const int64_t count =
                channels - begin < AVERAGE_CHANNELS ? channels - begin : AVERAGE_CHANNELS;
            double sum[AVERAGE_CHANNELS] = {0};
            for (int64_t i = 0; i < positions; i++) {
                const float *restrict v = x + (n * positions + i) * channels + begin;
#pragma omp simd
                for (int64_t c = 0; c < count; c++) sum[c] += (double)v[c];
            }
            for (int64_t c = 0; c < count; c++)
                y[n * channels + begin + c] = (float)(sum[c] / (double)positions);
        }
    }
    return CT_OK;
}

ct_status ct_cpu_avgpool_bwd(ct_device *device, const ct_avgpool_bwd_args *args)
{
    const int64_t channels = args->dx.dim[3], positions = args->dx.dim[1] * args->dx.dim[2];
    const float *restrict dy = ct_f32(&args->dy);
    float *restrict dx = ct_f32(&args->dx);
    const int64_t rows = args->dx.dim[0] * positions;
    const float share = (float)(1.0 / (double)positions);
#pragma omp parallel for schedule(static) num_threads(ct_cpu(device)->threads)
    for (int64_t row = 0; row < rows; row++) {
        const float *restrict from = dy + row / positions * channels;
#pragma omp simd
        for (int64_t c = 0; c < channels; c++) dx[row * channels + c] = from[c] * share;
    }
    return CT_OK;
}
