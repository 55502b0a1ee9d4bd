/* The token sequences of a Vision Transformer. Bound by memory: every tensor is touched once. */
#include <string.h>

#include "cpu/internal.h"

static void sum_rows(float *y, const float *a, const float *b, int64_t width)
{
#pragma omp simd
    for (int64_t k = 0; k < width; k++) y[k] = a[k] + b[k];
}

ct_status ct_cpu_patch_tokens_fwd(ct_device *device, const ct_patch_tokens_fwd_args *args)
{
    const int64_t tokens = args->y.dim[1], width = args->y.dim[2];
    const float *position = ct_f32(&args->position);
#pragma omp parallel for schedule(static) num_threads(ct_cpu(device)->threads)
    for (int64_t n = 0; n < args->y.dim[0]; n++) {
        float *y = ct_f32(&args->y) + n * tokens * width;
        const float *patches = ct_f32(&args->patches) + n * (tokens - 1) * width;
        sum_rows(y, ct_f32(&args->class_token), position, width);
        sum_rows(y + width, patches, position + width, (tokens - 1) * width);
    }
    return CT_OK;
}

/* Each worker owns some of a sequence's places and adds up the photos in order. */
ct_status ct_cpu_patch_tokens_bwd(ct_device *device, const ct_patch_tokens_bwd_args *args)
{
    const int64_t count = args->dy.dim[0], tokens = args->dy.dim[1], width = args->dy.dim[2];
    const float *dy = ct_f32(&args->dy);
#pragma omp parallel for schedule(static) num_threads(ct_cpu(device)->threads)
    for (int64_t t = 0; t < tokens; t++) {
        float *dposition = ct_f32(&args->dposition) + t * width;
        for (int64_t n = 0; n < count; n++) {
            const float *row = dy + (n * tokens + t) * width;
            sum_rows(dposition, dposition, row, width);
            if (t == 0)
                sum_rows(ct_f32(&args->dclass_token), ct_f32(&args->dclass_token), row, width);
            else
                memcpy(ct_f32(&args->dpatches) + (n * (tokens - 1) + t - 1) * width, row,
                       (size_t)width * sizeof *row);
        }
    }
    return CT_OK;
}
