/* Collectives between GPUs by NCCL: host/comm.h on a device of this backend. What nccl.c (making
 * and ending) and nccl_collectives.c (the table's entries) share.
 *
 * Streams. Plain collectives run on the device's stream. Started ones run on a stream of the
 * communicator's own, which forks from the device's at each start and joins it in finish, by
 * events; so they run beside backward, and a recorded step holds them as a branch.
 *
 *   device   ──backward──●──backward──●──backward──────────●──optimizer──
 *                        ╰fork        ╰fork           join╯
 *   own                   ╰──reduce 0──────╰──reduce 1───╯
 *
 * One communicator. NCCL asks for the same order of operations on all ranks, and for two
 * communicators on one GPU whose kernels may run at the same time, for an order between them too:
 * one rank's kernels can occupy the GPU while they wait for another rank's, whose place the other
 * communicator's hold. Here both kinds share one, and every operation follows the one before it by
 * an event: a start waits for all of the device's stream, a plain collective first joins what was
 * started. A training step loses nothing: its plain collectives stand before backward and after the
 * join.
 *
 * Calls never block (`blocking = 0`): one that says ncclInProgress is asked about until it is done,
 * before anything else is queued. Between two questions another thread may abort. The lock is held
 * for the duration of one call of NCCL's. ncclCommAbort frees the communicator, so `gone` is set
 * under the lock first, and nobody calls NCCL after that. It also waits for recorded graphs that
 * hold operations to be destroyed, which only the device's thread can do: so it has a thread of its
 * own, joined by destroy.
 *
 * Stats are kept by the device (kernels/exposed.cu), because a recorded step runs no host code, and
 * copied into ct_comm, which is pinned memory, behind each wait. */
#ifndef CT_CUDA_NCCL_H
#define CT_CUDA_NCCL_H

#include <nccl.h>
#include <pthread.h>

#include "comm.h"
#include "cuda/internal.h"

/* ct_comm_gather_host goes through device memory in pieces of so much a rank. */
#define CT_NCCL_PIECE_BYTES ((size_t)64 << 10)

typedef struct ct_nccl_clock {
    uint64_t begin; /* of the wait under way */
    ct_comm_stats stats;
} ct_nccl_clock;

typedef struct ct_nccl {
    ct_comm base; /* base.stats is written by the device */
    ct_cuda_device *cuda;
    ncclComm_t comm;
    cudaStream_t stream; /* of started collectives */
    cudaEvent_t forked, joined;
    bool started;           /* something runs on `stream` that the device's has not waited for */
    uint64_t started_bytes; /* of reductions among that */
    ct_nccl_clock *clock;   /* device */
    uint8_t *scratch;       /* device (size, CT_NCCL_PIECE_BYTES) */
    pthread_mutex_t lock;   /* of comm and gone */
    bool gone;              /* comm is being released */
    bool aborting;          /* `aborter` is to be joined */
    pthread_t aborter;
} ct_nccl;

extern const ct_comm_table ct_nccl_table;

/* For CT_NCCL. Takes the lock; fails when comm is gone. */
CT_NODISCARD ct_status ct_nccl_lock(ct_nccl *nccl);
/* Waits until the call that returned `result` is done, and gives the lock back. */
ncclResult_t ct_nccl_settle(ct_nccl *nccl, ncclResult_t result);
/* Sets the message and returns CT_ERR_DEVICE. `nccl` may be NULL. */
CT_NODISCARD ct_status ct_nccl_failed(const ct_nccl *nccl, const char *operation, const char *call,
                                      ncclResult_t error, const char *file, int line);

#define CT_NCCL(nccl, operation, call)                                                             \
    do {                                                                                           \
        CT_TRY(ct_nccl_lock(nccl));                                                                \
        const ncclResult_t ct_error_ = ct_nccl_settle(nccl, (call));                               \
        if (ct_error_ != ncclSuccess)                                                              \
            return ct_nccl_failed(nccl, operation, #call, ct_error_, __FILE__, __LINE__);          \
    } while (0)

/* The table's `abort` and `destroy`. */
void ct_nccl_abort(ct_comm *comm);
void ct_nccl_destroy(ct_comm *comm);

#endif
