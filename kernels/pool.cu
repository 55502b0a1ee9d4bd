/* Max pooling over square windows, and the mean over all positions.
 *
 * Shapes  x (N, H, W, C), y and index (N, Ho, Wo, C) or, for the mean, y (N, C).
 * Bytes   maxpool_fwd: x once (windows overlap in the caches), y and 1 byte of index an output;
 *         maxpool_bwd: dy, index read, dx written; avgpool: x (or dx) once and y. Bound by memory.
 * Plan    max: a thread for each 16-byte vector of channels of an output position, so a warp reads
 *         runs of channels; backward gathers, with no atomics: a thread for each vector of an input
 *         position looks at the windows over it in row-major order and adds dy where it won.
 *         mean: a block for each image and 32 vectors of channels; its 8 warps share the positions
 *         and are added in order.
 * Limit   C not a multiple of the vector width goes element by element; the window at most 16 wide,
 *         since a winner's place in it is one byte. */
#include "kernels.h"
#include "numeric.cuh"

namespace
{

using namespace ctk;

constexpr int threads = 256, residency = 4; /* blocks a multiprocessor holds at least */

/* ---- max ----------------------------------------------------------------------------------- */

struct window {
    int c; /* vectors of channels */
    int h, w, ho, wo, size, stride, pad;
    int blocks; /* for one image */
};

window window_of(const ct_tensor *x, const ct_tensor *y, int size, int stride, int pad, int vec)
{
    return {(int)(x->dim[3] / vec),
            (int)x->dim[1],
            (int)x->dim[2],
            (int)y->dim[1],
            (int)y->dim[2],
            size,
            stride,
            pad,
            0};
}

/* Padding is less than a window, so that every window has a valid position; an image's elements are
 * counted in 32 bits. */
bool supported(const ct_tensor *x, const ct_tensor *y, int size, int stride, int pad)
{
    const int64_t most = INT32_MAX - threads;
    return size >= 1 && size <= 16 && stride >= 1 && pad >= 0 && 2 * pad <= size &&
           x->dim[1] * x->dim[2] * x->dim[3] <= most && y->dim[1] * y->dim[2] * y->dim[3] <= most;
}

/* What a thread works on: vector `c` of position (h, w) of image n, `at` that vector's number. A
 * block stays within an image, which keeps the divisions to 32 bits. */
struct place {
    int64_t at, n;
    int c, h, w;
    bool inside;

