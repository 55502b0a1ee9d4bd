#include "base/rng.h"

#include <math.h>

double ct_rng_normal(ct_rng_key key, uint64_t index)
{
    static const double two_pi = 6.283185307179586476925;
    ct_philox block = ct_philox_block(key, index);
    double u = ((double)block.word[0] + 1.0) * 0x1p-32, v = (double)block.word[1] * 0x1p-32;
    return sqrt(-2.0 * log(u)) * cos(two_pi * v);
}

void ct_rng_permute(ct_rng_key key, int32_t *order, int64_t n)
{
    for (int64_t i = 0; i < n; i++) order[i] = (int32_t)i;
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = ct_rng_below(key, (uint64_t)i, (uint32_t)(i + 1));
        int32_t kept = order[i];
        order[i] = order[j];
        order[j] = kept;
    }
}
