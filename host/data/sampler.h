/* Which photo and which of its captions stands in slot `slot` of step `step`: a pure function, so
 * that a resumed run needs only the step, and any number of ranks and workers see the same
 * sequence.
 *
 * Epoch e is a permutation of the photos from (seed, e), cut into whole batches; the remainder
 * (count mod batch) is left out, another remainder each epoch. One random caption a photo an
 * epoch. With fewer photos than a batch, ct_sampler_create fails. */
#ifndef CT_DATA_SAMPLER_H
#define CT_DATA_SAMPLER_H

#include "data/dataset.h"

typedef struct ct_sampler ct_sampler;

typedef struct ct_sample {
    int32_t photo, caption; /* indices into the dataset */
    int64_t epoch;
} ct_sample;

/* photos (count) are copied; the dataset is borrowed and must outlive the sampler. */
CT_NODISCARD ct_status ct_sampler_create(const ct_dataset *dataset, const int32_t *photos,
                                         int32_t count, int32_t batch_size, uint64_t seed,
                                         ct_sampler **out);
void ct_sampler_destroy(ct_sampler *sampler);

int64_t ct_sampler_steps_per_epoch(const ct_sampler *sampler);

/* slot in [0, batch_size). attempt 0 is the slot's own photo; attempt k > 0 is the k-th substitute
 * for a photo that cannot be read: the epoch's other photos, in its order and going round, from a
 * start that differs by slot, so that two slots of a batch do not get the same one (while there
 * are enough of them). When the batch takes all photos, the next ones within the batch. Not
 * thread-safe: keeps the permutation of the epoch last asked for (callers lock). */
ct_sample ct_sampler_get(ct_sampler *sampler, int64_t step, int32_t slot, int32_t attempt);

#endif
