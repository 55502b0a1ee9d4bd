/* Numbers in memory (f32, bf16, f16) and in arithmetic (always float): conversion, vectors of 16
 * bytes, choice of a kernel's type by a tensor's dtype, and the activations. */
#ifndef CT_KERNELS_NUMERIC_CUH
#define CT_KERNELS_NUMERIC_CUH

#include "device.cuh"
#include "op.h"

namespace ctk
{

__device__ __forceinline__ float to_float(float x)
{
    return x;
}
__device__ __forceinline__ float to_float(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}
__device__ __forceinline__ float to_float(__half x)
{
    return __half2float(x);
}

/* To the nearest, ties to even. */
template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x)
{
    return x;
}
template <> __device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x)
{
    return __float2bfloat16(x);
}
template <> __device__ __forceinline__ __half from_float<__half>(float x)
{
    return __float2half(x);
}

/* N numbers that are moved at once; its address is a multiple of its size. */
template <class T, int N> struct alignas(sizeof(T) * N) vec {
    T v[N];
};

/* How many T are 16 bytes, the widest access. */
template <class T> constexpr int vec_width = 16 / (int)sizeof(T);

template <int N, class T> __device__ __forceinline__ void load(float (&to)[N], const T *from)
{
    const vec<T, N> x = *reinterpret_cast<const vec<T, N> *>(from);
#pragma unroll
    for (int i = 0; i < N; i++) to[i] = to_float(x.v[i]);
}

template <int N, class T> __device__ __forceinline__ void store(T *to, const float (&from)[N])
{
    vec<T, N> x;
#pragma unroll
    for (int i = 0; i < N; i++) x.v[i] = from_float<T>(from[i]);
    *reinterpret_cast<vec<T, N> *>(to) = x;
}

/* Calls f with a value of the C++ type of `dtype`: f(float()), f(__nv_bfloat16()) or f(__half()).
 */
template <class F> cudaError_t with_type(ct_dtype dtype, F f)
{
    switch (dtype) {
    case CT_F32:
        return f(float());
    case CT_BF16:
        return f(__nv_bfloat16());
    case CT_F16:
        return f(__half());
    default:
        return cudaErrorInvalidValue;
    }
}

inline int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* act(x) and act'(x); the formulas are ct_activation's. */
template <ct_activation act> __device__ __forceinline__ float activate(float x)
{
    if constexpr (act == CT_ACT_RELU) return fmaxf(x, 0.0f);
    if constexpr (act == CT_ACT_GELU) return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    if constexpr (act == CT_ACT_GELU_TANH)
        return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    if constexpr (act == CT_ACT_QUICK_GELU) return x / (1.0f + expf(-1.702f * x));
    return x;
}

template <ct_activation act> __device__ __forceinline__ float activate_slope(float x)
{
    if constexpr (act == CT_ACT_RELU) return x > 0.0f ? 1.0f : 0.0f;
    if constexpr (act == CT_ACT_GELU)
        return 0.5f * (1.0f + erff(x * 0.70710678118654752f)) +
               x * 0.39894228040143268f * expf(-0.5f * x * x);
    if constexpr (act == CT_ACT_GELU_TANH) {
        const float t = tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x));
        return 0.5f * (1.0f + t) +
               0.5f * x * (1.0f - t * t) * 0.79788456080286536f * (1.0f + 3.0f * 0.044715f * x * x);
    }
    if constexpr (act == CT_ACT_QUICK_GELU) {
        const float s = 1.0f / (1.0f + expf(-1.702f * x));
        return s + 1.702f * x * s * (1.0f - s);
    }
    return 1.0f;
}

} // namespace ctk

#endif
