/* The symmetric contrastive loss (op.h: ct_clip_loss_fwd_args).
 *
 *   z = exp(logit_scale) image text^T
 *   loss = (mean of row_lse + mean of col_lse)/2 - mean of targets
 *
 * Shapes: image, text (N, D); the similarities z are never stored. A tile of 64 x 64 of them leaves
 * a maximum and a sum of exponentials relative to it for each of its rows and columns (Milakov &
 * Gimelshein 2018), and the target's share of its rows; these are merged in a fixed order.
 *
 * Work: 2 N^2 D flops on the f32 units, from any format, and bound by them: a thread's 16
 * multiply-adds read 2 x 16 bytes of shared memory, just under what that memory can give. Bytes:
 * both embeddings N/64 times, mostly from L2.
 *
 * Plan: bands of 2048 rows, so that the workspace is at most 0.8 KiB N. A band is one block a tile,
 * neighbours in a row of tiles at a time for L2's sake, then one kernel that ends the band's rows
 * and takes the columns on. In the end one block adds up the loss in f64.
 *
 * Limit: a plain version, without tensor cores. Source: Radford et al. 2021. */
#include <cfloat>

#include "kernels.h"
#include "loss.cuh"
#include "reduce.cuh"
#include "workspace.cuh"

namespace ctk
{

constexpr int forward_band_tiles = 32, forward_band = forward_band_tiles * loss_tile,
              merge_threads = 128, mean_threads = 1024;

/* Part of a row: its largest similarity, the sum of exp(z - max), and of the z that share the
 * target their sum and number. */
struct alignas(16) row_part {
    float max, sum, target, positives;
};

struct alignas(8) column_part {
    float max, sum;
};

struct forward_memory {
    row_part *row_parts;       /* (tiles across, band) */
    column_part *column_parts; /* (band tiles, N) */
    column_part *columns;      /* (N) so far */
    float *target;             /* (N) mean of what shares each row's target */
    size_t bytes;
};

/* Sums over the 16 threads that hold a row of the tile; `op` picks max or +. */
template <class F> __device__ __forceinline__ float across_row(float x, F op)
{
#pragma unroll
    for (int distance = 8; distance > 0; distance /= 2)
        x = op(x, __shfl_xor_sync(0xffffffffu, x, distance));
    return x;
}

__device__ __forceinline__ float larger(float a, float b)
{
    return b > a ? b : a;
}

__device__ __forceinline__ float plus(float a, float b)
{
    return a + b;
}

/* z of pairs that do not count is -infinity, but a maximum is at least -FLT_MAX: a tile may hold
 * nothing that counts. */
__device__ __forceinline__ void put_rows(const float (&z)[4][4], const float (&target)[4],
                                         const float (&positives)[4], row_part *to, int64_t stride)
{
#pragma unroll
    for (int r = 0; r < 4; r++) {
        row_part part;
        part.max = -FLT_MAX;
#pragma unroll
        for (int c = 0; c < 4; c++) part.max = larger(part.max, z[r][c]);
        part.max = across_row(part.max, larger);
        part.sum = 0.0f;
#pragma unroll
        for (int c = 0; c < 4; c++) part.sum += expf(z[r][c] - part.max);
        part.sum = across_row(part.sum, plus);
        part.target = across_row(target[r], plus);
        part.positives = across_row(positives[r], plus);
        if (threadIdx.x % 16 == 0) to[(threadIdx.x / 16 * 4 + r) * stride] = part;
    }
}

/* Over the two rows of threads of each warp by a shuffle, over the 8 warps by shared memory.
 * `valid` columns are written. */
__device__ __forceinline__ void put_columns(const float (&z)[4][4], column_part *to, int valid)
{
    CTK_SHARED(float, parts, loss_threads / 32 * loss_tile);
    const int warp = (int)threadIdx.x / 32, column = (int)threadIdx.x % 16 * 4;
    float max[4], sum[4];
#pragma unroll
    for (int c = 0; c < 4; c++) {
        max[c] = -FLT_MAX;
#pragma unroll
        for (int r = 0; r < 4; r++) max[c] = larger(max[c], z[r][c]);
        max[c] = larger(max[c], __shfl_xor_sync(0xffffffffu, max[c], 16));
        if (threadIdx.x % 32 < 16) parts[warp * loss_tile + column + c] = max[c];
    }
    __syncthreads();
#pragma unroll
    for (int c = 0; c < 4; c++)
        for (int w = 0; w < loss_threads / 32; w++)
            max[c] = larger(max[c], parts[w * loss_tile + column + c]);
    __syncthreads();
#pragma unroll
    for (int c = 0; c < 4; c++) {
        sum[c] = 0.0f;
#pragma unroll
        for (int r = 0; r < 4; r++) sum[c] += expf(z[r][c] - max[c]);
        sum[c] += __shfl_xor_sync(0xffffffffu, sum[c], 16);
        if (threadIdx.x % 32 < 16) parts[warp * loss_tile + column + c] = sum[c];
    }
    __syncthreads();
    if (threadIdx.x >= 16) return;
#pragma unroll
    for (int c = 0; c < 4; c++) {
        sum[c] = 0.0f;
        for (int w = 0; w < loss_threads / 32; w++) sum[c] += parts[w * loss_tile + column + c];
        if (column + c < valid) to[column + c] = {max[c], sum[c]};
    }
}

/* blockIdx: tile across, tile down within the band that starts at row `first`. */
template <class T>
__global__ void __launch_bounds__(loss_threads, 3)
    similarity_tiles(similarities<T> s, forward_memory m, int64_t first)
{
    CTK_SHARED(quad, a_slab, loss_slab_quads);
    CTK_SHARED(quad, b_slab, loss_slab_quads);
    const int64_t down = (int64_t)blockIdx.y * loss_tile; /* in the band */
    const int64_t row = first + down, column = (int64_t)blockIdx.x * loss_tile;
    float z[4][4];
    multiply_tile<true, true>(z, s.image, row, s.text, column, s.image.columns, a_slab, b_slab);

    const float scale = expf(s.logit_scale[0]);
    const int64_t own_row = row + threadIdx.x / 16 * 4, own_column = column + threadIdx.x % 16 * 4;
    int32_t column_id[4];
#pragma unroll
    for (int c = 0; c < 4; c++)
        column_id[c] = own_column + c < s.count ? s.photo_ids[own_column + c] : 0;
    float target[4], positives[4];
#pragma unroll
    for (int r = 0; r < 4; r++) {
        const int64_t i = own_row + r;
        const int32_t row_id = i < s.count ? s.photo_ids[i] : 0;
        target[r] = positives[r] = 0.0f;
#pragma unroll
        for (int c = 0; c < 4; c++) {
            const int64_t j = own_column + c;
            const pair_role role =
                role_of(s.same_image, i < s.count && j < s.count, i == j, row_id == column_id[c]);
            z[r][c] *= scale;
            if (role.positive) target[r] += z[r][c];
            if (role.positive) positives[r] += 1.0f;
            if (!role.counted) z[r][c] = -INFINITY;
        }
    }
    put_rows(z, target, positives, m.row_parts + (int64_t)blockIdx.x * forward_band + down, 1);
    const int64_t left = s.count - column;
    put_columns(z, m.column_parts + (int64_t)blockIdx.y * s.count + column,
                left < loss_tile ? (int)left : loss_tile);
}

/* Row first + k of a band from its tiles: first the maximum, then the sums relative to it. */
__device__ __forceinline__ void end_row(const forward_memory &m, float *row_lse, int64_t first,
                                        int k, int tiles)
{
    const row_part *parts = m.row_parts + k;
    float max = -FLT_MAX, sum = 0.0f, target = 0.0f, positives = 0.0f;
#pragma unroll 8
    for (int tile = 0; tile < tiles; tile++)
        max = larger(max, parts[(int64_t)tile * forward_band].max);
#pragma unroll 8
    for (int tile = 0; tile < tiles; tile++) {
        const row_part part = parts[(int64_t)tile * forward_band];
        sum += part.sum * expf(part.max - max);
        target += part.target;
        positives += part.positives;
    }
    row_lse[first + k] = max + logf(sum);
    m.target[first + k] = target / positives;
}

/* Column j takes the band on; after the last band its sum is complete. */
__device__ __forceinline__ void take_column_on(const forward_memory &m, float *col_lse, int64_t j,
                                               int64_t count, int tiles, bool is_first,
                                               bool is_last)
{
    const column_part *parts = m.column_parts + j;
    const column_part before = is_first ? column_part{-FLT_MAX, 0.0f} : m.columns[j];
    float max = before.max;
#pragma unroll 8
    for (int tile = 0; tile < tiles; tile++) max = larger(max, parts[tile * count].max);
    float sum = before.sum * expf(before.max - max);
#pragma unroll 8
    for (int tile = 0; tile < tiles; tile++) {
        const column_part part = parts[tile * count];
        sum += part.sum * expf(part.max - max);
    }
    if (is_last) col_lse[j] = max + logf(sum);
    else m.columns[j] = {max, sum};
}

/* blockIdx.y 0: rows of the band, 1: all columns. */
static __global__ void __launch_bounds__(merge_threads)
    merge_band(forward_memory m, float *row_lse, float *col_lse, int64_t count, int64_t first)
{
    const int64_t rows = count - first < forward_band ? count - first : forward_band;
    const int64_t k = (int64_t)blockIdx.x * merge_threads + threadIdx.x;
    if (blockIdx.y == 0) {
        if (k < rows)
            end_row(m, row_lse, first, (int)k, (int)((count + loss_tile - 1) / loss_tile));
    } else if (k < count) {
        take_column_on(m, col_lse, k, count, (int)((rows + loss_tile - 1) / loss_tile), first == 0,
                       first + rows == count);
    }
}

static __global__ void __launch_bounds__(mean_threads)
    mean_loss(float *loss, const float *row_lse, const float *col_lse, const float *target,
              int64_t count)
{
    double sum = 0.0;
#pragma unroll 4
    for (int64_t i = threadIdx.x; i < count; i += mean_threads)
        sum += (double)row_lse[i] + (double)col_lse[i] - 2.0 * (double)target[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *loss = (float)(sum / (2.0 * (double)count));
}

static forward_memory lay_out_forward(int64_t count, void *workspace)
{
    forward_memory m = {};
    const int64_t tiles = ceil_div(count, loss_tile);
    const int64_t band_tiles = tiles < forward_band_tiles ? tiles : forward_band_tiles;
    m.row_parts = take<row_part>(workspace, &m.bytes, tiles * forward_band);
    m.column_parts = take<column_part>(workspace, &m.bytes, band_tiles * count);
    m.columns = take<column_part>(workspace, &m.bytes, count);
    m.target = take<float>(workspace, &m.bytes, count);
    return m;
}

template <class T>
static cudaError_t launch_forward(const ct_clip_loss_fwd_args *args, const ctk_launch *l)
{
    const similarities<T> s = similarities_of<T>(args);
    const forward_memory m = lay_out_forward(s.count, l->workspace);
    float *row_lse = (float *)args->row_lse.data, *col_lse = (float *)args->col_lse.data;
    const unsigned across = (unsigned)ceil_div(s.count, loss_tile);
    for (int64_t first = 0; first < s.count; first += forward_band) {
        const int64_t rows = s.count - first < forward_band ? s.count - first : forward_band;
        const dim3 tiles(across, (unsigned)ceil_div(rows, loss_tile));
        cudaError_t error =
            launch(similarity_tiles<T>, tiles, dim3(loss_threads), 0, l->stream, s, m, first);
        if (error != cudaSuccess) return error;
        error = launch(merge_band, dim3((unsigned)ceil_div(s.count, merge_threads), 2),
                       dim3(merge_threads), 0, l->stream, m, row_lse, col_lse, s.count, first);
        if (error != cudaSuccess) return error;
    }
    return launch(mean_loss, dim3(1), dim3(mean_threads), 0, l->stream, (float *)args->loss.data,
                  (const float *)row_lse, (const float *)col_lse, (const float *)m.target, s.count);
}

} // namespace ctk

extern "C" size_t ctk_clip_loss_fwd_workspace(const ct_clip_loss_fwd_args *args, int sm_count)
{
    (void)sm_count;
    return ctk::lay_out_forward(args->image.dim[0], nullptr).bytes;
}

extern "C" cudaError_t ctk_clip_loss_fwd(const ct_clip_loss_fwd_args *args, const ctk_launch *l)
{
    return ctk::with_type(args->image.dtype,
                          [&](auto type) { return ctk::launch_forward<decltype(type)>(args, l); });
}
