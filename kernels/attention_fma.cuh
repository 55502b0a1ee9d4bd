/* Attention in f32 arithmetic, for f32 tensors and for depths that tensor cores do not take: any
 * dtype, any depth to 128. Formulas and shapes: attention_fwd_mma.cuh (FlashAttention-2, Dao 2023)
 * and attention_bwd_mma.cuh; nothing is rounded to T before the end.
 *
 * Plan: a block of 128 threads owns 32 rows of a head and walks the others 32 at a time, all as f32
 * in shared memory. Thread (i, j), i < 8, j < 16, holds rows 4 i .. 4 i + 3 of every matrix:
 * columns j and j + 16 of a 32 x 32 product of rows with rows, D / 16 columns of the sums. So a
 * matrix row belongs to 16 lanes of one warp, which exchange its maximum and sum by shuffles and
 * its probabilities by shared memory without a barrier of the block. Forward is one kernel,
 * backward two: dQ (which leaves delta = rowsum(dO O) in the workspace), then dK and dV.
 *
 * Bytes: as on tensor cores, with 32 rows a tile. f32 FMA is the bound, at about 3 shared-memory
 * reads of 16 bytes for 16 FMA. Limit: copies are not overlapped with arithmetic within a block;
 * other blocks of the multiprocessor fill the gap. */
#ifndef CT_KERNELS_ATTENTION_FMA_CUH
#define CT_KERNELS_ATTENTION_FMA_CUH

#include "attention.cuh"

namespace ctk::attention
{

constexpr int FMA_ROWS = 32, FMA_THREADS = 128;
constexpr int WEIGHTS_LD = FMA_ROWS + 4, WEIGHTS_FLOATS = FMA_ROWS * WEIGHTS_LD;

/* An odd number of 16-byte units, so that 8 rows' reads of 16 bytes meet different banks. */
template <int D> constexpr int fma_ld = D + 4;
/* Blocks that must fit a multiprocessor: few, for with more ptxas spills on some architecture. */
template <int D> constexpr int fma_blocks = D > 64 ? 1 : 2;
template <int D> constexpr int fma_tile_floats = FMA_ROWS *fma_ld<D>;

/* Columns of a sum that a thread holds: SETS sets of WIDTH neighbours, 16 WIDTH apart. */
template <int D> struct columns {
    static constexpr int WIDTH = D / 16 < 4 ? D / 16 : 4, SETS = D / 16 / WIDTH;
    __device__ static __forceinline__ int of_set(int set)
    {
        return ((int)threadIdx.x % 16 + 16 * set) * WIDTH;
    }
};

__device__ __forceinline__ int own_row()
{
    return (int)threadIdx.x / 16 * 4;
}
__device__ __forceinline__ int own_column(int half)
{
    return (int)threadIdx.x % 16 + 16 * half;
}

__device__ __forceinline__ float sum_of_16(float x)
{
#pragma unroll
    for (int distance = 8; distance > 0; distance /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, distance);
    return x;
}
__device__ __forceinline__ float max_of_16(float x)
{
#pragma unroll
    for (int distance = 8; distance > 0; distance /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, distance));
    return x;
}

/* ---- tiles --------------------------------------------------------------------------------- */

/* Rows 0 .. rows-1 of x into a tile as f32, zeros behind them and behind column depth-1. */
template <class T, int D>
__device__ __forceinline__ void fma_load_rows(float *tile, const T *x, int64_t stride, int rows,
                                              int depth)
{
    constexpr int W = vec_width<T>;
    if ((uintptr_t)x % 16 == 0 && stride % W == 0 && depth % W == 0) {
#pragma unroll 4
        for (int c = (int)threadIdx.x; c < FMA_ROWS * (D / W); c += FMA_THREADS) {
            const int row = c / (D / W), column = c % (D / W) * W;
            float values[W] = {};
            if (row < rows && column < depth) load<W>(values, x + row * stride + column);
            store<W>(tile + row * fma_ld<D> + column, values);
        }
        return;
    }
#pragma unroll 4
    for (int c = (int)threadIdx.x; c < FMA_ROWS * D; c += FMA_THREADS) {
        const int row = c / D, column = c % D;
        tile[row * fma_ld<D> + column] =
            row < rows && column < depth ? to_float(x[row * stride + column]) : 0.0f;
    }
}

