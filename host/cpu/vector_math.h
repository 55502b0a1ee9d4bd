/* Elementary functions as straight-line code, so that a loop around them vectorises
 * (`#pragma omp simd`): no tables, no branches, no -ffast-math. */
#ifndef CT_CPU_VECTOR_MATH_H
#define CT_CPU_VECTOR_MATH_H

#include <stdint.h>
#include <string.h>

static inline float ct_bits_to_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t ct_float_to_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* e^x within 1.02 ulp over the whole range, subnormal results and overflow to infinity included;
 * e^-inf = 0, NaN stays NaN. x = n ln 2 + r with |r| <= ln(2)/2 (Cody & Waite's two-part ln 2), a
 * minimax polynomial for e^r, then 2^n in two factors so that neither leaves the normal range. */
static inline float ct_expf(float x)
{
    const float shifter = 0x1.8p23f; /* adding it rounds to an integer in the low mantissa bits */
    x = x < -120.0f ? -120.0f : x;   /* e^-120 is 0 in f32 and e^120 infinity */
    x = x > 120.0f ? 120.0f : x;
    float shifted = x * 0x1.715476p0f + shifter;
    float n = shifted - shifter;
    float r = x - n * 0x1.62e400p-1f;
    r = r - n * 0x1.7f7d1cp-20f;
    float p = 0x1.6a23cep-10f;
    p = p * r + 0x1.123a20p-7f;
    p = p * r + 0x1.5558f2p-5f;
    p = p * r + 0x1.555492p-3f;
    p = p * r + 0x1.fffffcp-2f;
    p = p * r * r + r;
    /* Unsigned arithmetic on the two's complement of n: wraps, never overflows. */
    uint32_t whole = ct_float_to_bits(shifted) - ct_float_to_bits(shifter);
    uint32_t half = (uint32_t)((int32_t)whole >> 1);
    float scale_a = ct_bits_to_float((half + 127u) << 23);
    float scale_b = ct_bits_to_float((whole - half + 127u) << 23);
    return (p * scale_a + scale_a) * scale_b;
}

#endif
