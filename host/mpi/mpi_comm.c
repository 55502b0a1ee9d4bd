#include "mpi/mpi_comm.h"

#include <limits.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/half.h"
#include "base/memory.h"
#include "mpi/mpi_check.h"

enum {
    MAX_STARTED = 1024, /* sums that run beside computing: buckets of a model */
    PIECE = 1 << 28,    /* numbers a call: MPI counts in int */
    SPINS = 200,        /* polls before the processor is given away */
    YIELDS = 200,       /* and before sleeping */
    SLEEP_NANOSECONDS = 50000
};

/* A sum that was started. MPI leaves an in-place reduce-scatter's result at the front of the array:
 * `bytes` of it go from there to where they belong. */
typedef struct started {
    MPI_Request request;
    void *to;
    const void *front;
    size_t bytes;
} started;

typedef struct mpi_comm {
    ct_comm base;
    MPI_Op sum_bf16;
    atomic_bool aborted;
    started started[MAX_STARTED];
    int started_count;
} mpi_comm;

static mpi_comm *of(ct_comm *comm)
{
    return (mpi_comm *)comm;
}

static ct_status check_alive(const mpi_comm *mpi)
{
    if (!atomic_load(&mpi->aborted)) return CT_OK;
    return ct_fail(CT_ERR_DEVICE, "the job has ended: another rank failed");
}

/* ---- waiting -------------------------------------------------------------------------------- */

static void rest(int *polls)
{
    const struct timespec pause = {.tv_nsec = SLEEP_NANOSECONDS};
    ++*polls;
    if (*polls < SPINS) return;
    if (*polls < SPINS + YIELDS) sched_yield();
    else nanosleep(&pause, NULL);
}

static ct_status await(mpi_comm *mpi, MPI_Request *request)
{
    int polls = 0;
    for (;;) {
        int done;
        CT_TRY(check_alive(mpi));
        CT_MPI(MPI_Test(request, &done, MPI_STATUS_IGNORE));
        if (done) return CT_OK;
        rest(&polls);
    }
}

/* The time is what computing waited. */
static ct_status await_timed(mpi_comm *mpi, MPI_Request *request)
{
    const double begin = ct_clock_seconds();
    const ct_status status = await(mpi, request);
    mpi->base.stats.exposed_seconds += ct_clock_seconds() - begin;
    return status;
}

/* ---- types ---------------------------------------------------------------------------------- */

/* bf16 has no type in MPI: bits travel, and are added by `add_bf16`. */
static MPI_Datatype type_of(const ct_tensor *x)
{
    switch (x->dtype) {
    case CT_F32:
        return MPI_FLOAT;
    case CT_I32:
        return MPI_INT32_T;
    case CT_BF16:
    case CT_F16:
        return MPI_UINT16_T;
    case CT_U8:
        break;
    }
    return MPI_BYTE;
}

static void add_bf16(void *in, void *inout, int *count, MPI_Datatype *type)
{
    const uint16_t *a = in;
    uint16_t *b = inout;
    (void)type;
    for (int i = 0; i < *count; i++)
        b[i] = ct_bf16_from_f32(ct_bf16_to_f32(a[i]) + ct_bf16_to_f32(b[i]));
}

static ct_status sum_of(const mpi_comm *mpi, const ct_tensor *x, MPI_Op *op)
{
    *op = x->dtype == CT_BF16 ? mpi->sum_bf16 : MPI_SUM;
    if (x->dtype == CT_F32 || x->dtype == CT_BF16 || x->dtype == CT_I32) return CT_OK;
    return ct_fail(CT_ERR_UNSUPPORTED, "sums of %s between ranks", ct_dtype_name(x->dtype));
}

/* MPI's counts are int. */
static ct_status count_of(const ct_tensor *x, int64_t parts, int *count)
{
    const int64_t numbers = ct_tensor_count(x) / parts;
    if (numbers > INT_MAX)
        return ct_fail(CT_ERR_UNSUPPORTED, "%lld numbers between ranks at once",
                       (long long)numbers);
    *count = (int)numbers;
    return CT_OK;
}

