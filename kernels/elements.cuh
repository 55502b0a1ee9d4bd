/* Passes over all elements of equally shaped tensors, whatever the shape: 16 bytes an access, two
 * accesses of each tensor in flight a thread, the last count % W elements one by one. */
#ifndef CT_KERNELS_ELEMENTS_CUH
#define CT_KERNELS_ELEMENTS_CUH

#include <type_traits>

#include "numeric.cuh"

namespace ctk
{

constexpr int element_threads = 256, element_unroll = 2;
constexpr int element_residency = 5; /* blocks a multiprocessor holds at least: 48 registers */

/* Elements between a thread's neighbouring vectors of W. */
template <int W> constexpr int64_t element_step = (int64_t)element_threads *W;

/* Blocks for `count` elements. */
template <int W> dim3 element_grid(int64_t count)
{
    return dim3((unsigned)ceil_div(count, element_unroll * element_step<W>));
}

/* Calls f(vectors, width, at), the first two integral_constants, until all of this thread's
 * elements were named: `vectors` runs of `width` elements, from at + i element_step<W> on. */
template <int W, class F> __device__ __forceinline__ void visit_elements(int64_t count, F f)
{
    using one = std::integral_constant<int, 1>;
    using wide = std::integral_constant<int, W>;
    int64_t at = ((int64_t)blockIdx.x * element_unroll * element_threads + threadIdx.x) * W;
    if (at + (element_unroll - 1) * element_step<W> + W <= count) {
        f(std::integral_constant<int, element_unroll>(), wide(), at);
        return;
    }
    for (int i = 0; i < element_unroll; i++, at += element_step<W>) {
        if (at + W <= count) {
            f(one(), wide(), at);
            continue;
        }
        for (int64_t last = at; last < count && last < at + W; last++) f(one(), one(), last);
    }
}

} // namespace ctk

#endif
