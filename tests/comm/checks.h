/* What every communicator (host/comm.h) must do, checked on this rank against a plain computation:
 * all ranks know what each of them sends. Serves MPI on processors and NCCL on the SIMT device. */
#ifndef CT_TESTS_COMM_CHECKS_H
#define CT_TESTS_COMM_CHECKS_H

#include "op.h"

/* All ranks call these alike. device->comm is the communicator. They print what is wrong and end
 * the process with status 1. */

/* Every entry, in every form, but abort. */
void check_comm(ct_device *device);

/* all_reduce of `count` numbers (f32, bf16 or i32): the sum, and that all ranks have the same bits,
 * also where the order of additions matters. */
void check_comm_sum(ct_device *device, ct_dtype dtype, int64_t count);

/* Tensors without elements. */
void check_comm_empty(ct_device *device);

#endif