    __device__ __forceinline__ place(const window &p, int height, int width)
    {
        const int image = (int)blockIdx.x / p.blocks;
        const int index = ((int)blockIdx.x % p.blocks) * threads + (int)threadIdx.x;
        const int position = index / p.c;
        n = image;
        c = index % p.c;
        h = position / width;
        w = position % width;
        inside = h < height;
        at = n * height * width * p.c + index;
    }
};

/* SIZE: the window's, for unrolled loads, or 0: p.size. The first valid position wins until a
 * later one is larger or NaN, as in PyTorch, so that a NaN anywhere is seen in the result. */
template <class T, int VEC, int SIZE>
__global__ void __launch_bounds__(threads, residency)
    maxpool_forward(T *__restrict__ y, uint8_t *__restrict__ index, const T *__restrict__ x,
                    window p)
{
    const place out(p, p.ho, p.wo);
    if (!out.inside) return;
    const int size = SIZE ? SIZE : p.size;
    const int h0 = out.h * p.stride - p.pad, w0 = out.w * p.stride - p.pad;
    const T *image = x + out.n * p.h * p.w * p.c * VEC;
    float best[VEC] = {};
    vec<uint8_t, VEC> winner = {};
    bool first = true;
#pragma unroll(SIZE ? SIZE : 1)
    for (int kh = 0; kh < size; kh++) {
        const int h = h0 + kh;
        if (h < 0 || h >= p.h) continue;
#pragma unroll(SIZE ? SIZE : 1)
        for (int kw = 0; kw < size; kw++) {
            const int w = w0 + kw;
            if (w < 0 || w >= p.w) continue;
            float v[VEC];
            load(v, image + (((int64_t)h * p.w + w) * p.c + out.c) * VEC);
#pragma unroll
            for (int i = 0; i < VEC; i++) {
                const bool wins = first || v[i] > best[i] || v[i] != v[i];
                best[i] = wins ? v[i] : best[i];
                winner.v[i] = wins ? (uint8_t)(kh * size + kw) : winner.v[i];
            }
            first = false;
        }
    }
    store(y + out.at * VEC, best);
    *reinterpret_cast<vec<uint8_t, VEC> *>(index + out.at * VEC) = winner;
}

/* The windows o with o stride - pad <= i < o stride - pad + size are first ... last. */
__device__ __forceinline__ void windows_over(int i, const window &p, int count, int *first,
                                             int *last)
{
    const int end = i + p.pad;
    *first = end < p.size ? 0 : (end - p.size) / p.stride + 1;
    *last = end / p.stride < count ? end / p.stride : count - 1;
}

template <class T, int VEC>
__global__ void __launch_bounds__(threads, residency)
    maxpool_backward(T *__restrict__ dx, const T *__restrict__ dy,
                     const uint8_t *__restrict__ index, window p)
{
    const place in(p, p.h, p.w);
    if (!in.inside) return;
    int oh_first, oh_last, ow_first, ow_last;
    windows_over(in.h, p, p.ho, &oh_first, &oh_last);
    windows_over(in.w, p, p.wo, &ow_first, &ow_last);
    const int64_t image = in.n * p.ho * p.wo;
    float sum[VEC] = {};
    for (int oh = oh_first; oh <= oh_last; oh++) {
        const int kh = in.h + p.pad - oh * p.stride;
        for (int ow = ow_first; ow <= ow_last; ow++) {
            const int own = kh * p.size + in.w + p.pad - ow * p.stride;
            const int64_t at = ((image + (int64_t)oh * p.wo + ow) * p.c + in.c) * VEC;
            float g[VEC];
            const vec<uint8_t, VEC> winner =
                *reinterpret_cast<const vec<uint8_t, VEC> *>(index + at);
            load(g, dy + at);
#pragma unroll
            for (int i = 0; i < VEC; i++) sum[i] += winner.v[i] == own ? g[i] : 0.0f;
        }
    }
    store(dx + in.at * VEC, sum);
}

/* ---- mean ---------------------------------------------------------------------------------- */

constexpr int lanes = 32, warps = threads / lanes;

/* share: 1/positions. Block: image blockIdx.x / tiles, vectors of channels from (blockIdx.x %
 * tiles) lanes on. */
template <class T, int VEC>
__global__ void __launch_bounds__(threads, residency)
    avgpool_forward(T *__restrict__ y, const T *__restrict__ x, int tiles, int64_t positions,
                    int64_t channels, float share)
{
    CTK_SHARED(float, shared, threads *VEC);
    const int lane = (int)threadIdx.x % lanes, warp = (int)threadIdx.x / lanes;
    const int64_t n = (int)blockIdx.x / tiles;
    const int64_t first = (int64_t)((int)blockIdx.x % tiles) * lanes * VEC;
    const int64_t column = first + lane * VEC;
    float sum[VEC] = {};
    if (column < channels) {
        const T *image = x + n * positions * channels + column;
#pragma unroll 4
        for (int64_t i = warp; i < positions; i += warps) {
            float v[VEC];
            load(v, image + i * channels);
#pragma unroll
            for (int c = 0; c < VEC; c++) sum[c] += v[c];
        }
    }
#pragma unroll
    for (int c = 0; c < VEC; c++) shared[(warp * lanes + lane) * VEC + c] = sum[c];
    __syncthreads();
    const int own = (int)threadIdx.x;
    if (own >= lanes * VEC || first + own >= channels) return;
    float total = 0;
#pragma unroll
    for (int w = 0; w < warps; w++) total += shared[w * lanes * VEC + own];
    y[n * channels + first + own] = from_float<T>(total * share);
}

template <class T, int VEC>
__global__ void __launch_bounds__(threads, residency)
    avgpool_backward(T *__restrict__ dx, const T *__restrict__ dy, int tiles, int64_t positions,
                     int64_t channels, float share)
{
    const int lane = (int)threadIdx.x % lanes, warp = (int)threadIdx.x / lanes;
    const int64_t n = (int)blockIdx.x / tiles;
    const int64_t column = ((int64_t)((int)blockIdx.x % tiles) * lanes + lane) * VEC;
    if (column >= channels) return;
    float v[VEC];
    load(v, dy + n * channels + column);
#pragma unroll
    for (int c = 0; c < VEC; c++) v[c] *= share;
    T *image = dx + n * positions * channels + column;
    for (int64_t i = warp; i < positions; i += warps) store(image + i * channels, v);
}

/* Blocks for `images` images of h w positions; notes those of one image. */
dim3 grid_of(window *p, int64_t images, int h, int w)
{
    p->blocks = (int)ceil_div((int64_t)h * w * p->c, threads);
    return dim3((unsigned)(images * p->blocks));
}

} // namespace

