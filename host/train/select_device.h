/* The device a run computes on. */
#ifndef CT_TRAIN_SELECT_DEVICE_H
#define CT_TRAIN_SELECT_DEVICE_H

#include "config/config.h"
#include "op.h"

/* What this process was told beyond the configuration. */
typedef struct ct_device_wish {
    bool gpu;    /* a GPU it must be */
    int ordinal; /* which one, among those this process sees: with `gpu`, or where auto finds any */
    int sharing; /* ranks on this machine, which share its processors; at least 1 */
} ct_device_wish;

/* Opens config->device: `auto` is a GPU that this process sees, or the processor where there is
 * none. precision `auto` is bf16 on GPUs that have it natively, f32 elsewhere. wish NULL: nothing
 * was asked for. *threads = config->threads, or this process's share of the processors: threads
 * that compute (cpu) and that prepare batches. `config` must outlive the device. CT_ERR_UNSUPPORTED
 * when this build or machine cannot do what is asked. */
CT_NODISCARD ct_status ct_device_select(const ct_config *config, const ct_device_wish *wish,
                                        ct_device **out, int *threads);

/* Only whether there is such a GPU. */
CT_NODISCARD ct_status ct_device_check(const ct_config *config, const ct_device_wish *wish);

#endif
