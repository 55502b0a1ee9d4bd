/* y = x / max(|x|, eps) for each row, and its gradient dx = (dy - y (y . dy)) / |x|.
 *
 * Shapes  x, y, dy, dx (N, D) in the compute dtype, inv_norm (N) f32.
 * Bytes   forward 2, backward 3 N D sizeof(T): a row is read twice, the second time from the
 *         first-level cache. Bound by memory; for a batch of embeddings, by the launch.
 * Plan    a warp for each row, 16 bytes a lane; sums in f32 over lanes, then by shuffles.
 * Limit   D not a multiple of the vector width goes element by element; few rows of large D leave
 *         multiprocessors idle. */
#include "kernels.h"
#include "numeric.cuh"
#include "reduce.cuh"

namespace
{

using namespace ctk;

constexpr int threads = 128, rows_per_block = threads / 32;

template <class T, int VEC>
__global__ void __launch_bounds__(threads)
    l2norm_forward(T *__restrict__ y, float *__restrict__ inv_norm, const T *__restrict__ x,
                   int64_t rows, int64_t width, float eps)
{
    const int lane = (int)threadIdx.x % 32;
    const int64_t row = (int64_t)blockIdx.x * rows_per_block + (int)threadIdx.x / 32;
    if (row >= rows) return; /* whole warps */
    x += row * width;
    y += row * width;
    float square = 0;
    for (int64_t at = lane * VEC; at < width; at += 32 * VEC) {
        float v[VEC];
        load(v, x + at);
#pragma unroll
        for (int c = 0; c < VEC; c++) square += v[c] * v[c];
    }
    const float norm = sqrtf(warp_sum(square));
    const float inverse = 1.0f / (norm < eps ? eps : norm);
    for (int64_t at = lane * VEC; at < width; at += 32 * VEC) {
        float v[VEC];
        load(v, x + at);
#pragma unroll
        for (int c = 0; c < VEC; c++) v[c] *= inverse;
        store(y + at, v);
    }
    if (lane == 0) inv_norm[row] = inverse;
}

/* Where forward divided by eps instead of |x|, y is shorter than 1 and the divisor does not depend
 * on x: dx = dy / eps. dx may be dy. */
template <class T, int VEC>
__global__ void __launch_bounds__(threads)
    l2norm_backward(T *dx, const T *dy, const T *__restrict__ y, const float *__restrict__ inv_norm,
                    int64_t rows, int64_t width)
{
    /* Squared length of a normalised row, the rounding of its elements allowed for. */
    constexpr float unit = sizeof(T) == 2 ? 0.99f : 0.999f;
    const int lane = (int)threadIdx.x % 32;
    const int64_t row = (int64_t)blockIdx.x * rows_per_block + (int)threadIdx.x / 32;
    if (row >= rows) return; /* whole warps */
    dx += row * width;
    dy += row * width;
    y += row * width;
    float y_dy = 0, y_y = 0;
    for (int64_t at = lane * VEC; at < width; at += 32 * VEC) {
        float v[VEC], g[VEC];
        load(v, y + at);
        load(g, dy + at);
#pragma unroll
        for (int c = 0; c < VEC; c++) {
            y_dy += v[c] * g[c];
            y_y += v[c] * v[c];
        }
    }
    y_dy = warp_sum(y_dy);
    const float along = warp_sum(y_y) < unit ? 0.0f : y_dy, inverse = inv_norm[row];
    for (int64_t at = lane * VEC; at < width; at += 32 * VEC) {
        float v[VEC], g[VEC];
        load(v, y + at);
        load(g, dy + at);
#pragma unroll
        for (int c = 0; c < VEC; c++) g[c] = inverse * (g[c] - v[c] * along);
        store(dx + at, g);
    }
}

dim3 grid_of(int64_t rows)
{
    return dim3((unsigned)ceil_div(rows, rows_per_block));
}

} // namespace

extern "C" cudaError_t ctk_l2norm_fwd(const ct_l2norm_fwd_args *args, const ctk_launch *launch)
{
    const int64_t rows = args->x.dim[0], width = args->x.dim[1];
    return with_type(args->x.dtype, [&](auto type) {
        using T = decltype(type);
        constexpr int W = vec_width<T>;
        auto kernel = width % W == 0 ? l2norm_forward<T, W> : l2norm_forward<T, 1>;
        return ctk::launch(kernel, grid_of(rows), dim3(threads), 0, launch->stream,
                           (T *)args->y.data, ct_f32(&args->inv_norm), (const T *)args->x.data,
                           rows, width, args->eps);
    });
}

extern "C" cudaError_t ctk_l2norm_bwd(const ct_l2norm_bwd_args *args, const ctk_launch *launch)
{
    const int64_t rows = args->y.dim[0], width = args->y.dim[1];
    return with_type(args->y.dtype, [&](auto type) {
        using T = decltype(type);
        constexpr int W = vec_width<T>;
        auto kernel = width % W == 0 ? l2norm_backward<T, W> : l2norm_backward<T, 1>;
        return ctk::launch(kernel, grid_of(rows), dim3(threads), 0, launch->stream,
                           (T *)args->dx.data, (const T *)args->dy.data, (const T *)args->y.data,
                           ct_f32(&args->inv_norm), rows, width);
    });
}
