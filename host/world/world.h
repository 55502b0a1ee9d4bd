/* Which rank of how many this process is, from the environment that its launcher set.
 *
 * Understood, in this order:
 *   clip-train's own launcher, torchrun, and by hand: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
 *       MASTER_PORT
 *   Open MPI's mpirun:  OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK, _LOCAL_SIZE
 *   MPICH's, Intel MPI's mpiexec: PMI_RANK, PMI_SIZE, MPI_LOCALRANKID, MPI_LOCALNRANKS
 *   Slurm's srun:  SLURM_PROCID, SLURM_STEP_ID, SLURM_STEP_NUM_TASKS or SLURM_NTASKS,
 * SLURM_LOCALID, SLURM_JOB_ID None of them: one rank. RANK decides about the first: WORLD_SIZE and
 * MASTER_ADDR alone are often exported for whatever launcher follows. A shell in a Slurm allocation
 * has SLURM_NTASKS, and a batch script SLURM_PROCID too, but neither a SLURM_STEP_ID of a step that
 * srun started.
 *
 * Where rank 0 listens: MASTER_ADDR and MASTER_PORT, with every launcher. Under torchrun the port
 * is that of its own store, and rank 0 takes the next one. Without them:
 *   under MPI   not told
 *   under srun  the first host of SLURM_STEP_NODELIST, where task 0 is (srun itself may run on a
 *               login node), else SLURM_LAUNCH_NODE_IPADDR; port 20000 + (SLURM_JOB_ID +
 *               97 SLURM_STEP_ID) mod 10000
 * The token: CT_JOB_TOKEN, else TORCHELASTIC_RUN_ID, else SLURM_JOB_ID, cut to fit. */
#ifndef CT_WORLD_WORLD_H
#define CT_WORLD_WORLD_H

#include <stdbool.h>

#include "base/status.h"

#define CT_HOST_BYTES  256
#define CT_TOKEN_BYTES 64
#define CT_RANKS_MAX   4096

typedef struct ct_world {
    int rank, size;             /* size 1: a job of one process */
    int local_rank, local_size; /* among the ranks of this machine; local_size 0: not told */
    bool mpi;                   /* an MPI launcher started it: the address can go over MPI */
    bool launched;              /* by our own launcher, which reports ranks that were killed */
    char master[CT_HOST_BYTES]; /* where rank 0 listens; "": not told */
    int port;                   /* 0: not told */
    char token[CT_TOKEN_BYTES]; /* what all ranks of the job have in common; "": nothing is known */
} ct_world;

/* Reads the environment. CT_ERR_CONFIG names the variable that is missing, malformed or out of
 * range. */
CT_NODISCARD ct_status ct_world_find(ct_world *world);

#endif