/* ---- collectives ---------------------------------------------------------------------------- */

static ct_status all_gather(ct_comm *comm, const ct_tensor *to, const ct_tensor *from)
{
    mpi_comm *mpi = of(comm);
    MPI_Request request;
    int count = 0;
    const size_t place = (size_t)comm->rank * ct_tensor_bytes(from);
    const bool in_place = from->data == (char *)to->data + place;
    CT_TRY(check_alive(mpi));
    CT_TRY(count_of(from, 1, &count));
    CT_MPI(MPI_Iallgather(in_place ? MPI_IN_PLACE : from->data, count, type_of(from), to->data,
                          count, type_of(to), MPI_COMM_WORLD, &request));
    return await_timed(mpi, &request);
}

static ct_status all_to_all(ct_comm *comm, const ct_tensor *to, const ct_tensor *from)
{
    mpi_comm *mpi = of(comm);
    MPI_Request request;
    int count = 0;
    CT_TRY(check_alive(mpi));
    CT_TRY(count_of(from, comm->size, &count));
    CT_MPI(MPI_Ialltoall(from->data, count, type_of(from), to->data, count, type_of(to),
                         MPI_COMM_WORLD, &request));
    return await_timed(mpi, &request);
}

/* Numbers begin .. of x, at most PIECE. */
static ct_tensor piece_of(const ct_tensor *x, int64_t begin)
{
    const ct_tensor row = ct_tensor1(x->data, x->dtype, ct_tensor_count(x));
    const int64_t left = row.dim[0] - begin;
    return ct_tensor_rows(&row, begin, left < PIECE ? left : PIECE);
}

static ct_status start_sum(const mpi_comm *mpi, const ct_tensor *piece, MPI_Request *request)
{
    MPI_Op op;
    CT_TRY(sum_of(mpi, piece, &op));
    CT_MPI(MPI_Iallreduce(MPI_IN_PLACE, piece->data, (int)piece->dim[0], type_of(piece), op,
                          MPI_COMM_WORLD, request));
    return CT_OK;
}

static ct_status all_reduce(ct_comm *comm, const ct_tensor *x)
{
    mpi_comm *mpi = of(comm);
    CT_TRY(check_alive(mpi));
    for (int64_t begin = 0; begin < ct_tensor_count(x); begin += PIECE) {
        const ct_tensor piece = piece_of(x, begin);
        MPI_Request request;
        CT_TRY(start_sum(mpi, &piece, &request));
        CT_TRY(await_timed(mpi, &request));
    }
    comm->stats.bytes_reduced += ct_tensor_bytes(x);
    return CT_OK;
}

static ct_status all_reduce_mean(ct_comm *comm, const ct_tensor *x)
{
    if (x->dtype != CT_F32)
        return ct_fail(CT_ERR_UNSUPPORTED, "means of %s between ranks", ct_dtype_name(x->dtype));
    CT_TRY(all_reduce(comm, x));
    for (int64_t i = 0; i < ct_tensor_count(x); i++) ct_f32(x)[i] /= (float)comm->size;
    return CT_OK;
}

static ct_status next_started(mpi_comm *mpi, started **out)
{
    CT_TRY(check_alive(mpi));
    if (mpi->started_count == MAX_STARTED)
        return ct_fail(CT_ERR_UNSUPPORTED,
                       "more than %d sums between ranks at once: use a larger "
                       "distributed.bucket_mib",
                       MAX_STARTED);
    *out = &mpi->started[mpi->started_count];
    **out = (started){.request = MPI_REQUEST_NULL};
    return CT_OK;
}

