/* Starts the ranks of a job on this machine, and stays until all have ended.
 *
 * GPU ranks are children of this process: the same program with the same arguments, told by RANK,
 * WORLD_SIZE, LOCAL_RANK, MASTER_ADDR (127.0.0.1), MASTER_PORT (free), CT_LAUNCHED=1 and a random
 * CT_JOB_TOKEN who they are. Processor ranks are mpirun's children, and that is this process's.
 *
 * Children have their own process group, so that a terminal's Ctrl-C reaches them once, passed on;
 * the kernel kills them when this process dies (PR_SET_PDEATHSIG). When one fails the others have
 * `grace_seconds` to end by themselves, then SIGTERM, and as long again until SIGKILL. Status 130
 * or 143, stopped by a signal, is no failure: the others may still write a checkpoint. A child that
 * was killed by a signal is reported: "rank 2 was killed by signal 9 (Killed)". SIGINT, SIGTERM,
 * SIGHUP and SIGQUIT are passed on, unless this process was started with them ignored. */
#ifndef CT_WORLD_LAUNCH_H
#define CT_WORLD_LAUNCH_H

#include "base/status.h"

/* Exit status of the first rank that failed (128 + n when signal n killed it; that comes before
 * those who failed because of it), or 0. -1 and a message when the ranks could not be started; none
 * is left then. argv[0] is replaced by this program's path. Call it before any thread is started:
 * the kernel's promise is to the thread that forks. */
int ct_launch_children(int ranks, double grace_seconds, char **argv);

/* Runs `mpirun -n ranks` of this program with argv[1...], without the option that asks for ranks;
 * argv[0] is replaced as above. Open MPI is told to oversubscribe, not to bind, to let others run
 * while waiting and to accept root, unless the environment already says otherwise. SIGINT, SIGTERM
 * and SIGHUP become SIGUSR1 to every rank; a second one ends mpirun. *exit_status = mpirun's, which
 * is that of a rank that failed, if any. CT_ERR_UNSUPPORTED when there is no mpirun. */
CT_NODISCARD ct_status ct_launch_mpi(int ranks, char **argv, int *exit_status);

#endif
