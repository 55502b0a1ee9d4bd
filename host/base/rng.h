/* Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random
 * numbers: as easy as 1, 2, 3", SC 2011). A number is a pure function of (seed, stream, index):
 * no state to save for an exact resume, any order, any number of threads, the same on every
 * device. */
#ifndef CT_BASE_RNG_H
#define CT_BASE_RNG_H

#include <stdint.h>

/* Kernels draw the very same numbers: nvcc compiles these functions for both sides. */
#ifdef __CUDACC__
#define CT_HOST_DEVICE __host__ __device__
#else
#define CT_HOST_DEVICE
#endif

/* What a stream of numbers is for: streams of different purpose never meet. */
typedef enum ct_rng_purpose {
    CT_RNG_INIT = 1, /* parameter initialisation; index a parameter's ordinal */
    CT_RNG_SPLIT,    /* train/validation/test assignment */
    CT_RNG_SHUFFLE,  /* order of an epoch */
    CT_RNG_CAPTION,  /* which caption of a photo */
    CT_RNG_AUGMENT,  /* crop and flip */
    CT_RNG_DROPOUT,  /* dropout masks */
    CT_RNG_TEST,     /* tests and benchmarks */
    CT_RNG_ROUNDING  /* stochastic rounding of weights */
} ct_rng_purpose;

/* seed: the user's; stream: distinguishes independent sequences under one seed. */
typedef struct ct_rng_key {
    uint64_t seed;
    uint64_t stream;
} ct_rng_key;

typedef struct ct_philox {
    uint32_t word[4];
} ct_philox;

/* The four 32-bit words of block `index`. */
CT_HOST_DEVICE static inline ct_philox ct_philox_block(ct_rng_key key, uint64_t index)
{
    uint32_t c0 = (uint32_t)index, c1 = (uint32_t)(index >> 32);
    uint32_t c2 = (uint32_t)key.stream, c3 = (uint32_t)(key.stream >> 32);
    uint32_t k0 = (uint32_t)key.seed, k1 = (uint32_t)(key.seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (ct_philox){{c0, c1, c2, c3}};
}

/* Word `index` of the key's sequence: element i is word i % 4 of block i / 4. */
CT_HOST_DEVICE static inline uint32_t ct_rng_u32(ct_rng_key key, uint64_t index)
{
    return ct_philox_block(key, index / 4).word[index % 4];
}

/* Uniform in [0, 1) with 24 bits: exact in float, so the same on every device. */
CT_HOST_DEVICE static inline float ct_rng_to_unit(uint32_t word)
{
    return (float)(word >> 8) * 0x1p-24f;
}

CT_HOST_DEVICE static inline float ct_rng_uniform(ct_rng_key key, uint64_t index)
{
    return ct_rng_to_unit(ct_rng_u32(key, index));
}

/* A stream for (purpose, a, b): `a` up to 2^24, `b` up to 2^32 (e.g. epoch and photo). */
static inline ct_rng_key ct_rng_make(uint64_t seed, ct_rng_purpose purpose, uint64_t a, uint64_t b)
{
    return (ct_rng_key){seed, (uint64_t)purpose << 56 | (a & 0xFFFFFF) << 32 | (b & 0xFFFFFFFF)};
}

/* The key of optimiser step `step` (taken modulo 2^24), for a key made with a = 0. */
CT_HOST_DEVICE static inline ct_rng_key ct_rng_at_step(ct_rng_key key, int32_t step)
{
    key.stream |= (uint64_t)(step & 0xFFFFFF) << 32;
    return key;
}

/* Standard normal deviate number `index` (Box-Muller, cosine branch). */
double ct_rng_normal(ct_rng_key key, uint64_t index);

/* Uniform integer in [0, bound), bound >= 1, without bias worth the name (64-bit multiply). */
static inline uint32_t ct_rng_below(ct_rng_key key, uint64_t index, uint32_t bound)
{
    return (uint32_t)((uint64_t)ct_rng_u32(key, index) * bound >> 32);
}

/* order[0..n-1] = a random permutation of 0..n-1 (Fisher-Yates). */
void ct_rng_permute(ct_rng_key key, int32_t *order, int64_t n);

#endif
