/* Ranks on processors: MPI as the communicator of CPU devices. A build without MPI links absent.c.
 *
 * Every collective is MPI's non-blocking one, waited for by polling, so that ct_comm_abort ends a
 * wait that would never end. Polling gives the processor away after a moment: ranks often share
 * one. After an abort what was started is abandoned, and MPI is not finalised. */
#ifndef CT_MPI_MPI_COMM_H
#define CT_MPI_MPI_COMM_H

#include "comm.h"
#include "world/world.h"

/* *why (optional) = the reason when not. */
bool ct_mpi_available(const char **why);

/* Initialises MPI and says which rank this is. Unless world->master is known already, rank 0 gives
 * all an address that they reach it at, a port that is free there, and a token. */
CT_NODISCARD ct_status ct_mpi_open(ct_world *world);

/* After ct_mpi_open; one a process. */
CT_NODISCARD ct_status ct_mpi_comm_create(ct_comm **out);

/* Finalises MPI, which waits for all ranks; after a failure it does not. */
void ct_mpi_close(bool failed);

#endif