extern "C" cudaError_t ctk_maxpool_fwd(const ct_maxpool_fwd_args *args, const ctk_launch *launch)
{
    if (!supported(&args->x, &args->y, args->window, args->stride, args->pad))
        return cudaErrorInvalidValue;
    return with_type(args->x.dtype, [&](auto type) {
        using T = decltype(type);
        constexpr int W = vec_width<T>;
        const int vec = args->x.dim[3] % W == 0 ? W : 1;
        window p = window_of(&args->x, &args->y, args->window, args->stride, args->pad, vec);
        const dim3 grid = grid_of(&p, args->x.dim[0], p.ho, p.wo);
        auto kernel = vec == 1            ? maxpool_forward<T, 1, 0>
                      : args->window == 3 ? maxpool_forward<T, W, 3>
                                          : maxpool_forward<T, W, 0>;
        return ctk::launch(kernel, grid, dim3(threads), 0, launch->stream, (T *)args->y.data,
                           ct_u8(&args->index), (const T *)args->x.data, p);
    });
}

extern "C" cudaError_t ctk_maxpool_bwd(const ct_maxpool_bwd_args *args, const ctk_launch *launch)
{
    if (!supported(&args->dx, &args->dy, args->window, args->stride, args->pad))
        return cudaErrorInvalidValue;
    return with_type(args->dx.dtype, [&](auto type) {
        using T = decltype(type);
        constexpr int W = vec_width<T>;
        const int vec = args->dx.dim[3] % W == 0 ? W : 1;
        window p = window_of(&args->dx, &args->dy, args->window, args->stride, args->pad, vec);
        const dim3 grid = grid_of(&p, args->dx.dim[0], p.h, p.w);
        auto kernel = vec == 1 ? maxpool_backward<T, 1> : maxpool_backward<T, W>;
        return ctk::launch(kernel, grid, dim3(threads), 0, launch->stream, (T *)args->dx.data,
                           (const T *)args->dy.data, (const uint8_t *)ct_u8(&args->index), p);
    });
}

extern "C" cudaError_t ctk_avgpool_fwd(const ct_avgpool_fwd_args *args, const ctk_launch *launch)
{
    const int64_t channels = args->x.dim[3], positions = args->x.dim[1] * args->x.dim[2];
    return with_type(args->x.dtype, [&](auto type) {
        using T = decltype(type);
        constexpr int W = vec_width<T>;
        const int vec = channels % W == 0 ? W : 1;
        const int tiles = (int)ceil_div(channels / vec, lanes);
        auto kernel = vec == 1 ? avgpool_forward<T, 1> : avgpool_forward<T, W>;
        return ctk::launch(kernel, dim3((unsigned)(args->x.dim[0] * tiles)), dim3(threads), 0,
                           launch->stream, (T *)args->y.data, (const T *)args->x.data, tiles,
                           positions, channels, 1.0f / (float)positions);
    });
}

extern "C" cudaError_t ctk_avgpool_bwd(const ct_avgpool_bwd_args *args, const ctk_launch *launch)
{
    const int64_t channels = args->dx.dim[3], positions = args->dx.dim[1] * args->dx.dim[2];
    return with_type(args->dx.dtype, [&](auto type) {
        using T = decltype(type);
        constexpr int W = vec_width<T>;
        const int vec = channels % W == 0 ? W : 1;
        const int tiles = (int)ceil_div(channels / vec, lanes);
        auto kernel = vec == 1 ? avgpool_backward<T, 1> : avgpool_backward<T, W>;
        return ctk::launch(kernel, dim3((unsigned)(args->dx.dim[0] * tiles)), dim3(threads), 0,
                           launch->stream, (T *)args->dx.data, (const T *)args->dy.data, tiles,
                           positions, channels, 1.0f / (float)positions);
    });
}
