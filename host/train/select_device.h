/* The device a run computes on. */
#ifndef CT_TRAIN_SELECT_DEVICE_H
#define CT_TRAIN_SELECT_DEVICE_H

#include "config/config.h"
#include "op.h"

/* Opens config->device: `auto` is the first GPU that this process sees, or the processor where
 * there is none. precision `auto` is bf16 on GPUs that have it natively, f32 elsewhere. gpus: how
 * many the user asked for; 0: none named, 1: the same as device: cuda. *threads = config->threads,
 * or all processors: threads that compute (cpu) and that prepare batches. `config` must outlive the
 * device. CT_ERR_UNSUPPORTED when this build or machine cannot do what is asked. */
CT_NODISCARD ct_status ct_device_select(const ct_config *config, int gpus, ct_device **out,
                                        int *threads);

#endif
