/* Which rank of how many this process is, from the environment that its launcher set.
 *
 * Understood, in this order:
 *   clip-train's own launcher, torchrun, and by hand: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
 *       MASTER_PORT
 *   Open MPI's mpirun:  OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK, _LOCAL_SIZE
 *   MPICH's, Intel MPI's mpiexec: PMI_RANK, PMI_SIZE, MPI_LOCALRANKID, MPI_LOCALNRANKS
 *   Slurm's srun:  SLURM_PROCID, SLURM_NTASKS (of a step of several tasks), SLURM_LOCALID,
 *       SLURM_LAUNCH_NODE_IPADDR, SLURM_JOB_ID
 * None of them: one rank. */
#ifndef CT_WORLD_WORLD_H
#define CT_WORLD_WORLD_H

#include <stdbool.h>

#include "base/status.h"

#define CT_HOST_BYTES 256

typedef struct ct_world {
    int rank, size;             /* size 1: a job of one process */
    int local_rank, local_size; /* among the ranks of this machine; local_size 0: not told */
    bool mpi;                   /* an MPI launcher started it: the address can go over MPI */
    bool launched;              /* by our own launcher, which reports ranks that were killed */
    char master[CT_HOST_BYTES]; /* where rank 0 listens; "": not told */
    int port;                   /* 0: not told */
    char token[64];             /* what all ranks of the job have in common; "": nothing is known */
} ct_world;

/* CT_ERR_CONFIG names the variable that is missing, malformed or out of range. */
CT_NODISCARD ct_status ct_world_find(ct_world *world);

#endif
