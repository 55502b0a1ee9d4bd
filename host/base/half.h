/* bf16 and f16 on the host: stored as their 16 bits, computed with in f32. Rounding is to the
 * nearest, ties to even, as a GPU rounds; what is too large becomes infinite, NaN stays NaN. */
#ifndef CT_BASE_HALF_H
#define CT_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t ct_half_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float ct_half_float(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* bf16 is the upper half of an f32. */
static inline float ct_bf16_to_f32(uint16_t x)
{
    return ct_half_float((uint32_t)x << 16);
}

static inline uint16_t ct_bf16_from_f32(float x)
{
    const uint32_t bits = ct_half_bits(x);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) return (uint16_t)(bits >> 16 | 0x40); /* NaN, quiet */
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/* Stochastic rounding as op.h's cast has it: the low 16 bits of `random` are added, then the low
 * 16 bits dropped. Infinities and NaN stay what they are. */
static inline uint16_t ct_bf16_stochastic(float x, uint32_t random)
{
    const uint32_t bits = ct_half_bits(x);
    if ((bits & 0x7F800000) == 0x7F800000) return ct_bf16_from_f32(x);
    return (uint16_t)((bits + (random & 0xFFFF)) >> 16);
}

/* f16: 1 sign, 5 exponent (bias 15) and 10 mantissa bits. Multiplying by 2^112 moves an exponent
 * biased by 15 to one biased by 127, subnormal numbers included. */
static inline float ct_f16_to_f32(uint16_t x)
{
    const uint32_t sign = (uint32_t)(x & 0x8000) << 16, rest = (uint32_t)(x & 0x7FFF) << 13;
    if ((x & 0x7C00) == 0x7C00) return ct_half_float(sign | 0x7F800000 | rest);
    const float magnitude = ct_half_float(rest) * 0x1p112f;
    return ct_half_float(sign | ct_half_bits(magnitude));
}

static inline uint16_t ct_f16_from_f32(float x)
{
    const uint32_t sign = ct_half_bits(x) >> 16 & 0x8000, magnitude = ct_half_bits(x) & 0x7FFFFFFF;
    uint32_t half;
    if (magnitude > 0x7F800000) { /* NaN, quiet */
        half = 0x7E00 | (magnitude >> 13 & 0x1FF);
    } else if (magnitude >= 0x477FF000) { /* 65520 and more round to infinity */
        half = 0x7C00;
    } else if (magnitude < 0x38800000) { /* below 2^-14: adding 1/2 rounds to a multiple of 2^-24 */
        half = ct_half_bits(ct_half_float(magnitude) + 0.5f) - ct_half_bits(0.5f);
    } else {
        half = (magnitude - 0x38000000 + 0xFFF + (magnitude >> 13 & 1)) >> 13;
    }
    return (uint16_t)(sign | half);
}

#endif
