/* Attention backward on tensor cores for max_seqlen > 64, two kernels: formulas and plan in
 * attention_bwd_mma.cuh. Bytes: each reads its 64 own rows once and, for each block, all rows it
 * walks (2 sizeof(T) d each), mostly from L2. Tensor cores and shared memory's bandwidth are the
 * bound. */
#ifndef CT_KERNELS_ATTENTION_BWD_LONG_MMA_CUH
#define CT_KERNELS_ATTENTION_BWD_LONG_MMA_CUH

#include "attention_bwd_mma.cuh"

namespace ctk::attention
{

/* Parts of P and dS as operands: one, as FlashAttention rounds them. */
constexpr int LONG_PARTS = 1;

constexpr int LONG_WARPS = 4;

/* ---- dQ ------------------------------------------------------------------------------------ */

/* The rows of two tensors that a block walks, two steps of STEP rows in flight. */
template <class T, int D, int THREADS> struct walk {
    T *tiles; /* 2 x (first, second) x STEP rows */
    const T *first, *second;
    int64_t first_stride, second_stride;
    int end, depth;

    static constexpr int ELEMENTS = STEP_GROUPS * group_elements<D>;

    __device__ __forceinline__ T *first_tile(int row) const
    {
        return tiles + row / STEP % 2 * 2 * ELEMENTS;
    }
    __device__ __forceinline__ T *second_tile(int row) const { return first_tile(row) + ELEMENTS; }
    /* Starts the copy of the step from `row`, a multiple of STEP; nothing past the end. */
    __device__ __forceinline__ void request(int row) const
    {
        const int rows = end - row < STEP ? end - row : STEP;
        if (rows > 0) {
            load_rows<T, D, THREADS>(first_tile(row), first + row * first_stride, first_stride,
                                     rows, depth);
            load_rows<T, D, THREADS>(second_tile(row), second + row * second_stride, second_stride,
                                     rows, depth);
        }
        cp_async_commit();
    }
};

/* In: s = Q K^T and dp = dO V^T of queries from `query0` and keys from `key0`. Out: dscores dS. */
template <class T>
__device__ __forceinline__ void
query_scores(left_operand<LONG_PARTS> (&dscores)[STEP_GROUPS], float (&s)[2 * STEP_GROUPS][4],
             float (&dp)[2 * STEP_GROUPS][4], const float (&lse)[2], const float (&delta)[2],
             const problem &p, ct_rng_key key, const task &t, int query0, int key0, span groups)
{
    const float scale = p.scale * LOG2_E, inverse_keep = 1.0f / (1.0f - p.dropout);
    const int low = query0 + lane() / 4, column = key0 + lane() % 4 * 2;
#pragma unroll
    for (int i = 0; i < 2 * STEP_GROUPS; i++) {
        if (!groups.holds(i / 2)) continue;
        const uint32_t keep = p.dropout > 0.0f
                                  ? keep_query_rows(p, key, t.first + query0, t.head, key0 + 8 * i)
                                  : 15u;
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int row = low + e / 2 * 8, column_key = column + 8 * i + e % 2;
            const bool visible = column_key < t.length && !(p.causal && column_key > row);
            const float x = visible ? exp2f(s[i][e] * scale - lse[e / 2]) : 0.0f;
            dp[i][e] = x * ((keep >> e & 1u ? dp[i][e] * inverse_keep : 0.0f) - delta[e / 2]);
        }
    }
#pragma unroll
    for (int g = 0; g < STEP_GROUPS; g++)
        if (groups.holds(g)) as_left<T>(dscores[g], dp, g);
}

