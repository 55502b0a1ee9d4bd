/* How processes that were started together become the ranks of one job. */
#ifndef CT_PROGRAMS_RANKS_H
#define CT_PROGRAMS_RANKS_H

#include "config/config.h"
#include "op.h"
#include "world/job.h"

typedef struct ct_ranks {
    ct_world world;
    ct_job *job;   /* NULL: one rank */
    ct_comm *comm; /* NULL until connected */
    bool mpi;      /* MPI was initialised */
} ct_ranks;

/* ranks->world is known. Meets the others and checks that all were given the same: the
 * configuration, but for what may differ between machines (threads, workers, caches), and `more`, a
 * number for the rest of the command line. */
CT_NODISCARD ct_status ct_ranks_meet(ct_ranks *ranks, const ct_config *config, uint64_t more);

/* Gives the device its communicator: NCCL to a GPU, MPI to the processor. */
CT_NODISCARD ct_status ct_ranks_connect(ct_ranks *ranks, const ct_config *config,
                                        ct_device *device);

/* Before the device is destroyed. status: how the run ended; a failure is told to all. Returns it,
 * with the message of whoever failed first. */
CT_NODISCARD ct_status ct_ranks_end(ct_ranks *ranks, ct_status status);

/* After the device is destroyed. */
void ct_ranks_leave(ct_ranks *ranks, ct_status status);

#endif
