/* Attention backward on tensor cores (FlashAttention-2, Dao 2023, algorithm 2, without atomics),
 * for each head of each sequence. With P = exp(scale Q K^T - lse), M the dropout factors (0 or
 * 1 / (1 - p)) and delta = rowsum(dO O):
 *
 *   dV = (M P)^T dO    dP = M (dO V^T)    dS = P (dP - delta)    dQ = scale dS K
 *   dK = scale dS^T Q
 *
 * Shapes: qkv, dqkv (T, 3, H, d); o, d_o (T, H, d); lse (T, H).
 *
 * Plan: a warp owns 16 keys. It forms (M P)^T and dS^T of them and 32 queries at a time in
 * registers, which then are the left operands of its dV and dK.
 *
 *   max_seqlen <= 64 (attention_bwd_fused_mma.cuh): one kernel, a block of 1, 2 or 4 warps has the
 *     whole sequence in shared memory. dS^T goes through shared memory, where V and dO were, to
 *     the warp that owns the queries and forms dQ: five products.
 *   longer (attention_bwd_long_mma.cuh): a kernel for dQ whose warps own 16 queries each and walk
 *     the keys, then one for dK and dV whose warps own 16 keys and walk the queries; 64 rows a
 *     block, 32 a step, the next step's on their way. Both form S and dP: seven products, the
 *     price of a fixed order of sums. The first leaves delta in the workspace for the second.
 *
 * As operands P and dS are rounded to T in the long kernels, as FlashAttention does, and are sums
 * of two numbers of T in the fused one; the factors scale and 1 / (1 - p) come after the sums.
 *
 * Limit: as in attention_fwd_mma.cuh. Below is what the kernels of both files share. */
#ifndef CT_KERNELS_ATTENTION_BWD_MMA_CUH
#define CT_KERNELS_ATTENTION_BWD_MMA_CUH

#include "attention_mma.cuh"

namespace ctk::attention
{

constexpr int STEP_GROUPS = 2, STEP = STEP_GROUPS * GROUP; /* rows walked at a time */

/* ---- what queries bring along ---------------------------------------------------------------- */

/* lse of rows 0 .. rows-1, in units of log 2; behind them, to a whole group, infinity: P is 0. */
__device__ __forceinline__ void load_lse(float *to, const float *lse, const problem &p,
                                         const task &t, int rows)
{
    for (int i = (int)threadIdx.x; i < round_up_to_group(rows); i += (int)blockDim.x)
        to[i] = i < rows ? lse[(t.first + i) * p.heads + t.head] * LOG2_E : INFINITY;
}

/* A warp's part in delta: two lanes a row. The numbers of o are requested early. */
template <class T, int D> struct delta_rows {
    vec<T, 8> o[D / 16];

    /* x: row 0 of the warp's 16; `rows` of them exist. */
    __device__ __forceinline__ void request(const T *x, int64_t stride, int rows, int depth)
    {
        const int row = lane() / 2;
#pragma unroll
        for (int i = 0; i < D / 16; i++) {
            const int column = 16 * i + lane() % 2 * 8;
            if (row < rows && column < depth)
                o[i] = *reinterpret_cast<const vec<T, 8> *>(x + row * stride + column);
            else
                for (int j = 0; j < 8; j++) o[i].v[j] = from_float<T>(0.0f);
        }
    }

    /* The sum for row lane() / 2; d_o: the warp's group of dO in shared memory. */
    __device__ __forceinline__ float sum(const T *d_o) const
    {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < D / 16; i++) {
            float x[8];
            load<8>(x, d_o + lane() / 2 * leading_dimension<D> + 16 * i + lane() % 2 * 8);
#pragma unroll
            for (int j = 0; j < 8; j++) sum += x[j] * to_float(o[i].v[j]);
        }
        return sum + __shfl_xor_sync(0xffffffffu, sum, 1);
    }
};

/* ---- warps that own keys --------------------------------------------------------------------- */

/* In: s = K Q^T and dp = V dO^T of keys from `key0` and queries from `query0`. Out: weights (M P)^T
 * times (1 - p) and dscores dS^T, as left operands. lse and delta are those of the queries. */
template <class T, int PARTS>
__device__ __forceinline__ void
key_scores(left_operand<PARTS> (&weights)[STEP_GROUPS], left_operand<PARTS> (&dscores)[STEP_GROUPS],
           float (&s)[2 * STEP_GROUPS][4], float (&dp)[2 * STEP_GROUPS][4], const float *lse,
           const float *delta, const problem &p, ct_rng_key key, const task &t, int key0,
           int query0, span groups)
{
    const float scale = p.scale * LOG2_E, inverse_keep = 1.0f / (1.0f - p.dropout);
    const int low = key0 + lane() / 4, column = lane() % 4 * 2;
#pragma unroll
    for (int i = 0; i < 2 * STEP_GROUPS; i++) {
        if (!groups.holds(i / 2)) continue;
        const uint32_t keep =
            p.dropout > 0.0f ? keep_key_rows(p, key, t.first + query0 + 8 * i, t.head, key0) : 15u;
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int query = column + 8 * i + e % 2, row = low + e / 2 * 8;
            const bool visible = row < t.length && !(p.causal && row > query0 + query);
            const float x = visible ? exp2f(s[i][e] * scale - lse[query]) : 0.0f;
            const bool kept = keep >> e & 1u;
            s[i][e] = kept ? x : 0.0f;
            dp[i][e] = x * ((kept ? dp[i][e] * inverse_keep : 0.0f) - delta[query]);
        }
    }
#pragma unroll
    for (int g = 0; g < STEP_GROUPS; g++) {
        if (!groups.holds(g)) continue;
        as_left<T>(weights[g], s, g);
        as_left<T>(dscores[g], dp, g);
    }
}

/* The groups of the step from query0 whose queries see any of the keys from key0. */
__device__ __forceinline__ span groups_of_queries(const problem &p, const task &t, int key0,
                                                  int query0)
{
    if (key0 >= t.length) return {0, 0};
    return groups_of<STEP_GROUPS>(p.causal ? key0 - query0 : 0, t.length - query0);
}

} // namespace ctk::attention

#endif
