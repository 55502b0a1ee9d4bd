/* Convolutions through cuDNN: the handle, and the plans made so far.
 *
 * Plans are chosen when a convolution is announced, or at its first run, and kept by problem; with
 * options.autotune they are timed, and the choice is remembered in options.plan_cache. */
#ifndef CT_CUDA_CONVOLUTIONS_H
#define CT_CUDA_CONVOLUTIONS_H

#include "cuda/internal.h"

typedef struct ct_cuda_convolutions ct_cuda_convolutions;

/* The operations create it on first use: a model without images needs no cuDNN. */
CT_NODISCARD ct_status ct_cuda_convolutions_create(ct_cuda_device *cuda,
                                                   ct_cuda_convolutions **out);

/* After the device's work has ended. */
void ct_cuda_convolutions_destroy(ct_cuda_convolutions *convolutions);

#endif
