/* Sums and maxima over a warp and over a block, in a fixed order. */
#ifndef CT_KERNELS_REDUCE_CUH
#define CT_KERNELS_REDUCE_CUH

#include "device.cuh"

namespace ctk
{

/* Every lane of the full warp gets the result. */
template <class T> __device__ __forceinline__ T warp_sum(T x)
{
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, distance);
    return x;
}

template <class T> __device__ __forceinline__ T warp_max(T x)
{
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        const T other = __shfl_xor_sync(0xffffffffu, x, distance);
        x = x > other ? x : other;
    }
    return x;
}

/* Every thread of the block gets the sum; blockDim.x a multiple of 32, one-dimensional. Holds
 * barriers, so all threads must come, and may be called again at once. */
template <class T> __device__ __forceinline__ T block_sum(T x)
{
    CTK_SHARED(T, partial, 32);
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
    __syncthreads();
    x = T(0);
    for (int w = 0; w < (int)blockDim.x / 32; w++) x += partial[w];
    __syncthreads();
    return x;
}

} // namespace ctk

#endif
