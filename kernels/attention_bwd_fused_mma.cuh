/* Attention backward on tensor cores for max_seqlen <= 64: formulas and plan in
 * attention_bwd_mma.cuh. Bytes: q, k, v, o, dO read and dq, dk, dv written once, 8 sizeof(T) T H d;
 * they are the bound. */
#ifndef CT_KERNELS_ATTENTION_BWD_FUSED_MMA_CUH
#define CT_KERNELS_ATTENTION_BWD_FUSED_MMA_CUH

#include "attention_bwd_mma.cuh"

namespace ctk::attention
{

/* Memory bounds this kernel, so its tensor cores have time for weights of more than T's precision:
 * gradients are then as good as rounding inputs and outputs allows. */
constexpr int FUSED_PARTS = 2;

/* dS^T of a warp's keys goes to rows of a tile, one a key, of TILE queries. */
template <class T, int LD>
__device__ __forceinline__ void put_dscores(T *rows, const uint32_t (&dscores)[4])
{
    T *low = rows + lane() / 4 * LD + lane() % 4 * 2, *high = low + 8 * LD;
    *reinterpret_cast<uint32_t *>(low) = dscores[0];
    *reinterpret_cast<uint32_t *>(high) = dscores[1];
    *reinterpret_cast<uint32_t *>(low + 8) = dscores[2];
    *reinterpret_cast<uint32_t *>(high + 8) = dscores[3];
}

/* Elements that V's and dO's tiles need so that the parts of dS^T fit in their place. */
template <int D, int WARPS>
constexpr int shared_with_dscores = GROUP *WARPS *(leading_dimension<D> >
                                                           leading_dimension<GROUP * WARPS>
                                                       ? leading_dimension<D>
                                                       : leading_dimension<GROUP * WARPS>);

template <int D, int WARPS, class T> constexpr size_t fused_shared_bytes()
{
    return (2 * WARPS * group_elements<D> + 2 * shared_with_dscores<D, WARPS>)*sizeof(T) +
           2 * GROUP * WARPS * sizeof(float);
}

template <class T, int D, int WARPS>
__global__ void __launch_bounds__(32 * WARPS, 8 / WARPS)
    fused_backward_mma_kernel(problem p, backward<T> b)
{
    constexpr int TILE = GROUP * WARPS, THREADS = 32 * WARPS, LD = leading_dimension<TILE>;
    constexpr int STEPS = (TILE + STEP - 1) / STEP;
    CTK_DYNAMIC_SHARED(T, queries);
    T *keys = queries + WARPS * group_elements<D>, *d_o = keys + WARPS * group_elements<D>;
    T *values = d_o + shared_with_dscores<D, WARPS>;
    float *lse = reinterpret_cast<float *>(values + shared_with_dscores<D, WARPS>);
    float *delta = lse + TILE;
    zero_spare_rows(p, b.dqkv, qkv_stride(p));
    task t;
    if (!find_task(p, TILE, t)) return;

    const int64_t stride = qkv_stride(p), width = o_stride(p);
    load_rows<T, D, THREADS>(queries, part_of(p, t, b.qkv, 0), stride, t.length, p.depth);
    load_rows<T, D, THREADS>(keys, part_of(p, t, b.qkv, 1), stride, t.length, p.depth);
    load_rows<T, D, THREADS>(values, part_of(p, t, b.qkv, 2), stride, t.length, p.depth);
    load_rows<T, D, THREADS>(d_o, head_of(p, t, b.d_o), width, t.length, p.depth);
    cp_async_commit();
    const int own = GROUP * warp(), own_rows = t.length - own; /* keys, then queries */
    const bool has_rows = own_rows > 0;
    T *own_queries = queries + warp() * group_elements<D>;
    const T *own_d_o = d_o + warp() * group_elements<D>;
    delta_rows<T, D> own_delta;
    own_delta.request(head_of(p, t, b.o) + own * width, width, own_rows, p.depth);
    load_lse(lse, b.lse, p, t, t.length);
    const ct_rng_key key = step_key(p);
    cp_async_wait<0>();
    __syncthreads();
    if (has_rows) {
        const float sum = own_delta.sum(own_d_o);
        if (lane() % 2 == 0) delta[own + lane() / 2] = sum;
    }
    __syncthreads();

    float dkeys[D / 8][4], dvalues[D / 8][4];
    left_operand<FUSED_PARTS> dscores[STEPS][STEP_GROUPS] = {};
    clear(dkeys);
    clear(dvalues);
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        const span groups = groups_of_queries(p, t, own, STEP * step);
        const T *step_queries = queries + STEP_GROUPS * step * group_elements<D>;
        const T *step_d_o = d_o + STEP_GROUPS * step * group_elements<D>;
        float s[2 * STEP_GROUPS][4], dp[2 * STEP_GROUPS][4];
        left_operand<FUSED_PARTS> weights[STEP_GROUPS] = {};
        similarities<T, D, STEP_GROUPS>(
            s, left_rows<T, D, false>(keys + warp() * group_elements<D>), step_queries, groups);
        similarities<T, D, STEP_GROUPS>(
            dp, left_rows<T, D, false>(values + warp() * group_elements<D>), step_d_o, groups);
        key_scores<T>(weights, dscores[step], s, dp, lse + STEP * step, delta + STEP * step, p, key,
                      t, own, STEP * step, groups);
        mix<T, D>(dvalues, weights, step_d_o, groups);
        mix<T, D>(dkeys, dscores[step], step_queries, groups);
    }

