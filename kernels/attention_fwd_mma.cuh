/* Attention forward on tensor cores (FlashAttention-2, Dao 2023, algorithm 1), for each head of
 * each sequence:
 *
 *   S = scale Q K^T    P = softmax(S)    o = dropout(P) V    lse = log of P's denominators
 *
 * Shapes: qkv (T, 3, H, d), o (T, H, d), lse (T, H).
 *
 * Plan: a block has 1, 2 or 4 warps (max_seqlen to 16, to 32, above) and as many groups of 16
 * queries, one a warp; it walks the keys in tiles of as many rows. S and P stay in registers. With
 * a running maximum m and sum l of each row, a tile's turn is
 *
 *   m' = max(m, max S)    P = exp(S - m')    l' = l exp(m - m') + sum P
 *   o' = o exp(m - m') + P V
 *
 * and the division by l comes last. P is rounded to T for the second product; l is summed before.
 * The next keys are on their way while P V is formed, the values while Q K^T is. A sequence that
 * fits one tile, as captions do, takes one turn.
 *
 * Bytes: q, k, v read and o written once, 4 sizeof(T) T H d, plus 2 sizeof(T) d for each key and
 * query tile but the first, which mostly hit L2. Work 4 L^2 d a head: memory is the bound to about
 * L = 128, above it the tensor cores by way of shared memory's bandwidth.
 * Limit: warps have 16 rows each, so every warp reads all keys from shared memory; wgmma, with 64
 * rows a group, would be a second kernel for sm_90 and gain on long sequences only. */
#ifndef CT_KERNELS_ATTENTION_FWD_MMA_CUH
#define CT_KERNELS_ATTENTION_FWD_MMA_CUH

#include "attention_mma.cuh"

namespace ctk::attention
{

/* One warp's 16 queries: what the walk over the keys carries on. */
template <int D> struct softmax_rows {
    float o[D / 8][4]; /* not yet divided */
    float highest[2],
        sum[2]; /* of rows g, g + 8; highest in units of log 2, sum this lane's part */
};

/* In: products of queries from row `query` of the sequence and keys from key0. Out: P, not divided,
 * undropped; `rows` has taken note. */
template <int D, int GROUPS>
__device__ __forceinline__ void online_softmax(softmax_rows<D> &rows, float (&s)[2 * GROUPS][4],
                                               const problem &p, const task &t, int query, int key0,
                                               span groups)
{
    const int low = query + lane() / 4, column = key0 + lane() % 4 * 2;
    const float scale = p.scale * LOG2_E;
    float highest[2] = {rows.highest[0], rows.highest[1]};
#pragma unroll
    for (int i = 0; i < 2 * GROUPS; i++) {
        if (!groups.holds(i / 2)) continue;
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int key = column + 8 * i + e % 2, row = low + e / 2 * 8;
            const bool visible = key < t.length && !(p.causal && key > row);
            s[i][e] = visible ? s[i][e] * scale : -INFINITY;
            highest[e / 2] = fmaxf(highest[e / 2], s[i][e]);
        }
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        highest[r] = fmaxf(highest[r], __shfl_xor_sync(0xffffffffu, highest[r], 1));
        highest[r] = fmaxf(highest[r], __shfl_xor_sync(0xffffffffu, highest[r], 2));
        /* A row's first tile always has its key 0, so the new maximum is a number. */
        const float shrink = exp2f(rows.highest[r] - highest[r]);
        rows.highest[r] = highest[r];
        rows.sum[r] *= shrink;
#pragma unroll
        for (int i = 0; i < D / 8; i++) {
            rows.o[i][2 * r] *= shrink;
            rows.o[i][2 * r + 1] *= shrink;
        }
    }
#pragma unroll
    for (int i = 0; i < 2 * GROUPS; i++) {
        if (!groups.holds(i / 2)) continue;
#pragma unroll
        for (int e = 0; e < 4; e++) {
            s[i][e] = exp2f(s[i][e] - highest[e / 2]);
            rows.sum[e / 2] += s[i][e];
        }
    }
}

/* Rounds P to T as the left operand of P V, without what dropout takes. */
template <class T, int GROUPS>
__device__ __forceinline__ void
probabilities(left_operand<1> (&weights)[GROUPS], float (&s)[2 * GROUPS][4], const problem &p,
              ct_rng_key key, const task &t, int query, int key0, span groups)
{
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        if (!groups.holds(g)) continue;
        if (p.dropout > 0.0f) {
#pragma unroll
            for (int i = 2 * g; i < 2 * g + 2; i++) {
                const uint32_t keep =
                    keep_query_rows(p, key, t.first + query, t.head, key0 + 8 * i);
#pragma unroll
                for (int e = 0; e < 4; e++) s[i][e] = keep >> e & 1u ? s[i][e] : 0.0f;
            }
        }
        as_left<T>(weights[g], s, g);
    }
}

