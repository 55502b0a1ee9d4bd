/* Numbers in memory (f32, bf16, f16) and in arithmetic (always float): conversion, vectors of 16
 * bytes, choice of a kernel's type by a tensor's dtype, and the activations. */
#ifndef CT_KERNELS_NUMERIC_CUH
#define CT_KERNELS_NUMERIC_CUH

#include <type_traits>

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

/* The values of a sigmoid at a and at -a, from e^-|a|: neither overflows nor cancels. */
struct sigmoids {
    float at, opposite;
};

__device__ __forceinline__ sigmoids sigmoids_of(float a)
{
    const float e = expf(-fabsf(a)), larger = 1.0f / (1.0f + e), smaller = e * larger;
    return {a < 0.0f ? smaller : larger, a < 0.0f ? larger : smaller};
}

/* x/2 (1 + tanh(a/2)) = x sigmoid(a) with a = 2 sqrt(2/pi) (x + 0.044715 x^3). */
constexpr float gelu_tanh_factor = 1.5957691216057308f, gelu_tanh_cubic = 0.044715f;

__device__ __forceinline__ float gelu_tanh_argument(float x)
{
    const float b = fminf(fmaxf(x, -12.0f), 12.0f); /* beyond, the sigmoid is 0 or 1 in f32 */
    return gelu_tanh_factor * (b + gelu_tanh_cubic * b * b * b);
}

/* act(x) and act'(x); the formulas are ct_activation's. */
template <ct_activation act> __device__ __forceinline__ float activate(float x)
{
    if constexpr (act == CT_ACT_RELU) return x < 0.0f ? 0.0f : x; /* NaN stays NaN */
    if constexpr (act == CT_ACT_GELU) return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    if constexpr (act == CT_ACT_GELU_TANH) return x * sigmoids_of(gelu_tanh_argument(x)).at;
    if constexpr (act == CT_ACT_QUICK_GELU) return x * sigmoids_of(1.702f * x).at;
    return x;
}

template <ct_activation act> __device__ __forceinline__ float activate_slope(float x)
{
    if constexpr (act == CT_ACT_RELU) return x > 0.0f ? 1.0f : 0.0f;
    if constexpr (act == CT_ACT_GELU)
        return 0.5f * (1.0f + erff(x * 0.70710678118654752f)) +
               x * 0.39894228040143268f * expf(-0.5f * x * x);
    if constexpr (act == CT_ACT_GELU_TANH) {
        const sigmoids s = sigmoids_of(gelu_tanh_argument(x));
        const float slope = gelu_tanh_factor * (1.0f + 3.0f * gelu_tanh_cubic * x * x);
        return fabsf(x) < 12.0f ? s.at + x * slope * s.at * s.opposite : s.at;
    }
    if constexpr (act == CT_ACT_QUICK_GELU) {
        const sigmoids s = sigmoids_of(1.702f * x);
        return s.at + 1.702f * x * s.at * s.opposite;
    }
    return 1.0f;
}

/* Calls f with the activation as an integral_constant. */
template <class F> cudaError_t with_activation(ct_activation act, F f)
{
    switch (act) {
    case CT_ACT_NONE:
        return f(std::integral_constant<ct_activation, CT_ACT_NONE>());
    case CT_ACT_RELU:
        return f(std::integral_constant<ct_activation, CT_ACT_RELU>());
    case CT_ACT_GELU:
        return f(std::integral_constant<ct_activation, CT_ACT_GELU>());
    case CT_ACT_GELU_TANH:
        return f(std::integral_constant<ct_activation, CT_ACT_GELU_TANH>());
    case CT_ACT_QUICK_GELU:
        return f(std::integral_constant<ct_activation, CT_ACT_QUICK_GELU>());
    }
    return cudaErrorInvalidValue;
}

} // namespace ctk

#endif