    __syncthreads(); /* all are done with Q, V and dO: room for dS^T and for results on their way */
    T *const dscores_parts[FUSED_PARTS] = {values, d_o};
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        const span groups = groups_of_queries(p, t, own, STEP * step);
#pragma unroll
        for (int g = 0; g < STEP_GROUPS; g++)
#pragma unroll
            for (int part = 0; part < FUSED_PARTS; part++)
                if (groups.holds(g))
                    put_dscores<T, LD>(dscores_parts[part] + own * LD + STEP * step + GROUP * g,
                                       dscores[step][g].part[part]);
    }
    if (has_rows) {
        const float inverse_keep = 1.0f / (1.0f - p.dropout);
        store_rows<T, D>(part_of(p, t, b.dqkv, 2) + own * stride, stride, own_queries, dvalues,
                         inverse_keep, inverse_keep, own_rows, p.depth);
        store_rows<T, D>(part_of(p, t, b.dqkv, 1) + own * stride, stride, own_queries, dkeys,
                         p.scale, p.scale, own_rows, p.depth);
    }
    __syncthreads(); /* dS^T is there */
    if (!has_rows) return;
    float dqueries[D / 8][4];
    clear(dqueries);
    const int seen = p.causal && own + GROUP < t.length ? own + GROUP : t.length;
    const int l = lane();
#pragma unroll
    for (int g = 0; g < WARPS; g++) {
        if (GROUP * g >= seen) continue;
        left_operand<FUSED_PARTS> a; /* 16 queries x 16 keys from 16 keys x 16 queries */
#pragma unroll
        for (int part = 0; part < FUSED_PARTS; part++)
            ldmatrix_x4_trans(a.part[part], dscores_parts[part] +
                                                (GROUP * g + l / 16 * 8 + l % 8) * LD + own +
                                                l / 8 % 2 * 8);
        mix_group<T, D>(dqueries, a, keys + g * group_elements<D>);
    }
    store_rows<T, D>(part_of(p, t, b.dqkv, 0) + own * stride, stride, own_queries, dqueries,
                     p.scale, p.scale, own_rows, p.depth);
}

template <class T>
cudaError_t backward_fused_mma(const problem &p, const backward<T> &b, cudaStream_t stream)
{
    return with_depth<32, 64, 96, 128>(p.depth, [&](auto depth) {
        return with_warps(p.max_seqlen, [&](auto warps) {
            constexpr int D = decltype(depth)::value, WARPS = decltype(warps)::value;
            return launch_tiles(fused_backward_mma_kernel<T, D, WARPS>, p, b, GROUP * WARPS,
                                32 * WARPS, fused_shared_bytes<D, WARPS, T>(), stream);
        });
    });
}

} // namespace ctk::attention

#endif
