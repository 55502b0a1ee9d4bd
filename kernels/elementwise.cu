/* Elementwise operations: activations and their gradients (formulas in numeric.cuh), sums, dropout
 * (Srivastava et al. 2014).
 *
 * Shapes  any.
 * Bytes   each tensor once: activation and dropout 2, activation_bwd, add and accumulate 3 tensors.
 *         Bound by memory; dropout's Philox takes some 15 integer operations an element, which is
 *         below the memory's time.
 * Plan    elements.cuh. An element is read and written by one thread, reads first, so outputs may
 *         be the inputs that op.h allows. Pointers that may be equal are not __restrict__.
 * Limit   none: any count of elements. */
#include "elements.cuh"
#include "kernels.h"

namespace
{

using namespace ctk;

template <class T> constexpr int W = vec_width<T>;

/* y = act(x); y may be x. */
template <class T, ct_activation act>
__global__ void __launch_bounds__(element_threads, element_residency)
    activation(T *y, const T *x, int64_t count)
{
    visit_elements<W<T>>(count, [&](auto vectors, auto wide, int64_t at) {
        constexpr int n = decltype(vectors)::value, w = decltype(wide)::value;
        constexpr int64_t step = element_step<W<T>>;
        float v[n][w];
#pragma unroll
        for (int i = 0; i < n; i++) load(v[i], x + at + i * step);
#pragma unroll
        for (int i = 0; i < n; i++) {
#pragma unroll
            for (int c = 0; c < w; c++) v[i][c] = activate<act>(v[i][c]);
            store(y + at + i * step, v[i]);
        }
    });
}

/* dx = dy act'(x); dx may be dy. */
template <class T, ct_activation act>
__global__ void __launch_bounds__(element_threads, element_residency)
    activation_gradient(T *dx, const T *dy, const T *__restrict__ x, int64_t count)
{
    visit_elements<W<T>>(count, [&](auto vectors, auto wide, int64_t at) {
        constexpr int n = decltype(vectors)::value, w = decltype(wide)::value;
        constexpr int64_t step = element_step<W<T>>;
        float g[n][w], v[n][w];
#pragma unroll
        for (int i = 0; i < n; i++) {
            load(g[i], dy + at + i * step);
            load(v[i], x + at + i * step);
        }
#pragma unroll
        for (int i = 0; i < n; i++) {
#pragma unroll
            for (int c = 0; c < w; c++) g[i][c] *= activate_slope<act>(v[i][c]);
            store(dx + at + i * step, g[i]);
        }
    });
}

/* y = a + b, each of its own type; y may be either. */
template <class T, class A, class B>
__global__ void __launch_bounds__(element_threads, element_residency)
    add_elements(T *y, const A *a, const B *b, int64_t count)
{
    visit_elements<W<T>>(count, [&](auto vectors, auto wide, int64_t at) {
        constexpr int n = decltype(vectors)::value, w = decltype(wide)::value;
        constexpr int64_t step = element_step<W<T>>;
        float v[n][w], u[n][w];
#pragma unroll
        for (int i = 0; i < n; i++) {
            load(v[i], a + at + i * step);
            load(u[i], b + at + i * step);
        }
#pragma unroll
        for (int i = 0; i < n; i++) {
#pragma unroll
            for (int c = 0; c < w; c++) v[i][c] += u[i][c];
            store(y + at + i * step, v[i]);
        }
    });
}

/* v[i] of element at + i is kept and scaled, or 0. One Philox block makes four elements' words. */
template <int N>
__device__ __forceinline__ void drop(float (&v)[N], ct_rng_key key, int64_t at, float p,
                                     float scale)
{
    if constexpr (N % 4 == 0) {
#pragma unroll
        for (int i = 0; i < N; i += 4) {
            const ct_philox random = ct_philox_block(key, (uint64_t)(at + i) / 4);
#pragma unroll
            for (int c = 0; c < 4; c++)
                v[i + c] = ct_rng_to_unit(random.word[c]) >= p ? v[i + c] * scale : 0.0f;
        }
    } else {
#pragma unroll
        for (int i = 0; i < N; i++)
            v[i] = ct_rng_uniform(key, (uint64_t)(at + i)) >= p ? v[i] * scale : 0.0f;
    }
}

/* y may be x. step[0] is read here, so that a recorded launch draws new numbers each step. */
template <class T>
__global__ void __launch_bounds__(element_threads, element_residency)
    dropout(T *y, const T *x, const int32_t *__restrict__ step_number, ct_rng_key key, float p,
            int64_t count)
{
    const float scale = 1.0f / (1.0f - p);
    key = ct_rng_at_step(key, step_number[0]);
    visit_elements<W<T>>(count, [&](auto vectors, auto wide, int64_t at) {
        constexpr int n = decltype(vectors)::value, w = decltype(wide)::value;
        constexpr int64_t step = element_step<W<T>>;
        float v[n][w];
#pragma unroll
        for (int i = 0; i < n; i++) load(v[i], x + at + i * step);
#pragma unroll
        for (int i = 0; i < n; i++) {
            drop(v[i], key, at + i * step, p, scale);
            store(y + at + i * step, v[i]);
        }
    });
}

cudaError_t launch_activation(const ct_tensor *y, const ct_tensor *x, ct_activation act,
                              const ctk_launch *launch)
{
    const int64_t count = ct_tensor_count(x);
    return with_type(x->dtype, [&](auto type) {
        using T = decltype(type);
        return with_activation(act, [&](auto a) {
            return ctk::launch(activation<T, decltype(a)::value>, element_grid<W<T>>(count),
                               dim3(element_threads), 0, launch->stream, (T *)y->data,
                               (const T *)x->data, count);
        });
    });
}

} // namespace