template <class T, int D>
__global__ void __launch_bounds__(32 * LONG_WARPS, D <= 64 ? 3 : 2)
    dquery_mma_kernel(problem p, backward<T> b)
{
    constexpr int TILE = GROUP * LONG_WARPS, THREADS = 32 * LONG_WARPS;
    CTK_DYNAMIC_SHARED(T, queries);
    T *d_o = queries + LONG_WARPS * group_elements<D>;
    zero_spare_rows(p, b.dqkv, qkv_stride(p));
    task t;
    if (!find_task(p, TILE, t)) return;

    const int64_t stride = qkv_stride(p), width = o_stride(p);
    const int end = t.begin + TILE < t.length ? t.begin + TILE : t.length;
    const walk<T, D, THREADS> keys = {d_o + LONG_WARPS * group_elements<D>,
                                      part_of(p, t, b.qkv, 1),
                                      part_of(p, t, b.qkv, 2),
                                      stride,
                                      stride,
                                      p.causal ? end : t.length,
                                      p.depth};
    load_rows<T, D, THREADS>(queries, part_of(p, t, b.qkv, 0) + t.begin * stride, stride,
                             end - t.begin, p.depth);
    load_rows<T, D, THREADS>(d_o, head_of(p, t, b.d_o) + t.begin * width, width, end - t.begin,
                             p.depth);
    keys.request(0);
    const int own = t.begin + GROUP * warp(), own_rows = t.length - own;
    T *own_queries = queries + warp() * group_elements<D>;
    const T *own_d_o = d_o + warp() * group_elements<D>;
    delta_rows<T, D> own_delta;
    own_delta.request(head_of(p, t, b.o) + own * width, width, own_rows, p.depth);
    const int last = own + GROUP < t.length ? own + GROUP : t.length;
    const int visible = own_rows <= 0 ? 0 : p.causal ? last : t.length;
    const ct_rng_key key = step_key(p);
    const int g = lane() / 4;
    float lse[2], delta[2] = {}, dqueries[D / 8][4];
#pragma unroll
    for (int r = 0; r < 2; r++) /* rows behind the end: P is 0 */
        lse[r] = g + 8 * r < own_rows
                     ? b.lse[(t.first + own + g + 8 * r) * p.heads + t.head] * LOG2_E
                     : INFINITY;
    clear(dqueries);

    for (int key0 = 0; key0 < keys.end; key0 += STEP) {
        cp_async_wait<0>();
        __syncthreads(); /* this step's rows are there, and all are done with the one before */
        keys.request(key0 + STEP);
        if (key0 == 0 && own_rows > 0) {
            const float sum = own_delta.sum(own_d_o);
            if (lane() % 2 == 0 && lane() / 2 < own_rows)
                b.delta[(t.first + own + lane() / 2) * p.heads + t.head] = sum;
            delta[0] = __shfl_sync(0xffffffffu, sum, 2 * g);
            delta[1] = __shfl_sync(0xffffffffu, sum, 2 * g + 16);
        }
        const span groups = groups_of<STEP_GROUPS>(0, visible - key0);
        float s[2 * STEP_GROUPS][4], dp[2 * STEP_GROUPS][4];
        left_operand<LONG_PARTS> dscores[STEP_GROUPS] = {};
        similarities<T, D, STEP_GROUPS>(s, left_rows<T, D, false>(own_queries),
                                        keys.first_tile(key0), groups);
        similarities<T, D, STEP_GROUPS>(dp, left_rows<T, D, false>(own_d_o), keys.second_tile(key0),
                                        groups);
        query_scores<T>(dscores, s, dp, lse, delta, p, key, t, own, key0, groups);
        mix<T, D>(dqueries, dscores, keys.first_tile(key0), groups);
    }
    if (own_rows > 0)
        store_rows<T, D>(part_of(p, t, b.dqkv, 0) + own * stride, stride, own_queries, dqueries,
                         p.scale, p.scale, own_rows, p.depth);
}

/* ---- dK and dV ----------------------------------------------------------------------------- */

