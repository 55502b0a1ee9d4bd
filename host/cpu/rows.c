/* Operations on the rows of a matrix: layer normalisation, sum, dropout, L2 normalisation. All are
 * bound by memory: each reads and writes its tensors once, a row staying in the first-level cache
 * while its statistics are taken. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "cpu/dropout_mask.h"
#include "cpu/internal.h"

/* Elementwise operations are dealt out in pieces of this many elements. */
enum { PIECE = 16 * CT_MASK_GROUP };

static float sum_of(const float *x, int64_t count)
{
    float total = 0.0f;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < count; i++) total += x[i];
    return total;
}

static float squared_distance(const float *x, float from, int64_t count)
{
    float total = 0.0f;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < count; i++) total += (x[i] - from) * (x[i] - from);
    return total;
}

/* Two passes over the row: the variance of centred values loses no digits to a large mean. */
static void layernorm_row(const ct_layernorm_fwd_args *a, int64_t row)
{
    int64_t width = a->x.dim[1];
    const float *x = ct_f32(&a->x) + row * width;
    const float *gamma = ct_f32(&a->gamma), *beta = ct_f32(&a->beta);
    float *y = ct_f32(&a->y) + row * width;
    if (ct_tensor_present(&a->residual)) {
        const float *residual = ct_f32(&a->residual) + row * width;
        float *sum = ct_f32(&a->sum) + row * width;
#pragma omp simd
        for (int64_t j = 0; j < width; j++) sum[j] = x[j] + residual[j];
        x = sum;
    }
    float mean = sum_of(x, width) / (float)width;
    float rstd = 1.0f / sqrtf(squared_distance(x, mean, width) / (float)width + a->eps);
#pragma omp simd
    for (int64_t j = 0; j < width; j++) y[j] = gamma[j] * ((x[j] - mean) * rstd) + beta[j];
    ct_f32(&a->mean)[row] = mean;
    ct_f32(&a->rstd)[row] = rstd;
}

ct_status ct_cpu_layernorm_fwd(ct_device *device, const ct_layernorm_fwd_args *args)
{
#pragma omp parallel for schedule(static) num_threads(ct_cpu(device)->threads)
    for (int64_t row = 0; row < args->x.dim[0]; row++) layernorm_row(args, row);
    return CT_OK;
}

/* With g = gamma dy and xhat = (x - mean) rstd:
 * dx = rstd (g - mean(g) - xhat mean(g xhat)) + dskip. dgamma and dbeta are this worker's own. */
static void layernorm_row_bwd(const ct_layernorm_bwd_args *a, int64_t row, float *dgamma,
                              float *dbeta)
{
    int64_t width = a->x.dim[1];
    const float *dy = ct_f32(&a->dy) + row * width, *x = ct_f32(&a->x) + row * width;
    const float *gamma = ct_f32(&a->gamma);
    float mean = ct_f32(&a->mean)[row], rstd = ct_f32(&a->rstd)[row];
    float sum_g = 0.0f, sum_g_xhat = 0.0f;
#pragma omp simd reduction(+ : sum_g, sum_g_xhat)
    for (int64_t j = 0; j < width; j++) {
        float xhat = (x[j] - mean) * rstd, g = gamma[j] * dy[j];
        sum_g += g;
        sum_g_xhat += g * xhat;
        dgamma[j] += dy[j] * xhat;
        dbeta[j] += dy[j];
    }
    float mean_g = sum_g / (float)width, mean_g_xhat = sum_g_xhat / (float)width;
    float *dx = ct_f32(&a->dx) + row * width;
    const float *dskip = ct_tensor_present(&a->dskip) ? ct_f32(&a->dskip) + row * width : NULL;
    if (dskip) {
#pragma omp simd
        for (int64_t j = 0; j < width; j++) {
            float xhat = (x[j] - mean) * rstd;
            dx[j] = rstd * (gamma[j] * dy[j] - mean_g - xhat * mean_g_xhat) + dskip[j];
        }
    } else {
#pragma omp simd
        for (int64_t j = 0; j < width; j++) {
            float xhat = (x[j] - mean) * rstd;
            dx[j] = rstd * (gamma[j] * dy[j] - mean_g - xhat * mean_g_xhat);
        }
    }
}

