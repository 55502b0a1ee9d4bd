/* What the ranks of a job say to each other about tensors: collectives on device memory, beside the
 * operations of op.h. NCCL carries them between GPUs (cuda/nccl.c), MPI between processors
 * (host/mpi); a job of one rank has none, and `ct_comm *` is NULL there.
 *
 * Conventions
 * - A rank is a process with one device. All ranks call the same functions in the same order with
 *   the same shapes; `ct_comm.rank` tells them apart.
 * - Calls are ordered like operations of the communicator's device: they read what was written
 *   before and are done before what follows, without the host waiting. The two that `_start` are
 * the exception: they read what was written before, but run beside what follows up to
 *   ct_comm_finish; until then nobody may touch their tensors.
 * - Data types: f32, bf16 (sums formed in f32 or better where the library does), i32 for gathers.
 * - Tensors are device memory, contiguous; counts are elements, equal on all ranks.
 * - Everything but ct_comm_gather_host may be recorded by ct_device_replay, which all ranks then do
 *   alike: with the same keys in the same order.
 * - A rank that cannot go on says so through the job (world/job.h); that calls `abort`, and then
 *   whatever waits in a collective returns CT_ERR_DEVICE. */
#ifndef CT_COMM_H
#define CT_COMM_H

#include "base/status.h"
#include "tensor.h"

typedef struct ct_comm ct_comm;

typedef struct ct_comm_table {
    const char *name; /* "mpi", "nccl" */
    ct_status (*all_gather)(ct_comm *comm, const ct_tensor *to, const ct_tensor *from);
    ct_status (*all_to_all)(ct_comm *comm, const ct_tensor *to, const ct_tensor *from);
    ct_status (*all_reduce)(ct_comm *comm, const ct_tensor *x);
    ct_status (*all_reduce_mean)(ct_comm *comm, const ct_tensor *x);
    ct_status (*all_reduce_start)(ct_comm *comm, const ct_tensor *x);
    ct_status (*reduce_scatter_start)(ct_comm *comm, const ct_tensor *to, const ct_tensor *from);
    ct_status (*finish)(ct_comm *comm);
    ct_status (*gather_host)(ct_comm *comm, void *to, const void *from, size_t bytes);
    void (*abort)(ct_comm *comm);
    void (*destroy)(ct_comm *comm);
} ct_comm_table;

/* Since the communicator was made. On a GPU the exposed time is known when its events have passed:
 * the figures may be a step behind. */
typedef struct ct_comm_stats {
    uint64_t bytes_reduced; /* this rank's bytes that went into all_reduce and reduce_scatter */
    double exposed_seconds; /* time that computing waited for collectives */
} ct_comm_stats;

/* First member of every implementation's own type. One thread calls it; only abort may be called by
 * another one. */
struct ct_comm {
    const ct_comm_table *table;
    int rank, size; /* 0 <= rank < size, size > 1 */
    ct_comm_stats stats;
};

static inline int ct_comm_rank(const ct_comm *comm)
{
    return comm ? comm->rank : 0;
}
static inline int ct_comm_size(const ct_comm *comm)
{
    return comm ? comm->size : 1;
}

/* to (R M, ...) = the ranks' from (M, ...), one after the other. Rank r's part of `to` may be
 * `from` itself. */
CT_NODISCARD static inline ct_status ct_comm_all_gather(ct_comm *comm, const ct_tensor *to,
                                                        const ct_tensor *from)
{
    return comm->table->all_gather(comm, to, from);
}

/* to (R, C): row r is row `rank` of rank r's from (R, C). They do not overlap. */
CT_NODISCARD static inline ct_status ct_comm_all_to_all(ct_comm *comm, const ct_tensor *to,
                                                        const ct_tensor *from)
{
    return comm->table->all_to_all(comm, to, from);
}

/* x = the sum of the ranks' x, the same bits on every rank. */
CT_NODISCARD static inline ct_status ct_comm_all_reduce(ct_comm *comm, const ct_tensor *x)
{
    return comm->table->all_reduce(comm, x);
}
/* x = the mean of the ranks' x, f32. */
CT_NODISCARD static inline ct_status ct_comm_all_reduce_mean(ct_comm *comm, const ct_tensor *x)
{
    return comm->table->all_reduce_mean(comm, x);
}

CT_NODISCARD static inline ct_status ct_comm_all_reduce_start(ct_comm *comm, const ct_tensor *x)
{
    return comm->table->all_reduce_start(comm, x);
}

/* to (C) = part `rank` of the sum of the ranks' from (R C); `to` may be that part of `from`. */
CT_NODISCARD static inline ct_status
ct_comm_reduce_scatter_start(ct_comm *comm, const ct_tensor *to, const ct_tensor *from)
{
    return comm->table->reduce_scatter_start(comm, to, from);
}

/* What was started is done before what follows. */
CT_NODISCARD static inline ct_status ct_comm_finish(ct_comm *comm)
{
    return comm->table->finish(comm);
}

/* to (R, bytes) = the ranks' from (bytes), in host memory. Waits. */
CT_NODISCARD static inline ct_status ct_comm_gather_host(ct_comm *comm, void *to, const void *from,
                                                         size_t bytes)
{
    return comm->table->gather_host(comm, to, from, bytes);
}

/* Makes every collective, under way or to come, fail soon. From any thread, any number of times. */
static inline void ct_comm_abort(ct_comm *comm)
{
    if (comm) comm->table->abort(comm);
}

static inline void ct_comm_destroy(ct_comm *comm)
{
    if (comm) comm->table->destroy(comm);
}

#endif
