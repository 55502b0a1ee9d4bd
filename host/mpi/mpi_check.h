/* Checked calls of MPI, shared by the files of this folder. */
#ifndef CT_MPI_MPI_CHECK_H
#define CT_MPI_MPI_CHECK_H

#include <mpi.h>

#include "base/status.h"

/* Sets the message with MPI's own words and returns CT_ERR_DEVICE. */
CT_NODISCARD ct_status ct_mpi_failed(const char *call, int error);

#define CT_MPI(call)                                                                               \
    do {                                                                                           \
        const int ct_error_ = (call);                                                              \
        if (ct_error_ != MPI_SUCCESS) return ct_mpi_failed(#call, ct_error_);                      \
    } while (0)

#endif
