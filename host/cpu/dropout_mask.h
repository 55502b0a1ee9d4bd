/* Dropout masks, 16 Philox blocks at a time so that the rounds vectorise. The numbers are those of
 * ct_rng_uniform, so a mask is the same on every device and in every order. */
#ifndef CT_CPU_DROPOUT_MASK_H
#define CT_CPU_DROPOUT_MASK_H

#include "base/rng.h"

enum { CT_MASK_BLOCKS = 16, CT_MASK_GROUP = 4 * CT_MASK_BLOCKS /* elements made at once */ };

/* factor[i] = 1/(1 - p) where ct_rng_uniform(key, first + i) >= p, else 0, for i in [0, count) and
 * on to the next multiple of CT_MASK_GROUP, for which there must be room. first: a multiple of 4.
 */
static inline void ct_dropout_factors(float *factor, ct_rng_key key, uint64_t first, int64_t count,
                                      float p)
{
    const float scale = 1.0f / (1.0f - p);
    for (int64_t start = 0; start < count; start += CT_MASK_GROUP) {
        uint64_t block = (first + (uint64_t)start) / 4;
        float *out = factor + start;
#pragma omp simd
        for (int lane = 0; lane < CT_MASK_BLOCKS; lane++) {
            ct_philox random = ct_philox_block(key, block + (uint64_t)lane);
            for (int w = 0; w < 4; w++)
                out[4 * lane + w] = ct_rng_to_unit(random.word[w]) >= p ? scale : 0.0f;
        }
    }
}

#endif
