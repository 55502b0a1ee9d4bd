/* The optimiser's segments (parameter tensors) cut into chunks of equal length, one chunk a block,
 * numbered through all segments of a launch: a bias of 64 numbers costs a block and not a launch,
 * and blocks that run at a time have about the same to do. */
#ifndef CT_KERNELS_SEGMENTS_CUH
#define CT_KERNELS_SEGMENTS_CUH

#include "numeric.cuh"

namespace ctk
{

constexpr int chunk_elements = 16384; /* a multiple of every vector width */

inline int64_t chunk_count(int64_t elements)
{
    return ceil_div(elements, chunk_elements);
}

/* The segment s of `count` with first_chunk(s) <= chunk < first_chunk(s + 1). Segments hold at
 * least one chunk each. */
template <class F> __device__ __forceinline__ int find_segment(int chunk, int count, F first_chunk)
{
    int low = 0, high = count;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (first_chunk(middle) <= chunk) low = middle;
        else high = middle;
    }
    return low;
}

__device__ __forceinline__ bool is_aligned(const void *address, int bytes)
{
    return reinterpret_cast<uintptr_t>(address) % (unsigned)bytes == 0;
}

} // namespace ctk

#endif
