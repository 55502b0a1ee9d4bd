/* Starts the ranks of a job on this machine, and stays until all have ended.
 *
 * GPU ranks are children of this process: the same program with the same arguments, told by RANK,
 * WORLD_SIZE, LOCAL_RANK, MASTER_ADDR (127.0.0.1), MASTER_PORT (free), CT_LAUNCHED=1 and a random
 * CT_JOB_TOKEN who they are. Processor ranks need an MPI launcher: this process becomes mpirun.
 *
 * Children have their own process group, so that a terminal's Ctrl-C reaches them once, passed on;
 * the kernel kills them when this process dies (PR_SET_PDEATHSIG). When one fails the others have
 * `grace_seconds` to end by themselves, then SIGTERM, then SIGKILL. A child that was killed by a
 * signal is reported: "rank 2 was killed by signal 9 (Killed)". */
#ifndef CT_WORLD_LAUNCH_H
#define CT_WORLD_LAUNCH_H

#include "base/status.h"

/* Exit status of the first rank that failed (128 + n when signal n killed it), or 0. -1 and a
 * message when the ranks could not be started. argv[0] is replaced by /proc/self/exe. */
int ct_launch_children(int ranks, double grace_seconds, char **argv);

/* Becomes `mpirun -n ranks` of this program with `arguments` (argv without the option that asks for
 * ranks). Only returns when that fails: CT_ERR_UNSUPPORTED when there is no mpirun. */
CT_NODISCARD ct_status ct_launch_mpi(int ranks, char **argv);

#endif