/* x = factor[r] times the thread's part of a sum; rows 0 .. rows-1 of the tile exist. */
template <class T, int D>
__device__ __forceinline__ void fma_store_rows(T *x, int64_t stride, const float (&acc)[4][D / 16],
                                               const float (&factor)[4], int rows, int depth)
{
    constexpr int WIDTH = columns<D>::WIDTH;
    const bool wide = (uintptr_t)x % 16 == 0 && stride % 4 == 0 && depth % 4 == 0;
#pragma unroll
    for (int r = 0; r < 4; r++) {
        const int row = own_row() + r;
        if (row >= rows) continue;
#pragma unroll
        for (int set = 0; set < columns<D>::SETS; set++) {
            const int column = columns<D>::of_set(set);
            float values[WIDTH];
#pragma unroll
            for (int c = 0; c < WIDTH; c++) values[c] = acc[r][set * WIDTH + c] * factor[r];
            T *to = x + row * stride + column;
            if (wide && column < depth) store<WIDTH>(to, values);
            for (int c = 0; !wide && c < WIDTH; c++)
                if (column + c < depth) to[c] = from_float<T>(values[c]);
        }
    }
}

/* ---- products ------------------------------------------------------------------------------ */

/* s = the thread's part of a (32 x D) times b (32 x D) transposed. */
template <int D>
__device__ __forceinline__ void fma_similarities(float (&s)[4][2], const float *a, const float *b)
{
#pragma unroll
    for (int r = 0; r < 4; r++) s[r][0] = s[r][1] = 0.0f;
#pragma unroll 4
    for (int k = 0; k < D; k += 4) {
        float x[4][4], y[2][4];
#pragma unroll
        for (int r = 0; r < 4; r++) load<4>(x[r], a + (own_row() + r) * fma_ld<D> + k);
#pragma unroll
        for (int h = 0; h < 2; h++) load<4>(y[h], b + own_column(h) * fma_ld<D> + k);
#pragma unroll
        for (int r = 0; r < 4; r++)
#pragma unroll
            for (int h = 0; h < 2; h++)
#pragma unroll
                for (int i = 0; i < 4; i++) s[r][h] += x[r][i] * y[h][i];
    }
}

/* The thread's part of a 32 x 32 matrix to where the 16 lanes of each row read it. */
__device__ __forceinline__ void put_weights(float *weights, const float (&w)[4][2])
{
#pragma unroll
    for (int r = 0; r < 4; r++)
#pragma unroll
        for (int h = 0; h < 2; h++) weights[(own_row() + r) * WEIGHTS_LD + own_column(h)] = w[r][h];
}

/* acc += the thread's part of weights (32 x 32) times tile (32 x D). */
template <int D>
__device__ __forceinline__ void fma_mix(float (&acc)[4][D / 16], const float *weights,
                                        const float *tile)
{
    constexpr int WIDTH = columns<D>::WIDTH;
#pragma unroll 2
    for (int j = 0; j < FMA_ROWS; j += 4) {
        float w[4][4];
#pragma unroll
        for (int r = 0; r < 4; r++) load<4>(w[r], weights + (own_row() + r) * WEIGHTS_LD + j);
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int set = 0; set < columns<D>::SETS; set++) {
                float x[WIDTH];
                load<WIDTH>(x, tile + (j + i) * fma_ld<D> + columns<D>::of_set(set));
#pragma unroll
                for (int r = 0; r < 4; r++)
#pragma unroll
                    for (int c = 0; c < WIDTH; c++) acc[r][set * WIDTH + c] += w[r][i] * x[c];
            }
    }
}