template <class T, int D>
__global__ void __launch_bounds__(32 * LONG_WARPS, 2)
    dkey_dvalue_mma_kernel(problem p, backward<T> b)
{
    constexpr int TILE = GROUP * LONG_WARPS, THREADS = 32 * LONG_WARPS;
    CTK_DYNAMIC_SHARED(T, keys);
    T *values = keys + LONG_WARPS * group_elements<D>;
    task t;
    if (!find_task(p, TILE, t)) return;

    const int64_t stride = qkv_stride(p), width = o_stride(p);
    const int end = t.begin + TILE < t.length ? t.begin + TILE : t.length;
    const walk<T, D, THREADS> queries = {values + LONG_WARPS * group_elements<D>,
                                         part_of(p, t, b.qkv, 0),
                                         head_of(p, t, b.d_o),
                                         stride,
                                         width,
                                         t.length,
                                         p.depth};
    float *lse = reinterpret_cast<float *>(queries.tiles + 4 * queries.ELEMENTS);
    float *delta = lse + round_up_to_group(p.max_seqlen);
    const int query_begin = p.causal ? t.begin : 0; /* a multiple of STEP */
    load_rows<T, D, THREADS>(keys, part_of(p, t, b.qkv, 1) + t.begin * stride, stride,
                             end - t.begin, p.depth);
    load_rows<T, D, THREADS>(values, part_of(p, t, b.qkv, 2) + t.begin * stride, stride,
                             end - t.begin, p.depth);
    queries.request(query_begin);
    load_lse(lse, b.lse, p, t, t.length);
    for (int i = (int)threadIdx.x; i < round_up_to_group(t.length); i += THREADS)
        delta[i] = i < t.length ? b.delta[(t.first + i) * p.heads + t.head] : 0.0f;
    const int own = t.begin + GROUP * warp(), own_rows = t.length - own;
    T *own_keys = keys + warp() * group_elements<D>;
    T *own_values = values + warp() * group_elements<D>;
    const ct_rng_key key = step_key(p);
    float dkeys[D / 8][4], dvalues[D / 8][4];
    clear(dkeys);
    clear(dvalues);

    for (int query0 = query_begin; query0 < t.length; query0 += STEP) {
        cp_async_wait<0>();
        __syncthreads(); /* this step's rows are there, and all are done with the one before */
        queries.request(query0 + STEP);
        const T *step_queries = queries.first_tile(query0), *step_d_o = queries.second_tile(query0);
        const span groups = groups_of_queries(p, t, own, query0);
        float s[2 * STEP_GROUPS][4], dp[2 * STEP_GROUPS][4];
        left_operand<LONG_PARTS> weights[STEP_GROUPS] = {}, dscores[STEP_GROUPS] = {};
        similarities<T, D, STEP_GROUPS>(s, left_rows<T, D, false>(own_keys), step_queries, groups);
        similarities<T, D, STEP_GROUPS>(dp, left_rows<T, D, false>(own_values), step_d_o, groups);
        key_scores<T>(weights, dscores, s, dp, lse + query0, delta + query0, p, key, t, own, query0,
                      groups);
        mix<T, D>(dvalues, weights, step_d_o, groups);
        mix<T, D>(dkeys, dscores, step_queries, groups);
    }
    if (own_rows <= 0) return;
    const float inverse_keep = 1.0f / (1.0f - p.dropout);
    store_rows<T, D>(part_of(p, t, b.dqkv, 1) + own * stride, stride, own_keys, dkeys, p.scale,
                     p.scale, own_rows, p.depth);
    store_rows<T, D>(part_of(p, t, b.dqkv, 2) + own * stride, stride, own_values, dvalues,
                     inverse_keep, inverse_keep, own_rows, p.depth);
}

/* ---- host ---------------------------------------------------------------------------------- */

template <class T>
cudaError_t backward_long_mma(const problem &p, const backward<T> &b, cudaStream_t stream)
{
    constexpr int ROWS = GROUP * LONG_WARPS, THREADS = 32 * LONG_WARPS;
    return with_depth<32, 64, 96, 128>(p.depth, [&](auto depth) {
        constexpr int D = decltype(depth)::value;
        const size_t tile_bytes = 4 * LONG_WARPS * group_elements<D> * sizeof(T);
        const size_t row_bytes = 2 * (size_t)ceil_div(p.max_seqlen, GROUP) * GROUP * sizeof(float);
        cudaError_t error =
            launch_tiles(dquery_mma_kernel<T, D>, p, b, ROWS, THREADS, tile_bytes, stream);
        if (error != cudaSuccess) return error;
        return launch_tiles(dkey_dvalue_mma_kernel<T, D>, p, b, ROWS, THREADS,
                            tile_bytes + row_bytes, stream);
    });
}

} // namespace ctk::attention

#endif
