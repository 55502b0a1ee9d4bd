/* CUDA's numerical device functions for the host's compiler. Approximate ones (__expf, rsqrtf) are
 * computed exactly rounded or nearly so: a GPU's few last bits of error are the tests' limits'
 * business. */
#ifndef CT_TESTS_SIMT_DEVICE_MATH_H
#define CT_TESTS_SIMT_DEVICE_MATH_H

#include <math.h>

#include <cstdint>
#include <type_traits>

namespace simt
{

template <class To, class From> constexpr To bits_as(From x)
{
    static_assert(sizeof(To) == sizeof(From), "same size");
    return __builtin_bit_cast(To, x);
}

/* Both promoted as in an expression, which is what CUDA's overloads amount to. */
template <class A, class B> constexpr std::common_type_t<A, B> smaller(A a, B b)
{
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_same<T, float>::value) return __builtin_fminf((T)a, (T)b);
    else if constexpr (std::is_same<T, double>::value) return __builtin_fmin((T)a, (T)b);
    else return (T)b < (T)a ? (T)b : (T)a;
}
template <class A, class B> constexpr std::common_type_t<A, B> larger(A a, B b)
{
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_same<T, float>::value) return __builtin_fmaxf((T)a, (T)b);
    else if constexpr (std::is_same<T, double>::value) return __builtin_fmax((T)a, (T)b);
    else return (T)a < (T)b ? (T)b : (T)a;
}

/* Shifts beyond the width give 0, as the funnel shifter's clamp does. */
inline uint32_t funnel_left(uint32_t low, uint32_t high, uint32_t shift)
{
    return (uint32_t)(((uint64_t)high << 32 | low) << shift >> 32);
}
inline uint32_t funnel_right(uint32_t low, uint32_t high, uint32_t shift)
{
    return (uint32_t)(((uint64_t)high << 32 | low) >> shift);
}
inline uint32_t select_bytes(uint32_t x, uint32_t y, uint32_t selector)
{
    const uint64_t bytes = (uint64_t)y << 32 | x;
    uint32_t result = 0;
    for (int i = 0; i < 4; i++) {
        const uint32_t pick = selector >> (4 * i) & 0xf;
        uint32_t byte = (uint32_t)(bytes >> (8 * (pick & 7))) & 0xff;
        if (pick & 8) byte = byte & 0x80 ? 0xff : 0;
        result |= byte << (8 * i);
    }
    return result;
}
inline uint32_t reverse_bits(uint32_t x)
{
    x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
    x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
    x = (x >> 4 & 0x0f0f0f0fu) | (x & 0x0f0f0f0fu) << 4;
    return __builtin_bswap32(x);
}

/* Out of range clamps and NaN gives 0, as cvt does. */
template <class I, class F> inline I to_integer(F x)
{
    if (isnan(x)) return 0;
    const F low = (F)(sizeof(I) == 4 ? (std::is_signed<I>::value ? -0x1p31 : 0.0)
                                     : (std::is_signed<I>::value ? -0x1p63 : 0.0));
    const F high = (F)(sizeof(I) == 4 ? (std::is_signed<I>::value ? 0x1p31 : 0x1p32)
                                      : (std::is_signed<I>::value ? 0x1p63 : 0x1p64));
    if (x <= low) return (I)low;
    if (x >= high)
        return std::is_signed<I>::value ? (I)(~(std::make_unsigned_t<I>)0 >> 1) : (I) ~(I)0;
    return (I)x;
}

} // namespace simt

template <class A, class B,
          class = std::enable_if_t<std::is_arithmetic<A>::value && std::is_arithmetic<B>::value>>
constexpr std::common_type_t<A, B> min(A a, B b)
{
    return simt::smaller(a, b);
}
template <class A, class B,
          class = std::enable_if_t<std::is_arithmetic<A>::value && std::is_arithmetic<B>::value>>
constexpr std::common_type_t<A, B> max(A a, B b)
{
    return simt::larger(a, b);
}

inline float __int_as_float(int x)
{
    return simt::bits_as<float>(x);
}
inline float __uint_as_float(unsigned x)
{
    return simt::bits_as<float>(x);
}
inline int __float_as_int(float x)
{
    return simt::bits_as<int>(x);
}
inline unsigned __float_as_uint(float x)
{
    return simt::bits_as<unsigned>(x);
}
inline double __longlong_as_double(long long x)
{
    return simt::bits_as<double>(x);
}
inline long long __double_as_longlong(double x)
{
    return simt::bits_as<long long>(x);
}

inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
inline int __popcll(unsigned long long x)
{
    return __builtin_popcountll(x);
}
inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
inline int __ffsll(long long x)
{
    return __builtin_ffsll(x);
}
inline int __clz(int x)
{
    return x ? __builtin_clz((unsigned)x) : 32;
}
inline int __clzll(long long x)
{
    return x ? __builtin_clzll((unsigned long long)x) : 64;
}
inline unsigned __brev(unsigned x)
{
    return simt::reverse_bits(x);
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned s)
{
    return simt::select_bytes(x, y, s);
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift)
{
    return simt::funnel_left(low, high, shift & 31);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift)
{
    return simt::funnel_right(low, high, shift & 31);
}
inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((uint64_t)a * b >> 32);
}
inline int __mulhi(int a, int b)
{
    return (int)((int64_t)a * b >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}

inline float rsqrtf(float x)
{
    return (float)(1.0 / sqrt((double)x));
}
inline double rsqrt(double x)
{
    return 1.0 / sqrt(x);
}
inline float __frsqrt_rn(float x)
{
    return rsqrtf(x);
}
inline float __frcp_rn(float x)
{
    return 1.0f / x;
}
inline float __fsqrt_rn(float x)
{
    return sqrtf(x);
}
inline float __fadd_rn(float a, float b)
{
    return a + b;
}
inline float __fsub_rn(float a, float b)
{
    return a - b;
}
inline float __fmul_rn(float a, float b)
{
    return a * b;
}
inline float __fdiv_rn(float a, float b)
{
    return a / b;
}
inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}
inline double __fma_rn(double a, double b, double c)
{
    return fma(a, b, c);
}
inline double __dadd_rn(double a, double b)
{
    return a + b;
}
inline double __dmul_rn(double a, double b)
{
    return a * b;
}
inline double __ddiv_rn(double a, double b)
{
    return a / b;
}
inline float __saturatef(float x)
{
    return x >= 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f;
}
inline float sinpif(float x)
{
    return (float)sin(3.14159265358979323846 * remainder(x, 2.0));
}
inline float cospif(float x)
{
    return (float)cos(3.14159265358979323846 * remainder(x, 2.0));
}
inline float normcdff(float x)
{
    return (float)(0.5 * erfc(-(double)x * 0.70710678118654752440));
}
inline void sincospif(float x, float *sine, float *cosine)
{
    *sine = sinpif(x);
    *cosine = cospif(x);
}

inline int __float2int_rn(float x)
{
    return simt::to_integer<int>(rintf(x));
}
inline int __float2int_rz(float x)
{
    return simt::to_integer<int>(truncf(x));
}
inline int __float2int_rd(float x)
{
    return simt::to_integer<int>(floorf(x));
}
inline int __float2int_ru(float x)
{
    return simt::to_integer<int>(ceilf(x));
}
inline unsigned __float2uint_rn(float x)
{
    return simt::to_integer<unsigned>(rintf(x));
}
inline unsigned __float2uint_rz(float x)
{
    return simt::to_integer<unsigned>(truncf(x));
}
inline long long __float2ll_rn(float x)
{
    return simt::to_integer<long long>(rintf(x));
}
inline long long __double2ll_rn(double x)
{
    return simt::to_integer<long long>(rint(x));
}
inline float __int2float_rn(int x)
{
    return (float)x;
}
inline float __uint2float_rn(unsigned x)
{
    return (float)x;
}
inline float __ll2float_rn(long long x)
{
    return (float)x;
}
inline float __double2float_rn(double x)
{
    return (float)x;
}

/* The C library declares functions of these names for itself, so they are macros here. */
#define __expf(x)          expf(x)
#define __exp10f(x)        powf(10.0f, (x))
#define __logf(x)          logf(x)
#define __log2f(x)         log2f(x)
#define __log10f(x)        log10f(x)
#define __powf(x, y)       powf((x), (y))
#define __sinf(x)          sinf(x)
#define __cosf(x)          cosf(x)
#define __tanf(x)          tanf(x)
#define __tanhf(x)         tanhf(x)
#define __sincosf(x, s, c) sincosf((x), (s), (c))
#define __fdividef(x, y)   ((float)(x) / (float)(y))

#endif
