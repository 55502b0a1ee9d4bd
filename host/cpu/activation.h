/* Activation functions and their derivatives as straight-line code for vectorised loops. */
#ifndef CT_CPU_ACTIVATION_H
#define CT_CPU_ACTIVATION_H

#include "cpu/vector_math.h"
#include "op.h"

/* The standard normal density and distribution function at x. */
typedef struct ct_normal {
    float density, distribution;
} ct_normal;

/* The distribution function is wanted rather than erf: GELU(x) = x Phi(x). For z = |x|, Phi(-z) is
 * the density times Mills' ratio, and the ratio is a smooth function of k = (z - 4)/(z + 4), over
 * z + 4 (the substitution of Shepherd & Laframboise, "Chebyshev approximation of
 * (1 + 2x) exp(x^2) erfc x", Math. Comp. 36, 1981). Its polynomial here is the minimax one of
 * relative error 8.2e-9. One exponential gives both results, and negative x keep their relative
 * accuracy: there is no 1 + erf to cancel. Beyond |x| = 12.5 density and tail, below 5e-35, are
 * taken for 0: subnormal numbers would make this and the products that follow far slower. */
static inline ct_normal ct_normal_at(float x)
{
    const float z = x < 0.0f ? -x : x;
    const float bounded = z < 12.5f ? z : 12.5f;
    const float exponential = z < 12.5f ? ct_expf(-0.5f * bounded * bounded) : 0.0f;
    const float reciprocal = 1.0f / (z + 4.0f);
    const float k = (z - 4.0f) * reciprocal;
    float p = -0x1.0fa3fap-13f;
    p = p * k + 0x1.833276p-13f;
    p = p * k + 0x1.9c0da8p-10f;
    p = p * k - 0x1.ccb73ep-9f;
    p = p * k - 0x1.ed4588p-8f;
    p = p * k + 0x1.eed4acp-5f;
    p = p * k - 0x1.7dffe0p-3f;
    p = p * k + 0x1.8c6d9cp-2f;
    p = p * k - 0x1.373e3ap-1f;
    p = p * k + 0x1.82b4bcp-1f;
    const float tail = exponential * p * reciprocal;            /* Phi(-z) */
    return (ct_normal){.density = 0x1.988454p-2f * exponential, /* 1/sqrt(2 pi) */
                       .distribution = x < 0.0f ? tail : 1.0f - tail};
}

static inline float ct_gelu(float x)
{
    return x * ct_normal_at(x).distribution;
}

static inline float ct_gelu_derivative(float x)
{
    ct_normal normal = ct_normal_at(x);
    return normal.distribution + x * normal.density;
}

/* The two values of a sigmoid at a and at -a, from e^-|a|: neither overflows nor cancels. */
typedef struct ct_sigmoids {
    float at, opposite;
} ct_sigmoids;

static inline ct_sigmoids ct_sigmoids_of(float a)
{
    const float e = ct_expf(a < 0.0f ? a : -a);
    const float larger = 1.0f / (1.0f + e), smaller = e * larger;
    return (ct_sigmoids){.at = a < 0.0f ? smaller : larger,
                         .opposite = a < 0.0f ? larger : smaller};
}

/* x/2 (1 + tanh(a/2)) = x sigmoid(a) with a = 2 sqrt(2/pi) (x + 0.044715 x^3). Beyond |x| = 12 the
 * sigmoid is 0 or 1 in f32, so that the cube need not be taken of larger numbers. */
#define CT_GELU_TANH_FACTOR 0x1.988454p+0f /* 2 sqrt(2/pi) */
#define CT_GELU_TANH_CUBIC  0.044715f

static inline float ct_gelu_tanh_bounded(float x)
{
    const float above = x < -12.0f ? -12.0f : x;
    return above > 12.0f ? 12.0f : above;
}

static inline float ct_gelu_tanh(float x)
{
    const float b = ct_gelu_tanh_bounded(x);
    return x * ct_sigmoids_of(CT_GELU_TANH_FACTOR * (b + CT_GELU_TANH_CUBIC * b * b * b)).at;
}

static inline float ct_gelu_tanh_derivative(float x)
{
    const float b = ct_gelu_tanh_bounded(x), square = CT_GELU_TANH_CUBIC * b * b;
    const ct_sigmoids s = ct_sigmoids_of(CT_GELU_TANH_FACTOR * (b + square * b));
    const float slope = CT_GELU_TANH_FACTOR * (1.0f + 3.0f * square);
    return s.at + b * slope * s.at * s.opposite;
}

#define CT_QUICK_GELU_FACTOR 1.702f

static inline float ct_quick_gelu(float x)
{
    return x / (1.0f + ct_expf(-CT_QUICK_GELU_FACTOR * x));
}

/* With a = 1.702 x: sigmoid(a) + a sigmoid(a) sigmoid(-a). */
static inline float ct_quick_gelu_derivative(float x)
{
    const float a = CT_QUICK_GELU_FACTOR * x;
    const ct_sigmoids s = ct_sigmoids_of(a);
    return s.at + a * s.at * s.opposite;
}

/* NaN stays NaN. */
static inline float ct_relu(float x)
{
    return x < 0.0f ? 0.0f : x;
}

/* y[i] = act(x[i]) for one contiguous run of elements; y may be x. */
void ct_cpu_activate(float *y, const float *x, int64_t count, ct_activation act);

/* dx[i] = dy[i] act'(x[i]); dx may be dy. */
void ct_cpu_activate_backward(float *dx, const float *dy, const float *x, int64_t count,
                              ct_activation act);

#endif