template <int N> __device__ __forceinline__ void fma_clear(float (&acc)[4][N])
{
#pragma unroll
    for (int r = 0; r < 4; r++)
#pragma unroll
        for (int c = 0; c < N; c++) acc[r][c] = 0.0f;
}

/* The dropout mask of the thread's part of queries (rows from `row` of the packed batch) and keys
 * from key0. Four lanes need the same blocks of four keys and compute a quarter each. All lanes of
 * the warp must come. */
struct fma_mask {
    uint32_t bits;

    __device__ __forceinline__ fma_mask(const problem &p, ct_rng_key key, int64_t row, int head,
                                        int key0)
        : bits(~0u)
    {
        if (!(p.dropout > 0.0f)) return;
        const int part = (int)threadIdx.x % 4, query = own_row() + part;
        const int first = key0 + (int)threadIdx.x % 16 / 4 * 4;
        bits = keep_four(p, key, row + query, head, first) << 8 * part |
               keep_four(p, key, row + query, head, first + 16) << (8 * part + 4);
        bits |= __shfl_xor_sync(0xffffffffu, bits, 1);
        bits |= __shfl_xor_sync(0xffffffffu, bits, 2);
        bits >>= part;
    }
    __device__ __forceinline__ bool keeps(int r, int half) const
    {
        return bits >> (8 * r + 4 * half) & 1u;
    }
};

__device__ __forceinline__ bool sees(const problem &p, const task &t, int query, int key)
{
    return key < t.length && !(p.causal && key > query);
}

/* ---- forward --------------------------------------------------------------------------------- */

/* The running softmax of the thread's four rows, and its part of the output. */
template <int D> struct fma_softmax {
    float o[4][D / 16], highest[4], sum[4]; /* sum: this lane's part */
};

/* In: Q K^T. Out: P, not divided. */
template <int D>
__device__ __forceinline__ void fma_online_softmax(fma_softmax<D> &rows, float (&s)[4][2],
                                                   const problem &p, const task &t, int key0)
{
#pragma unroll
    for (int r = 0; r < 4; r++) {
        const int query = t.begin + own_row() + r;
#pragma unroll
        for (int h = 0; h < 2; h++)
            s[r][h] = sees(p, t, query, key0 + own_column(h)) ? s[r][h] * p.scale : -INFINITY;
        /* A row's first tile always has its key 0, so the new maximum is a number. */
        const float highest = fmaxf(rows.highest[r], max_of_16(fmaxf(s[r][0], s[r][1])));
        const float shrink = expf(rows.highest[r] - highest);
        rows.highest[r] = highest;
        s[r][0] = expf(s[r][0] - highest);
        s[r][1] = expf(s[r][1] - highest);
        rows.sum[r] = rows.sum[r] * shrink + (s[r][0] + s[r][1]);
#pragma unroll
        for (int c = 0; c < D / 16; c++) rows.o[r][c] *= shrink;
    }
}

