/* The device a run computes on. */
#ifndef CT_TRAIN_SELECT_DEVICE_H
#define CT_TRAIN_SELECT_DEVICE_H

#include "config/config.h"
#include "op.h"

/* Opens config->device with config->threads compute threads (0: all). gpus: how many the user asked
 * for; 0: none named. *threads = compute threads in use. CT_ERR_UNSUPPORTED when this build or
 * machine cannot do what is asked. */
CT_NODISCARD ct_status ct_device_select(const ct_config *config, int gpus, ct_device **out,
                                        int *threads);

#endif
