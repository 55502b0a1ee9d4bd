/* Timing of a convolution's plans against each other. */
#ifndef CT_CUDA_CONV_TUNE_H
#define CT_CUDA_CONV_TUNE_H

#include "cuda/conv_plan.h"
#include "cuda/internal.h"

/* *best = the index of the fastest of plans[0 .. count), run on the device's stream with operands
 * of their own, which live for the call. Waits for the stream; not while it is being captured. */
CT_NODISCARD ct_status ct_cuda_conv_tune(ct_cuda_device *cuda, const ct_cudnn_target *target,
                                         const ct_cuda_conv_problem *problem,
                                         const ct_cuda_conv_plan *plans, int count, int *best);

#endif
