/* Embedding look-up and row gathering over packed tokens. */
#include <omp.h>
#include <string.h>

#include "cpu/internal.h"

/* Floats a cache line holds: workers that share rows own whole lines of them. */
enum { LINE = CT_ALIGNMENT / (int)sizeof(float) };

/* A wrong id would read or write anywhere, so what the caller promised is checked. */
static ct_status check_ids(const ct_tensor *ids, int64_t limit, const char *what)
{
    const int32_t *id = ct_i32(ids);
    int32_t lowest = 0, highest = -1;
#pragma omp simd reduction(min : lowest) reduction(max : highest)
    for (int64_t i = 0; i < ids->dim[0]; i++) {
        lowest = id[i] < lowest ? id[i] : lowest;
        highest = id[i] > highest ? id[i] : highest;
    }
    if (lowest >= 0 && highest < limit) return CT_OK;
    return ct_fail(CT_ERR_ARGUMENT, "%s must be from 0 to %lld, found %d", what,
                   (long long)limit - 1, lowest < 0 ? lowest : highest);
}

ct_status ct_cpu_embedding_fwd(ct_device *device, const ct_embedding_fwd_args *args)
{
    CT_TRY(check_ids(&args->ids, args->word.dim[0], "token ids"));
    CT_TRY(check_ids(&args->positions, args->position.dim[0], "token positions"));
    int64_t width = args->y.dim[1];
    const float *type = ct_tensor_present(&args->type) ? ct_f32(&args->type) : NULL;
#pragma omp parallel for schedule(static) num_threads(ct_cpu(device)->threads)
    for (int64_t t = 0; t < args->y.dim[0]; t++) {
        float *y = ct_f32(&args->y) + t * width;
        const float *word = ct_f32(&args->word) + ct_i32(&args->ids)[t] * width;
        const float *position = ct_f32(&args->position) + ct_i32(&args->positions)[t] * width;
        if (type) {
#pragma omp simd
            for (int64_t j = 0; j < width; j++) y[j] = word[j] + position[j] + type[j];
        } else {
#pragma omp simd
            for (int64_t j = 0; j < width; j++) y[j] = word[j] + position[j];
        }
    }
    return CT_OK;
}

/* sum[0..count) += x[0..count) */
static void accumulate(float *sum, const float *x, int64_t count)
{
#pragma omp simd
    for (int64_t j = 0; j < count; j++) sum[j] += x[j];
}

/* Every worker owns a strip of columns of all tables and goes through the tokens in order, so rows
 * named twice need no locks and the order of additions does not depend on the threads. */
ct_status ct_cpu_embedding_bwd(ct_device *device, const ct_embedding_bwd_args *args)
{
    CT_TRY(check_ids(&args->ids, args->dword.dim[0], "token ids"));
    CT_TRY(check_ids(&args->positions, args->dposition.dim[0], "token positions"));
    int64_t width = args->dy.dim[1], lines = (width + LINE - 1) / LINE;
    float *dtype = ct_tensor_present(&args->dtype) ? ct_f32(&args->dtype) : NULL;
#pragma omp parallel num_threads(ct_cpu(device)->threads)
    {
        int64_t begin, end;
        ct_cpu_share(lines, omp_get_num_threads(), omp_get_thread_num(), &begin, &end);
        begin *= LINE;
        end = end * LINE < width ? end * LINE : width;
        for (int64_t t = 0; t < args->dy.dim[0]; t++) {
            const float *dy = ct_f32(&args->dy) + t * width + begin;
            int64_t word = ct_i32(&args->ids)[t], position = ct_i32(&args->positions)[t];
            accumulate(ct_f32(&args->dword) + word * width + begin, dy, end - begin);
            accumulate(ct_f32(&args->dposition) + position * width + begin, dy, end - begin);
            if (dtype) accumulate(dtype + begin, dy, end - begin);
        }
    }
    return CT_OK;
}

ct_status ct_cpu_gather_rows_fwd(ct_device *device, const ct_gather_rows_fwd_args *args)
{
    CT_TRY(check_ids(&args->index, args->x.dim[0], "row indices"));
    int64_t width = args->y.dim[1];
    size_t row_bytes = (size_t)width * sizeof(float);
#pragma omp parallel for schedule(static) num_threads(ct_cpu(device)->threads)
    for (int64_t i = 0; i < args->y.dim[0]; i++)
        memcpy(ct_f32(&args->y) + i * width, ct_f32(&args->x) + ct_i32(&args->index)[i] * width,
               row_bytes);
    return CT_OK;
}

ct_status ct_cpu_gather_rows_bwd(ct_device *device, const ct_gather_rows_bwd_args *args)
{
    CT_TRY(check_ids(&args->index, args->dx.dim[0], "row indices"));
    int64_t width = args->dx.dim[1];
    size_t row_bytes = (size_t)width * sizeof(float);
#pragma omp parallel num_threads(ct_cpu(device)->threads)
    {
#pragma omp for schedule(static)
        for (int64_t t = 0; t < args->dx.dim[0]; t++)
            memset(ct_f32(&args->dx) + t * width, 0, row_bytes);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < args->dy.dim[0]; i++)
            memcpy(ct_f32(&args->dx) + ct_i32(&args->index)[i] * width,
                   ct_f32(&args->dy) + i * width, row_bytes);
    }
    return CT_OK;
}
