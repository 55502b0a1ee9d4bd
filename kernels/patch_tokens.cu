/* The token sequences of a Vision Transformer, and their gradient (op.h: ct_patch_tokens_fwd_args,
 * _bwd_args; Dosovitskiy et al. 2021).
 *
 *   forward:   y[n][0] = class_token + position[0],  y[n][1 + p] = patches[n][p] + position[1 + p]
 *   backward:  dpatches[n][p] = dy[n][1 + p],  dclass_token += sum_n dy[n][0],
 *              dposition[t] += sum_n dy[n][t]
 *
 * Shapes  y, dy (N, 1 + P, D); patches, dpatches (N, P, D); class_token (D); position (1 + P, D),
 * in the compute dtype; the two parameters' gradients f32. Bytes   forward 2 N P D sizeof(T):
 * position stays in the second-level cache; backward 3 N P D sizeof(T), dy being read for dpatches
 * and for dposition. Bound by memory. Plan    a warp a token, 16 bytes a lane. dposition is the
 * sums of the columns of dy as (N, (1 + P) D), by column_sums; dclass_token's N rows are added by
 * one thread a column, eight at a time, in a fixed order. Limit   dclass_token has N / 8 dependent
 * steps: 128 loads in a row for a batch of 1,024. */
#include "kernels.h"
#include "numeric.cuh"

namespace
{

using namespace ctk;

constexpr int token_warps = 8, class_threads = 128, class_unroll = 8;

/* VEC numbers a lane: 16 bytes, or one where the width is not a multiple. */
template <class T, int VEC>
__global__ void __launch_bounds__(32 * token_warps)
    assemble(T *__restrict__ y, const T *__restrict__ patches, const T *__restrict__ class_token,
             const T *__restrict__ position, int64_t rows, int64_t tokens, int64_t width)
{
    const int64_t row = (int64_t)blockIdx.x * token_warps + threadIdx.x / 32;
    if (row >= rows) return;
    const int64_t n = row / tokens, t = row % tokens;
    const T *from = t == 0 ? class_token : patches + (n * (tokens - 1) + t - 1) * width;
    for (int64_t k = (int64_t)(threadIdx.x % 32) * VEC; k < width; k += 32 * VEC) {
        float a[VEC], b[VEC];
        load(a, from + k);
        load(b, position + t * width + k);
#pragma unroll
        for (int i = 0; i < VEC; i++) a[i] += b[i];
        store(y + row * width + k, a);
    }
}

template <class T, int VEC>
__global__ void __launch_bounds__(32 * token_warps)
    take_patches(T *__restrict__ dpatches, const T *__restrict__ dy, int64_t rows, int64_t patches,
                 int64_t width)
{
    const int64_t row = (int64_t)blockIdx.x * token_warps + threadIdx.x / 32;
    if (row >= rows) return;
    const T *from = dy + (row / patches * (patches + 1) + row % patches + 1) * width;
    for (int64_t k = (int64_t)(threadIdx.x % 32) * VEC; k < width; k += 32 * VEC)
        *reinterpret_cast<vec<T, VEC> *>(dpatches + row * width + k) =
            *reinterpret_cast<const vec<T, VEC> *>(from + k);
}

/* The first row of each of `count` pieces of `stride` numbers. */
template <class T>
__global__ void __launch_bounds__(class_threads)
    sum_class(float *dclass_token, const T *__restrict__ dy, int64_t count, int64_t stride,
              int64_t width)
{
    const int64_t k = (int64_t)blockIdx.x * class_threads + threadIdx.x;
    if (k >= width) return;
    float sum[class_unroll] = {};
    for (int64_t n = 0; n < count; n += class_unroll) {
#pragma unroll
        for (int u = 0; u < class_unroll; u++)
            if (n + u < count) sum[u] += to_float(dy[(n + u) * stride + k]);
    }
    dclass_token[k] +=
        ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

inline dim3 token_grid(int64_t rows)
{
    return dim3((unsigned)ceil_div(rows, token_warps));
}

/* dy (N, 1 + P, D) as (N, (1 + P) D). */
ct_tensor flat(const ct_tensor *dy)
{
    return ct_tensor2(dy->data, dy->dtype, dy->dim[0], dy->dim[1] * dy->dim[2]);
}

} // namespace

extern "C" cudaError_t ctk_patch_tokens_fwd(const ct_patch_tokens_fwd_args *args,
                                            const ctk_launch *launch)
{
    const int64_t tokens = args->y.dim[1], width = args->y.dim[2], rows = args->y.dim[0] * tokens;
    return with_type(args->y.dtype, [&](auto type) {
        using T = decltype(type);
        constexpr int W = vec_width<T>;
        auto kernel = width % W == 0 ? assemble<T, W> : assemble<T, 1>;
        return ctk::launch(kernel, token_grid(rows), dim3(32 * token_warps), 0, launch->stream,
                           (T *)args->y.data, (const T *)args->patches.data,
                           (const T *)args->class_token.data, (const T *)args->position.data, rows,
                           tokens, width);
    });
}

extern "C" size_t ctk_patch_tokens_bwd_workspace(const ct_patch_tokens_bwd_args *args, int sm_count)
{
    const ct_tensor dy = flat(&args->dy);
    return ctk_column_sums_workspace(&dy, sm_count);
}

extern "C" cudaError_t ctk_patch_tokens_bwd(const ct_patch_tokens_bwd_args *args,
                                            const ctk_launch *launch)
{
    const int64_t count = args->dy.dim[0], patches = args->dy.dim[1] - 1, width = args->dy.dim[2];
    const ct_tensor dy = flat(&args->dy);
    return with_type(args->dy.dtype, [&](auto type) {
        using T = decltype(type);
        constexpr int W = vec_width<T>;
        auto take = width % W == 0 ? take_patches<T, W> : take_patches<T, 1>;
        cudaError_t error = ctk::launch(take, token_grid(count * patches), dim3(32 * token_warps),
                                        0, launch->stream, (T *)args->dpatches.data,
                                        (const T *)args->dy.data, count * patches, patches, width);
        if (error != cudaSuccess) return error;
        error =
            ctk::launch(sum_class<T>, dim3((unsigned)ceil_div(width, class_threads)),
                        dim3(class_threads), 0, launch->stream, (float *)args->dclass_token.data,
                        (const T *)args->dy.data, count, (patches + 1) * width, width);
        if (error != cudaSuccess) return error;
        return ctk_column_sums(&args->dposition, &dy, launch);
    });
}