template <class T, int D>
__global__ void __launch_bounds__(FMA_THREADS, fma_blocks<D>)
    forward_fma_kernel(problem p, forward<T> f)
{
    CTK_DYNAMIC_SHARED(float, queries);
    float *keys = queries + fma_tile_floats<D>, *values = keys + fma_tile_floats<D>;
    float *weights = values + fma_tile_floats<D>;
    zero_spare_rows(p, f.o, o_stride(p));
    zero_spare_rows(p, f.lse, p.heads);
    task t;
    if (!find_task(p, FMA_ROWS, t)) return;

    const int64_t stride = qkv_stride(p);
    const int rows_left = t.length - t.begin;
    const int keys_end = p.causal && rows_left > FMA_ROWS ? t.begin + FMA_ROWS : t.length;
    const T *q = part_of(p, t, f.qkv, 0), *k = part_of(p, t, f.qkv, 1),
            *v = part_of(p, t, f.qkv, 2);
    const ct_rng_key key = step_key(p);
    fma_softmax<D> rows;
    fma_clear(rows.o);
#pragma unroll
    for (int r = 0; r < 4; r++) {
        rows.highest[r] = -INFINITY;
        rows.sum[r] = 0.0f;
    }
    fma_load_rows<T, D>(queries, q + t.begin * stride, stride, rows_left, p.depth);
    for (int key0 = 0; key0 < keys_end; key0 += FMA_ROWS) {
        if (key0 > 0) __syncthreads(); /* all are done with the rows before */
        fma_load_rows<T, D>(keys, k + key0 * stride, stride, keys_end - key0, p.depth);
        fma_load_rows<T, D>(values, v + key0 * stride, stride, keys_end - key0, p.depth);
        __syncthreads();
        float s[4][2];
        fma_similarities<D>(s, queries, keys);
        fma_online_softmax<D>(rows, s, p, t, key0);
        const fma_mask mask(p, key, t.first + t.begin, t.head, key0);
#pragma unroll
        for (int r = 0; r < 4; r++)
#pragma unroll
            for (int h = 0; h < 2; h++) s[r][h] = mask.keeps(r, h) ? s[r][h] : 0.0f;
        put_weights(weights, s);
        __syncwarp();
        fma_mix<D>(rows.o, weights, values);
        __syncwarp();
    }
    float factor[4];
#pragma unroll
    for (int r = 0; r < 4; r++) {
        const float sum = sum_of_16(rows.sum[r]);
        factor[r] = 1.0f / (sum * (1.0f - p.dropout));
        if (own_row() + r < rows_left && threadIdx.x % 16 == 0)
            f.lse[(t.first + t.begin + own_row() + r) * p.heads + t.head] =
                rows.highest[r] + logf(sum);
    }
    fma_store_rows<T, D>(head_of(p, t, f.o) + t.begin * o_stride(p), o_stride(p), rows.o, factor,
                         rows_left, p.depth);
}

template <class T>
cudaError_t forward_fma(const problem &p, const forward<T> &f, cudaStream_t stream)
{
    return with_depth<32, 64, 128>(p.depth, [&](auto depth) {
        constexpr int D = decltype(depth)::value;
        return launch_tiles(forward_fma_kernel<T, D>, p, f, FMA_ROWS, FMA_THREADS,
                            (3 * fma_tile_floats<D> + WEIGHTS_FLOATS) * sizeof(float), stream);
    });
}

/* ---- backward -------------------------------------------------------------------------------- */

/* delta of the thread's four rows; d_o in shared memory, o's row 0 of the tile in global. */
template <class T, int D>
__device__ __forceinline__ void fma_delta(float (&delta)[4], const float *d_o, const T *o,
                                          int64_t stride, int rows, int depth)
{
#pragma unroll
    for (int r = 0; r < 4; r++) {
        float sum = 0.0f;
        const int row = own_row() + r;
        for (int c = (int)threadIdx.x % 16; row < rows && c < depth; c += 16)
            sum += d_o[row * fma_ld<D> + c] * to_float(o[row * stride + c]);
        delta[r] = sum_of_16(sum);
    }
}

