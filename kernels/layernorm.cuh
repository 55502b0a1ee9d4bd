/* How layer normalisation's kernels, forward and backward, deal a row to threads.
 *
 *   width up to 768     a warp for each row; a lane holds up to 24 numbers
 *   up to 8192          a block of up to 512 threads for each row; a thread holds up to 16
 *   beyond              a block of 512, which reads its row again for each step
 *
 * The first two hold the row in registers: `items` vectors of VEC a thread, the threads' vectors
 * taking turns along the row, so that vector lane + i threads is item i. Rows whose width is not a
 * multiple of the 16-byte vector go number by number; a thread then holds 8, and a warp's rows end
 * at 256, a block's at 4096. */
#ifndef CT_KERNELS_LAYERNORM_CUH
#define CT_KERNELS_LAYERNORM_CUH

#include <type_traits>

#include "numeric.cuh"
#include "reduce.cuh"

namespace ctk
{

constexpr int layernorm_block = 512;

enum class layernorm_path { warp, block, wide };

template <class T> layernorm_path layernorm_path_of(int64_t width)
{
    const bool vectors = width % vec_width<T> == 0;
    if (width <= (vectors ? 768 : 256)) return layernorm_path::warp;
    return width <= (vectors ? 8192 : 4096) ? layernorm_path::block : layernorm_path::wide;
}

/* Calls f(vec, capacity), integral_constants: the vector's width and the numbers a lane holds. */
template <class T, class F> cudaError_t with_warp_row(int64_t width, F f)
{
    using wide = std::integral_constant<int, vec_width<T>>;
    if (width % wide::value)
        return f(std::integral_constant<int, 1>(), std::integral_constant<int, 8>());
    if (width <= 256) return f(wide(), std::integral_constant<int, 8>());
    if (width <= 512) return f(wide(), std::integral_constant<int, 16>());
    return f(wide(), std::integral_constant<int, 24>());
}

/* The same for a block's row. */
template <class T, class F> cudaError_t with_block_row(int64_t width, F f)
{
    using wide = std::integral_constant<int, vec_width<T>>;
    if (width % wide::value)
        return f(std::integral_constant<int, 1>(), std::integral_constant<int, 8>());
    if (width <= 4096) return f(wide(), std::integral_constant<int, 8>());
    return f(wide(), std::integral_constant<int, 16>());
}

/* Threads that a row needs when each holds `capacity` numbers: whole warps. */
inline int block_row_threads(int64_t width, int capacity)
{
    return (int)ceil_div(width, capacity * 32) * 32;
}

} // namespace ctk

#endif