/* Workspace: a (2, D) sum of each worker, padded to whole cache lines; added up in worker order. */
ct_status ct_cpu_layernorm_bwd(ct_device *device, const ct_layernorm_bwd_args *args)
{
    ct_cpu_device *cpu = ct_cpu(device);
    int64_t rows = args->x.dim[0], width = args->x.dim[1];
    size_t partial_bytes = ct_cpu_aligned((size_t)(2 * width) * sizeof(float));
    int64_t stride = (int64_t)(partial_bytes / sizeof(float));
    float *partial;
    CT_TRY(ct_cpu_workspace(cpu, (size_t)cpu->threads * partial_bytes, &partial));
    if (cpu->preparing) return CT_OK;

    float *dgamma = ct_f32(&args->dgamma), *dbeta = ct_f32(&args->dbeta);
#pragma omp parallel num_threads(cpu->threads)
    {
        int worker = omp_get_thread_num(), workers = omp_get_num_threads();
        float *own = partial + worker * stride;
        memset(own, 0, partial_bytes);
        int64_t begin, end;
        ct_cpu_share(rows, workers, worker, &begin, &end);
        for (int64_t row = begin; row < end; row++) layernorm_row_bwd(args, row, own, own + width);
#pragma omp barrier
        ct_cpu_share(width, workers, worker, &begin, &end);
        for (int w = 0; w < workers; w++) {
            const float *sum = partial + w * stride;
#pragma omp simd
            for (int64_t j = begin; j < end; j++) {
                dgamma[j] += sum[j];
                dbeta[j] += sum[width + j];
            }
        }
    }
    return CT_OK;
}

ct_status ct_cpu_add(ct_device *device, const ct_add_args *args)
{
    int64_t count = ct_tensor_count(&args->y);
    float *y = ct_f32(&args->y);
    const float *a = ct_f32(&args->a), *b = ct_f32(&args->b);
#pragma omp parallel for simd schedule(static) num_threads(ct_cpu(device)->threads)
    for (int64_t i = 0; i < count; i++) y[i] = a[i] + b[i];
    return CT_OK;
}

ct_status ct_cpu_dropout(ct_device *device, const ct_dropout_args *args)
{
    int64_t count = ct_tensor_count(&args->y);
    float *y = ct_f32(&args->y);
    const float *x = ct_f32(&args->x);
    const ct_rng_key key = ct_rng_at_step(args->key, ct_i32(&args->step)[0]);
#pragma omp parallel for schedule(static) num_threads(ct_cpu(device)->threads)
    for (int64_t begin = 0; begin < count; begin += PIECE) {
        int64_t length = count - begin < PIECE ? count - begin : PIECE;
        float factor[PIECE];
        ct_dropout_factors(factor, key, (uint64_t)begin, length, args->p);
#pragma omp simd
        for (int64_t i = 0; i < length; i++) y[begin + i] = x[begin + i] * factor[i];
    }
    return CT_OK;
}

ct_status ct_cpu_l2norm_fwd(ct_device *device, const ct_l2norm_fwd_args *args)
{
    int64_t width = args->x.dim[1];
#pragma omp parallel for schedule(static) num_threads(ct_cpu(device)->threads)
    for (int64_t row = 0; row < args->x.dim[0]; row++) {
        const float *x = ct_f32(&args->x) + row * width;
        float *y = ct_f32(&args->y) + row * width;
        float norm = sqrtf(squared_distance(x, 0.0f, width));
        float inverse = 1.0f / (norm < args->eps ? args->eps : norm);
#pragma omp simd
        for (int64_t j = 0; j < width; j++) y[j] = x[j] * inverse;
        ct_f32(&args->inv_norm)[row] = inverse;
    }
    return CT_OK;
}

/* dx = (dy - y (y . dy))/|x|. Where forward divided by eps instead of |x|, y is shorter than 1 and
 * the divisor does not depend on x: dx = dy/eps. */
ct_status ct_cpu_l2norm_bwd(ct_device *device, const ct_l2norm_bwd_args *args)
{
    const float unit = 0.999f; /* squared length of a normalised row, rounding allowed for */
    int64_t width = args->y.dim[1];
#pragma omp parallel for schedule(static) num_threads(ct_cpu(device)->threads)
    for (int64_t row = 0; row < args->y.dim[0]; row++) {
        const float *dy = ct_f32(&args->dy) + row * width, *y = ct_f32(&args->y) + row * width;
        float *dx = ct_f32(&args->dx) + row * width;
        float inverse = ct_f32(&args->inv_norm)[row];
        float y_dy = 0.0f, y_y = 0.0f;
#pragma omp simd reduction(+ : y_dy, y_y)
        for (int64_t j = 0; j < width; j++) {
            y_dy += y[j] * dy[j];
            y_y += y[j] * y[j];
        }
        float along = y_y < unit ? 0.0f : y_dy;
#pragma omp simd
        for (int64_t j = 0; j < width; j++) dx[j] = inverse * (dy[j] - y[j] * along);
    }
    return CT_OK;
}