template <class T, int D>
__global__ void __launch_bounds__(FMA_THREADS, fma_blocks<D>)
    dquery_fma_kernel(problem p, backward<T> b)
{
    CTK_DYNAMIC_SHARED(float, queries);
    float *d_o = queries + fma_tile_floats<D>, *keys = d_o + fma_tile_floats<D>;
    float *values = keys + fma_tile_floats<D>, *dscores = values + fma_tile_floats<D>;
    zero_spare_rows(p, b.dqkv, qkv_stride(p));
    task t;
    if (!find_task(p, FMA_ROWS, t)) return;

    const int64_t stride = qkv_stride(p), width = o_stride(p);
    const int rows_left = t.length - t.begin;
    const int keys_end = p.causal && rows_left > FMA_ROWS ? t.begin + FMA_ROWS : t.length;
    const T *k = part_of(p, t, b.qkv, 1), *v = part_of(p, t, b.qkv, 2);
    const ct_rng_key key = step_key(p);
    const float inverse_keep = 1.0f / (1.0f - p.dropout);
    float dqueries[4][D / 16], lse[4], delta[4];
    fma_clear(dqueries);
    fma_load_rows<T, D>(queries, part_of(p, t, b.qkv, 0) + t.begin * stride, stride, rows_left,
                        p.depth);
    fma_load_rows<T, D>(d_o, head_of(p, t, b.d_o) + t.begin * width, width, rows_left, p.depth);
    __syncthreads();
    fma_delta<T, D>(delta, d_o, head_of(p, t, b.o) + t.begin * width, width, rows_left, p.depth);
#pragma unroll
    for (int r = 0; r < 4; r++) {
        const bool exists = own_row() + r < rows_left;
        const int64_t place = (t.first + t.begin + own_row() + r) * p.heads + t.head;
        lse[r] = exists ? b.lse[place] : INFINITY; /* P is 0 */
        if (exists && threadIdx.x % 16 == 0) b.delta[place] = delta[r];
    }
    for (int key0 = 0; key0 < keys_end; key0 += FMA_ROWS) {
        if (key0 > 0) __syncthreads(); /* all are done with the rows before */
        fma_load_rows<T, D>(keys, k + key0 * stride, stride, keys_end - key0, p.depth);
        fma_load_rows<T, D>(values, v + key0 * stride, stride, keys_end - key0, p.depth);
        __syncthreads();
        float s[4][2], dp[4][2];
        fma_similarities<D>(s, queries, keys);
        fma_similarities<D>(dp, d_o, values);
        const fma_mask mask(p, key, t.first + t.begin, t.head, key0);
#pragma unroll
        for (int r = 0; r < 4; r++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const bool visible = sees(p, t, t.begin + own_row() + r, key0 + own_column(h));
                const float x = visible ? expf(s[r][h] * p.scale - lse[r]) : 0.0f;
                s[r][h] = x * ((mask.keeps(r, h) ? dp[r][h] * inverse_keep : 0.0f) - delta[r]);
            }
        put_weights(dscores, s);
        __syncwarp();
        fma_mix<D>(dqueries, dscores, keys);
        __syncwarp();
    }
    const float factor[4] = {p.scale, p.scale, p.scale, p.scale};
    fma_store_rows<T, D>(part_of(p, t, b.dqkv, 0) + t.begin * stride, stride, dqueries, factor,
                         rows_left, p.depth);
}

/* In: s = K Q^T and dp = V dO^T of the block's keys and queries from `query0`. Out: s = (M P)^T
 * times (1 - p), dp = dS^T. A thread's four keys are one Philox block. */
__device__ __forceinline__ void fma_key_scores(float (&s)[4][2], float (&dp)[4][2],
                                               const float *lse, const float *delta,
                                               const problem &p, ct_rng_key key, const task &t,
                                               int query0)
{
    const float inverse_keep = 1.0f / (1.0f - p.dropout);
    const int key0 = t.begin + own_row();
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int column = own_column(h), query = query0 + column;
        const uint32_t keep =
            p.dropout > 0.0f ? keep_four(p, key, t.first + query, t.head, key0) : 15u;
#pragma unroll
        for (int r = 0; r < 4; r++) {
            const bool visible = sees(p, t, query, key0 + r), kept = keep >> r & 1u;
            const float x = visible ? expf(s[r][h] * p.scale - lse[column]) : 0.0f;
            s[r][h] = kept ? x : 0.0f;
            dp[r][h] = x * ((kept ? dp[r][h] * inverse_keep : 0.0f) - delta[column]);
        }
    }
}