template <class T, int D>
__device__ __forceinline__ void finish_rows(softmax_rows<D> &rows, const forward<T> &f,
                                            const problem &p, const task &t, int query, T *stage)
{
    float factor[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        rows.sum[r] += __shfl_xor_sync(0xffffffffu, rows.sum[r], 1);
        rows.sum[r] += __shfl_xor_sync(0xffffffffu, rows.sum[r], 2);
        factor[r] = 1.0f / (rows.sum[r] * (1.0f - p.dropout));
        const int row = query + lane() / 4 + 8 * r;
        if (row < t.length && lane() % 4 == 0)
            f.lse[(t.first + row) * p.heads + t.head] =
                (rows.highest[r] + log2f(rows.sum[r])) * LN_2;
    }
    store_rows<T, D>(head_of(p, t, f.o) + query * o_stride(p), o_stride(p), stage, rows.o,
                     factor[0], factor[1], t.length - query, p.depth);
}

template <class T, int D, int WARPS>
__global__ void __launch_bounds__(32 * WARPS, (D <= 64 && WARPS <= 2 ? 16 : 12) / WARPS)
    forward_mma_kernel(problem p, forward<T> f)
{
    constexpr int TILE = GROUP * WARPS, THREADS = 32 * WARPS;
    CTK_DYNAMIC_SHARED(T, queries);
    T *keys = queries + WARPS * group_elements<D>, *values = keys + WARPS * group_elements<D>;
    zero_spare_rows(p, f.o, o_stride(p));
    zero_spare_rows(p, f.lse, p.heads);
    task t;
    if (!find_task(p, TILE, t)) return;

    const int64_t stride = qkv_stride(p);
    const T *q = part_of(p, t, f.qkv, 0), *k = part_of(p, t, f.qkv, 1),
            *v = part_of(p, t, f.qkv, 2);
    const int end = t.begin + TILE < t.length ? t.begin + TILE : t.length; /* of the queries */
    const int keys_end = p.causal ? end : t.length;
    auto load = [&](T *tile, const T *x, int row, int rows_end) {
        const int rows = rows_end - row < TILE ? rows_end - row : TILE;
        load_rows<T, D, THREADS>(tile, x + row * stride, stride, rows, p.depth);
        cp_async_commit();
    };
    const int query = t.begin + GROUP * warp(); /* this warp's first; past the end it only loads */
    const int last = query + GROUP < t.length ? query + GROUP : t.length;
    const int visible = query >= t.length ? 0 : p.causal ? last : t.length;
    const ct_rng_key key = step_key(p);
    softmax_rows<D> rows;
    clear(rows.o);
    rows.highest[0] = rows.highest[1] = -INFINITY;
    rows.sum[0] = rows.sum[1] = 0.0f;

    load_rows<T, D, THREADS>(queries, q + t.begin * stride, stride, end - t.begin, p.depth);
    load(keys, k, 0, keys_end);
    load(values, v, 0, keys_end);
    for (int key0 = 0; key0 < keys_end; key0 += TILE) {
        const span groups = groups_of<WARPS>(0, visible - key0);
        float s[2 * WARPS][4];
        if (key0 == 0) cp_async_wait<1>();
        else cp_async_wait<0>();
        __syncthreads(); /* keys are there, and all are done with the values before */
        if (key0 > 0) load(values, v, key0, keys_end);
        similarities<T, D, WARPS>(s, left_rows<T, D, false>(queries + warp() * group_elements<D>),
                                  keys, groups);
        if (groups.end > 0) online_softmax<D, WARPS>(rows, s, p, t, query, key0, groups);
        left_operand<1> weights[WARPS] = {};
        probabilities<T, WARPS>(weights, s, p, key, t, query, key0, groups);
        cp_async_wait<0>();
        __syncthreads(); /* values are there, and all are done with the keys */
        if (key0 + TILE < keys_end) load(keys, k, key0 + TILE, keys_end);
        mix<T, D>(rows.o, weights, values, groups);
    }
    if (query < t.length) finish_rows(rows, f, p, t, query, queries + warp() * group_elements<D>);
}

template <class T>
cudaError_t forward_mma(const problem &p, const forward<T> &f, cudaStream_t stream)
{
    return with_depth<32, 64, 96, 128>(p.depth, [&](auto depth) {
        return with_warps(p.max_seqlen, [&](auto warps) {
            constexpr int D = decltype(depth)::value, WARPS = decltype(warps)::value;
            return launch_tiles(forward_mma_kernel<T, D, WARPS>, p, f, GROUP * WARPS, 32 * WARPS,
                                3 * WARPS * group_elements<D> * sizeof(T), stream);
        });
    });
}

} // namespace ctk::attention

#endif
