/* Sums of powers of two, for log-sum-exps of any size (Milakov & Gimelshein 2018, with exponents in
 * the place of maxima).
 *
 * A sum is kept as sum 2^exponent with a sum between 1 and 2, so joining parts scales by powers of
 * two alone: exact, whatever the order of parts, but for the addition itself. Zero has the lowest
 * exponent. NaN and infinity stay what they are. */
#ifndef CT_KERNELS_LOSS_SUMS_CUH
#define CT_KERNELS_LOSS_SUMS_CUH

#include "loss.cuh"

namespace ctk::loss
{

constexpr int LOWEST_EXPONENT = -(1 << 29);

struct alignas(8) power_sum {
    int exponent;
    float sum;
};

/* 2^k for k <= 127; 0 below 2^-126. */
__device__ __forceinline__ float power_of_two(int k)
{
    return k < -126 ? 0.0f : __int_as_float((k + 127) << 23);
}

/* sum is not negative, nor is it between 0 and 2^-126. */
__device__ __forceinline__ power_sum normal_sum(int exponent, float sum)
{
    if (sum == 0.0f) return {LOWEST_EXPONENT, 0.0f};
    const int bits = __float_as_int(sum);
    if ((bits & 0x7f800000) == 0x7f800000) return {exponent, sum};
    return {exponent + (bits >> 23) - 127, __int_as_float((bits & 0x007fffff) | 0x3f800000)};
}

__device__ __forceinline__ power_sum joined(const power_sum &a, const power_sum &b)
{
    const int exponent = a.exponent > b.exponent ? a.exponent : b.exponent;
    return normal_sum(exponent, a.sum * power_of_two(a.exponent - exponent) +
                                    b.sum * power_of_two(b.exponent - exponent));
}

/* Natural logarithm; -infinity of zero. */
__device__ __forceinline__ float log_of(const power_sum &x)
{
    return x.sum == 0.0f ? -INFINITY : fmaf((float)x.exponent, LN_2, logf(x.sum));
}

/* A step of summing each of N numbers over lanes: of its N numbers a lane passes the half that is
 * not its own to the lane at `distance`, the lower half to the lower lane. log2 N steps leave one
 * sum a lane, for N - 1 shuffles instead of N log2 N. */
template <int N>
__device__ __forceinline__ void fold(float (&half)[N / 2], const float (&x)[N], int distance,
                                     unsigned lane)
{
    const bool upper = lane & (unsigned)distance;
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
        const float own = upper ? x[i + N / 2] : x[i], other = upper ? x[i] : x[i + N / 2];
        half[i] = own + __shfl_xor_sync(0xffffffffu, other, distance);
    }
}

/* A thread's sums of four of its rows, from `first` on, over the four lanes that hold them: put(r,
 * sum), one a lane. */
template <class F>
__device__ __forceinline__ void fold_rows(const float (&rows)[4], int first, unsigned lane, F put)
{
    float two[2], one[1];
    fold<4>(two, rows, 1, lane);
    fold<2>(one, two, 2, lane);
    put(first + (int)(lane % 2 * 2 + lane / 2 % 2), one[0]);
}

/* Its sums of its 8 columns, over the eight lanes that hold them: put(c, sum), one a lane. */
template <class F>
__device__ __forceinline__ void fold_columns(const float (&columns)[8], unsigned lane, F put)
{
    float four[4], two[2], one[1];
    fold<8>(four, columns, 4, lane);
    fold<4>(two, four, 8, lane);
    fold<2>(one, two, 16, lane);
    put((int)(lane / 4 % 2 * 4 + lane / 8 % 2 * 2 + lane / 16), one[0]);
}

} // namespace ctk::loss

#endif