template <class T, int D>
__global__ void __launch_bounds__(FMA_THREADS, fma_blocks<D>)
    dkey_dvalue_fma_kernel(problem p, backward<T> b)
{
    CTK_DYNAMIC_SHARED(float, keys);
    float *values = keys + fma_tile_floats<D>, *queries = values + fma_tile_floats<D>;
    float *d_o = queries + fma_tile_floats<D>, *weights = d_o + fma_tile_floats<D>;
    float *dscores = weights + WEIGHTS_FLOATS, *lse = dscores + WEIGHTS_FLOATS;
    float *delta = lse + FMA_ROWS;
    task t;
    if (!find_task(p, FMA_ROWS, t)) return;

    const int64_t stride = qkv_stride(p), width = o_stride(p);
    const int rows_left = t.length - t.begin;
    const T *q = part_of(p, t, b.qkv, 0), *dout = head_of(p, t, b.d_o);
    const ct_rng_key key = step_key(p);
    float dkeys[4][D / 16], dvalues[4][D / 16];
    fma_clear(dkeys);
    fma_clear(dvalues);
    fma_load_rows<T, D>(keys, part_of(p, t, b.qkv, 1) + t.begin * stride, stride, rows_left,
                        p.depth);
    fma_load_rows<T, D>(values, part_of(p, t, b.qkv, 2) + t.begin * stride, stride, rows_left,
                        p.depth);
    for (int query0 = p.causal ? t.begin : 0; query0 < t.length; query0 += FMA_ROWS) {
        __syncthreads(); /* all are done with the rows before */
        fma_load_rows<T, D>(queries, q + query0 * stride, stride, t.length - query0, p.depth);
        fma_load_rows<T, D>(d_o, dout + query0 * width, width, t.length - query0, p.depth);
        if (threadIdx.x < FMA_ROWS) {
            const int query = query0 + (int)threadIdx.x;
            const int64_t place = (t.first + query) * p.heads + t.head;
            lse[threadIdx.x] = query < t.length ? b.lse[place] : INFINITY; /* P is 0 */
            delta[threadIdx.x] = query < t.length ? b.delta[place] : 0.0f;
        }
        __syncthreads();
        float s[4][2], dp[4][2];
        fma_similarities<D>(s, keys, queries);
        fma_similarities<D>(dp, values, d_o);
        fma_key_scores(s, dp, lse, delta, p, key, t, query0);
        put_weights(weights, s);
        put_weights(dscores, dp);
        __syncwarp();
        fma_mix<D>(dvalues, weights, d_o);
        fma_mix<D>(dkeys, dscores, queries);
        __syncwarp();
    }
    const float inverse_keep = 1.0f / (1.0f - p.dropout);
    const float key_factor[4] = {p.scale, p.scale, p.scale, p.scale};
    const float value_factor[4] = {inverse_keep, inverse_keep, inverse_keep, inverse_keep};
    fma_store_rows<T, D>(part_of(p, t, b.dqkv, 1) + t.begin * stride, stride, dkeys, key_factor,
                         rows_left, p.depth);
    fma_store_rows<T, D>(part_of(p, t, b.dqkv, 2) + t.begin * stride, stride, dvalues, value_factor,
                         rows_left, p.depth);
}

template <class T>
cudaError_t backward_fma(const problem &p, const backward<T> &b, cudaStream_t stream)
{
    return with_depth<32, 64, 128>(p.depth, [&](auto depth) {
        constexpr int D = decltype(depth)::value;
        constexpr size_t TILES = 4 * fma_tile_floats<D>;
        cudaError_t error = launch_tiles(dquery_fma_kernel<T, D>, p, b, FMA_ROWS, FMA_THREADS,
                                         (TILES + WEIGHTS_FLOATS) * sizeof(float), stream);
        if (error != cudaSuccess) return error;
        return launch_tiles(dkey_dvalue_fma_kernel<T, D>, p, b, FMA_ROWS, FMA_THREADS,
                            (TILES + 2 * WEIGHTS_FLOATS + 2 * FMA_ROWS) * sizeof(float), stream);
    });
}

} // namespace ctk::attention

#endif
