/* AdamW's moments where each rank has those of its own parts only (distributed.zero): all of them,
 * by way of the gradients' memory, which is free between an update and the next backward. */
#ifndef CT_MODEL_MOMENTS_H
#define CT_MODEL_MOMENTS_H

#include "model/params.h"

/* Every rank's gradients become the first moments (which 0) or the second (1) of all parameters.
 * All ranks call it. */
CT_NODISCARD ct_status ct_moments_gather(const ct_params *params, ct_device *device, int which);

/* This rank's moments become what its gradients hold. */
CT_NODISCARD ct_status ct_moments_take(const ct_params *params, ct_device *device, int which);

#endif
