/* Layer normalisation after an optional residual (Ba, Kiros & Hinton 2016):
 *   sum = x + residual, y = gamma (sum - mean) rstd + beta, biased variance, for each row.
 *
 * Shapes  x, residual, sum, y (T, D) in the compute dtype; gamma, beta (D), mean, rstd (T) f32.
 * Bytes   2 T D sizeof(T), with residual 4: each tensor once up to D = 8192, beyond it x or sum
 *         three times. Bound by memory.
 * Plan    layernorm.cuh. The row stays in registers, so the variance is that of centred values: a
 *         large mean costs no digits. `sum` is rounded to the compute dtype before its statistics
 *         are taken: what backward reads is what was normalised. sum may be x or residual: a
 *         thread reads all its numbers before it writes, and only its own.
 * Limit   D not a multiple of the vector width goes element by element; few rows leave
 *         multiprocessors idle. */
#include "kernels.h"
#include "layernorm.cuh"

namespace
{

using namespace ctk;

constexpr int warp_threads = 128, warp_rows = warp_threads / 32;

template <bool WARP> __device__ __forceinline__ float row_sum(float x)
{
    if constexpr (WARP) return warp_sum(x);
    else return block_sum(x);
}

/* v = x + residual at this thread's places, kept in `sum`, rounded; 0 past the row's end. */
template <class T, int VEC, int ITEMS>
__device__ __forceinline__ void load_row(float (&v)[ITEMS][VEC], T *sum, const T *x,
                                         const T *residual, int lane, int threads, int width)
{
    float r[ITEMS][VEC] = {};
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        const int at = (lane + i * threads) * VEC;
#pragma unroll
        for (int c = 0; c < VEC; c++) v[i][c] = 0;
        if (at < width) load(v[i], x + at);
        if (residual && at < width) load(r[i], residual + at);
    }
    if (!residual) return;
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        const int at = (lane + i * threads) * VEC;
#pragma unroll
        for (int c = 0; c < VEC; c++) v[i][c] = to_float(from_float<T>(v[i][c] + r[i][c]));
        if (at < width) store(sum + at, v[i]);
    }
}

/* WARP: a warp for each row, warp_rows rows a block; else a block for each row. */
template <class T, int VEC, int ITEMS, bool WARP>
__global__ void __launch_bounds__(WARP ? warp_threads : layernorm_block, WARP ? 8 : 2)
    layernorm_forward(T *__restrict__ y, T *sum, float *__restrict__ mean, float *__restrict__ rstd,
                      const T *x, const T *residual, const float *__restrict__ gamma,
                      const float *__restrict__ beta, int64_t rows, int width, float eps)
{
    const int threads = WARP ? 32 : (int)blockDim.x, lane = (int)threadIdx.x % threads;
    const int64_t row = WARP ? (int64_t)blockIdx.x * warp_rows + (int)threadIdx.x / 32 : blockIdx.x;
    if (row >= rows) return; /* whole warps */
    const int64_t start = row * width;
    float v[ITEMS][VEC], total = 0, square = 0;
    if (residual) {
        residual += start;
        sum += start;
    }
    load_row(v, sum, x + start, residual, lane, threads, width);
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
#pragma unroll
        for (int c = 0; c < VEC; c++) total += v[i][c];
    }
    const float center = row_sum<WARP>(total) / (float)width;
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        if ((lane + i * threads) * VEC >= width) continue;
#pragma unroll
        for (int c = 0; c < VEC; c++) square += (v[i][c] - center) * (v[i][c] - center);
    }
    const float inverse = 1.0f / sqrtf(row_sum<WARP>(square) / (float)width + eps);
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        const int at = (lane + i * threads) * VEC;
        if (at >= width) continue;
        float g[VEC], b[VEC];
        load(g, gamma + at);
        load(b, beta + at);
#pragma unroll
        for (int c = 0; c < VEC; c++) v[i][c] = fmaf(g[c], (v[i][c] - center) * inverse, b[c]);
        store(y + start + at, v[i]);
    }
    if (lane == 0) {
        mean[row] = center;
        rstd[row] = inverse;
    }
}

/* Rows of any width: what is normalised is read three times. A thread reads back only what it wrote
 * itself. */
template <class T>
__global__ void __launch_bounds__(layernorm_block)
    layernorm_forward_wide(T *__restrict__ y, T *sum, float *__restrict__ mean,
                           float *__restrict__ rstd, const T *x, const T *residual,
                           const float *__restrict__ gamma, const float *__restrict__ beta,
                           int64_t width, float eps)
{
    const int64_t row = blockIdx.x, start = row * width;
    float total = 0, square = 0;
    for (int64_t at = threadIdx.x; at < width; at += layernorm_block) {
        float v = to_float(x[start + at]);
        if (residual) {
            const T rounded = from_float<T>(v + to_float(residual[start + at]));
            sum[start + at] = rounded;
            v = to_float(rounded);
        }
        total += v;
    }
    const T *from = (residual ? sum : x) + start;
    const float center = block_sum(total) / (float)width;
    for (int64_t at = threadIdx.x; at < width; at += layernorm_block) {
        const float d = to_float(from[at]) - center;
        square += d * d;
    }
    const float inverse = 1.0f / sqrtf(block_sum(square) / (float)width + eps);
    for (int64_t at = threadIdx.x; at < width; at += layernorm_block)
        y[start + at] =
            from_float<T>(fmaf(gamma[at], (to_float(from[at]) - center) * inverse, beta[at]));
    if (threadIdx.x == 0) {
        mean[row] = center;
        rstd[row] = inverse;
    }
}

} // namespace

extern "C" cudaError_t ctk_layernorm_fwd(const ct_layernorm_fwd_args *args,
                                         const ctk_launch *launch)
{
    const int64_t rows = args->x.dim[0], width = args->x.dim[1];
    float *mean = ct_f32(&args->mean), *rstd = ct_f32(&args->rstd);
    const float *gamma = ct_f32(&args->gamma), *beta = ct_f32(&args->beta);
    return with_type(args->x.dtype, [&](auto type) {
        using T = decltype(type);
        T *y = (T *)args->y.data, *sum = (T *)args->sum.data;
        const T *x = (const T *)args->x.data;
        const T *residual =
            ct_tensor_present(&args->residual) ? (const T *)args->residual.data : nullptr;
        const layernorm_path path = layernorm_path_of<T>(width);
        if (path == layernorm_path::wide)
            return ctk::launch(layernorm_forward_wide<T>, dim3((unsigned)rows),
                               dim3(layernorm_block), 0, launch->stream, y, sum, mean, rstd, x,
                               residual, gamma, beta, width, args->eps);
        if (path == layernorm_path::block)
            return with_block_row<T>(width, [&](auto vec, auto capacity) {
                constexpr int VEC = decltype(vec)::value, N = decltype(capacity)::value;
                return ctk::launch(layernorm_forward<T, VEC, N / VEC, false>, dim3((unsigned)rows),
                                   dim3((unsigned)block_row_threads(width, N)), 0, launch->stream,
                                   y, sum, mean, rstd, x, residual, gamma, beta, rows, (int)width,
                                   args->eps);
            });
        return with_warp_row<T>(width, [&](auto vec, auto capacity) {
            constexpr int VEC = decltype(vec)::value, N = decltype(capacity)::value;
            return ctk::launch(layernorm_forward<T, VEC, N / VEC, true>,
                               dim3((unsigned)ceil_div(rows, warp_rows)), dim3(warp_threads), 0,
                               launch->stream, y, sum, mean, rstd, x, residual, gamma, beta, rows,
                               (int)width, args->eps);
        });
    });
}
