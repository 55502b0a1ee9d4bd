/* What every communicator (host/comm.h) must do, checked on this rank against a plain computation:
 * all ranks know what each of them sends. Serves MPI on processors and NCCL on the SIMT device. */
#ifndef CT_TESTS_COMM_CHECKS_H
#define CT_TESTS_COMM_CHECKS_H

#include "op.h"

/* All ranks call it. device->comm is the communicator. Prints what is wrong and ends the process
 * with status 1. */
void check_comm(ct_device *device);

#endif