extern "C" cudaError_t ctk_activation_fwd(const ct_activation_fwd_args *args,
                                          const ctk_launch *launch)
{
    return launch_activation(&args->y, &args->x, args->act, launch);
}

extern "C" cudaError_t ctk_activation_bwd(const ct_activation_bwd_args *args,
                                          const ctk_launch *launch)
{
    const int64_t count = ct_tensor_count(&args->x);
    return with_type(args->x.dtype, [&](auto type) {
        using T = decltype(type);
        return with_activation(args->act, [&](auto a) {
            return ctk::launch(activation_gradient<T, decltype(a)::value>,
                               element_grid<W<T>>(count), dim3(element_threads), 0, launch->stream,
                               (T *)args->dx.data, (const T *)args->dy.data,
                               (const T *)args->x.data, count);
        });
    });
}

extern "C" cudaError_t ctk_add(const ct_add_args *args, const ctk_launch *launch)
{
    const int64_t count = ct_tensor_count(&args->y);
    return with_type(args->y.dtype, [&](auto type) {
        using T = decltype(type);
        return ctk::launch(add_elements<T, T, T>, element_grid<W<T>>(count), dim3(element_threads),
                           0, launch->stream, (T *)args->y.data, (const T *)args->a.data,
                           (const T *)args->b.data, count);
    });
}

extern "C" cudaError_t ctk_accumulate(const ct_tensor *total, const ct_tensor *x,
                                      const ctk_launch *launch)
{
    const int64_t count = ct_tensor_count(x);
    float *to = ct_f32(total);
    return with_type(x->dtype, [&](auto type) {
        using T = decltype(type);
        return ctk::launch(add_elements<float, float, T>, element_grid<W<float>>(count),
                           dim3(element_threads), 0, launch->stream, to, (const float *)to,
                           (const T *)x->data, count);
    });
}

/* With p = 0 there is nothing to draw, and `step` may be absent. */
extern "C" cudaError_t ctk_dropout(const ct_dropout_args *args, const ctk_launch *launch)
{
    if (!(args->p >= 0 && args->p < 1)) return cudaErrorInvalidValue;
    if (args->p == 0) return launch_activation(&args->y, &args->x, CT_ACT_NONE, launch);
    const int64_t count = ct_tensor_count(&args->y);
    return with_type(args->y.dtype, [&](auto type) {
        using T = decltype(type);
        return ctk::launch(dropout<T>, element_grid<W<T>>(count), dim3(element_threads), 0,
                           launch->stream, (T *)args->y.data, (const T *)args->x.data,
                           (const int32_t *)ct_i32(&args->step), args->key, args->p, count);
    });
}
