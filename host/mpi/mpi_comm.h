/* Ranks on processors: MPI as the communicator of CPU devices. A build without MPI links absent.c.
 *
 * Every collective is MPI's non-blocking one, waited for by polling, so that ct_comm_abort ends a
 * wait that would never end. Polling gives the processor away after a moment: ranks often share
 * one. After an abort what was started is abandoned, and MPI must not be finalised.
 *
 * Threads: the one that called ct_mpi_open makes all calls (MPI_THREAD_FUNNELED); only
 * ct_comm_abort may come from another. Errors of MPI are CT_ERR_DEVICE, with MPI's own words.
 *
 * Known limit: MPI works on what was started only inside its calls, so that sums go on beside
 * computing as far as other collectives are called meanwhile; the rest happens in ct_comm_finish.
 */
#ifndef CT_MPI_MPI_COMM_H
#define CT_MPI_MPI_COMM_H

#include "comm.h"
#include "world/world.h"

/* Sums that may be under way between two ct_comm_finish: one a bucket of gradients, of which models
 * have tens. One more fails with CT_ERR_UNSUPPORTED. */
#define CT_MPI_MAX_STARTED 1024

/* *why (optional) = the reason when not. */
bool ct_mpi_available(const char **why);

/* Initialises MPI and says which rank this is; once a process, by all ranks. Unless world->master
 * is known already (then to all ranks alike), rank 0 gives all an address that they reach it at, a
 * port that was free there a moment ago, and a token. */
CT_NODISCARD ct_status ct_mpi_open(ct_world *world);

/* After ct_mpi_open; one a process. The caller destroys it before ct_mpi_close. */
CT_NODISCARD ct_status ct_mpi_comm_create(ct_comm **out);

/* Finalises MPI, which waits for all ranks. After a failure it does nothing: the process then ends
 * without it, which mpirun takes for a failure of the job. */
void ct_mpi_close(bool failed);

#endif