static ct_status all_reduce_start(ct_comm *comm, const ct_tensor *x)
{
    mpi_comm *mpi = of(comm);
    for (int64_t begin = 0; begin < ct_tensor_count(x); begin += PIECE) {
        const ct_tensor piece = piece_of(x, begin);
        started *s = NULL;
        CT_TRY(next_started(mpi, &s));
        CT_TRY(start_sum(mpi, &piece, &s->request));
        mpi->started_count++;
    }
    comm->stats.bytes_reduced += ct_tensor_bytes(x);
    return CT_OK;
}

static ct_status reduce_scatter_start(ct_comm *comm, const ct_tensor *to, const ct_tensor *from)
{
    mpi_comm *mpi = of(comm);
    started *s = NULL;
    MPI_Op op;
    int count = 0;
    const size_t bytes = ct_tensor_bytes(to);
    const bool in_place = to->data == (char *)from->data + (size_t)comm->rank * bytes;
    CT_TRY(next_started(mpi, &s));
    CT_TRY(sum_of(mpi, from, &op));
    CT_TRY(count_of(to, 1, &count));
    if (in_place)
        *s = (started){
            .request = MPI_REQUEST_NULL, .to = to->data, .front = from->data, .bytes = bytes};
    CT_MPI(MPI_Ireduce_scatter_block(in_place ? MPI_IN_PLACE : from->data,
                                     in_place ? from->data : to->data, count, type_of(from), op,
                                     MPI_COMM_WORLD, &s->request));
    mpi->started_count++;
    comm->stats.bytes_reduced += ct_tensor_bytes(from);
    return CT_OK;
}

static ct_status finish(ct_comm *comm)
{
    mpi_comm *mpi = of(comm);
    for (int i = 0; i < mpi->started_count; i++) {
        const started *s = &mpi->started[i];
        CT_TRY(await_timed(mpi, &mpi->started[i].request));
        if (s->to) memmove(s->to, s->front, s->bytes);
    }
    mpi->started_count = 0;
    return check_alive(mpi);
}

static ct_status gather_host(ct_comm *comm, void *to, const void *from, size_t bytes)
{
    mpi_comm *mpi = of(comm);
    CT_TRY(check_alive(mpi));
    const ct_tensor own = ct_tensor1((void *)(uintptr_t)from, CT_U8, (int64_t)bytes);
    int count = 0;
    MPI_Request request;
    CT_TRY(count_of(&own, 1, &count));
    CT_MPI(MPI_Iallgather(from, count, MPI_BYTE, to, count, MPI_BYTE, MPI_COMM_WORLD, &request));
    return await(mpi, &request);
}

static void abort_all(ct_comm *comm)
{
    atomic_store(&of(comm)->aborted, true);
}

static void destroy(ct_comm *comm)
{
    mpi_comm *mpi = of(comm);
    if (!atomic_load(&mpi->aborted)) (void)MPI_Op_free(&mpi->sum_bf16);
    free(mpi);
}

static ct_status open_comm(mpi_comm *mpi)
{
    CT_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &mpi->base.rank));
    CT_MPI(MPI_Comm_size(MPI_COMM_WORLD, &mpi->base.size));
    CT_MPI(MPI_Op_create(add_bf16, 1, &mpi->sum_bf16));
    return CT_OK;
}

ct_status ct_mpi_comm_create(ct_comm **out)
{
    static const ct_comm_table table = {.name = "mpi",
                                        .all_gather = all_gather,
                                        .all_to_all = all_to_all,
                                        .all_reduce = all_reduce,
                                        .all_reduce_mean = all_reduce_mean,
                                        .all_reduce_start = all_reduce_start,
                                        .reduce_scatter_start = reduce_scatter_start,
                                        .finish = finish,
                                        .gather_host = gather_host,
                                        .abort = abort_all,
                                        .destroy = destroy};
    mpi_comm *mpi;
    CT_TRY(ct_alloc(1, sizeof *mpi, "the communicator", &mpi));
    mpi->base.table = &table;
    const ct_status status = open_comm(mpi);
    if (status == CT_OK) *out = &mpi->base;
    else free(mpi);
    return status;
}
