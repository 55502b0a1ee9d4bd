/* Adds the ranks' gradients up while backward goes on.
 *
 * The flat block of gradients is cut into buckets (shards.h). The model says which parameters'
 * gradients are complete; as soon as all in a bucket are, its sum is started, beside the rest of
 * backward. Each rank's loss is its own pairs' share of the whole batch's mean, so sums are what is
 * wanted: nothing is divided by the number of ranks.
 *
 * What a rank has at the end: the whole sum, or with the moments of its own parts only
 * (distributed.zero), the sum of its own parts. With distributed.reduce: bf16 a bucket is rounded
 * into a buffer of its own, and back.
 *
 * All ranks run the same model, so buckets become complete in the same order everywhere. */
#ifndef CT_MODEL_REDUCER_H
#define CT_MODEL_REDUCER_H

#include "config/config.h"
#include "model/params.h"

typedef struct ct_reducer ct_reducer;

/* After ct_params_allocate with several ranks. params and device are borrowed. */
CT_NODISCARD ct_status ct_reducer_create(const ct_config *config, const ct_params *params,
                                         ct_device *device, ct_reducer **out);
void ct_reducer_destroy(ct_reducer *reducer);

/* Before the backward that completes gradients. */
void ct_reducer_begin(ct_reducer *reducer);

/* The gradients of the parameters from `first` to `last`, in the order of the registry, are
 * complete; each is reported once a step. Does nothing where exec->reducer is NULL. */
CT_NODISCARD ct_status ct_gradients_done(const ct_exec *exec, const ct_param *first,
                                         const ct_param *last);

/* Sums are there for what follows. CT_ERR_INTERNAL when a parameter was never reported. */
CT_NODISCARD ct_status ct_reducer_finish(ct_reducer *reducer, const ct_exec *exec);

#endif
