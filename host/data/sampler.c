#include "data/sampler.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"

struct ct_sampler {
    const ct_dataset *dataset;
    uint64_t seed;
    int32_t count, batch_size;
    int64_t epoch;   /* that `order` is of; -1: none yet */
    int32_t *order;  /* (count) the epoch's permutation: positions in `photos` */
    int32_t *photos; /* (count) */
};

ct_status ct_sampler_create(const ct_dataset *dataset, const int32_t *photos, int32_t count,
                            int32_t batch_size, uint64_t seed, ct_sampler **out)
{
    if (count < batch_size)
        return ct_fail(CT_ERR_CONFIG,
                       "train.batch_size: expected at most the number of photos (%d), found %d",
                       count, batch_size);
    assert(batch_size > 0);
    ct_sampler *s;
    CT_TRY(ct_alloc(1, sizeof *s, "the sampler", &s));
    *s = (ct_sampler){dataset, seed, count, batch_size, -1, NULL, NULL};
    ct_status status;
    CT_TRY_GOTO(status, ct_alloc((size_t)count, sizeof *s->order, "the sampler", &s->order), fail);
    CT_TRY_GOTO(status, ct_alloc((size_t)count, sizeof *s->photos, "the sampler", &s->photos),
                fail);
    memcpy(s->photos, photos, (size_t)count * sizeof *photos);
    *out = s;
    return CT_OK;
fail:
    ct_sampler_destroy(s);
    return status;
}

void ct_sampler_destroy(ct_sampler *sampler)
{
    if (!sampler) return;
    free(sampler->order);
    free(sampler->photos);
    free(sampler);
}

int64_t ct_sampler_steps_per_epoch(const ct_sampler *sampler)
{
    return sampler->count / sampler->batch_size;
}

/* Place in the epoch's order. The batch takes [base, base + batch_size); the others, from its end
 * on and going round, are its reserve. Slots start at different places of the reserve, evenly
 * spaced, so that two bad photos of a batch do not get the same substitute. */
static int32_t place_in_order(const ct_sampler *s, int64_t base, int32_t slot, int32_t attempt)
{
    int64_t reserve = s->count - s->batch_size;
    if (attempt == 0) return (int32_t)(base + slot);
    if (reserve == 0) return (int32_t)((base + slot + attempt) % s->count);
    int64_t ahead = (slot * reserve / s->batch_size + attempt - 1) % reserve;
    return (int32_t)((base + s->batch_size + ahead) % s->count);
}

ct_sample ct_sampler_get(ct_sampler *s, int64_t step, int32_t slot, int32_t attempt)
{
    assert(step >= 0 && slot >= 0 && slot < s->batch_size && attempt >= 0);
    int64_t steps = ct_sampler_steps_per_epoch(s), epoch = step / steps;
    if (epoch != s->epoch) {
        ct_rng_permute(ct_rng_make(s->seed, CT_RNG_SHUFFLE, 0, (uint64_t)epoch), s->order,
                       s->count);
        s->epoch = epoch;
    }
    int64_t base = step % steps * s->batch_size;
    int32_t photo = s->photos[s->order[place_in_order(s, base, slot, attempt)]];
    const ct_photo *p = &s->dataset->photos[photo];
    ct_rng_key key = ct_rng_make(s->seed, CT_RNG_CAPTION, 0, (uint64_t)photo);
    uint32_t which = ct_rng_below(key, (uint64_t)epoch, (uint32_t)p->caption_count);
    return (ct_sample){photo, p->first_caption + (int32_t)which, epoch};
}
