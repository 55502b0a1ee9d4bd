/* Rounding as op.h's cast defines it, four numbers at a time: one Philox block holds the random
 * words of elements 4 n to 4 n + 3. */
#ifndef CT_KERNELS_STOCHASTIC_CUH
#define CT_KERNELS_STOCHASTIC_CUH

#include "numeric.cuh"

namespace ctk
{

/* The low 16 bits of `word` are added to the bits of x and 16 bits dropped: up with the probability
 * of what is dropped. NaN stays NaN and infinity infinity. */
__device__ __forceinline__ __nv_bfloat16 round_stochastically(float x, uint32_t word)
{
    if (!isfinite(x)) return from_float<__nv_bfloat16>(x);
    const uint32_t bits = __float_as_uint(x) + (word & 0xFFFFu);
    return from_float<__nv_bfloat16>(__uint_as_float(bits & 0xFFFF0000u)); /* exact */
}

/* y[u] = x[u] in To's format, for elements 4 quad to 4 quad + 3 of a tensor. */
template <class To, bool stochastic>
__device__ __forceinline__ void round_quad(To (&y)[4], const float (&x)[4], ct_rng_key key,
                                           int64_t quad)
{
    if constexpr (stochastic) {
        const ct_philox random = ct_philox_block(key, (uint64_t)quad);
#pragma unroll
        for (int u = 0; u < 4; u++) y[u] = round_stochastically(x[u], random.word[u]);
    } else {
#pragma unroll
        for (int u = 0; u < 4; u++) y[u] = from_float<To>(x[u]);
    }
}

} // namespace ctk

#endif
