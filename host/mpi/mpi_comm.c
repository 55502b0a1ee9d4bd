#include "mpi/mpi_comm.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/half.h"
#include "base/memory.h"
#include "mpi/mpi_check.h"

/* Numbers that a call moves over all ranks: MPI counts in int, and its implementations multiply
 * counts by ranks in int as well. Tests build this file with a small one. */
#ifndef CT_MPI_PIECE
#define CT_MPI_PIECE (1 << 28)
#endif

enum {
    SPINS = 200,  /* polls before the processor is given away */
    YIELDS = 200, /* and before sleeping */
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
    started started[CT_MPI_MAX_STARTED];
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

static int64_t at_most(int64_t numbers, int64_t limit)
{
    return numbers < limit ? numbers : limit;
}

/* ---- exchanges ------------------------------------------------------------------------------ */

/* `count` numbers that count as `stride` numbers of the array they are in: the next rank's are that
 * far away. */
static ct_status make_strided(MPI_Datatype number, int64_t count, int64_t stride, MPI_Datatype *out)
{
    MPI_Datatype run;
    int number_bytes;
    CT_MPI(MPI_Type_size(number, &number_bytes));
    CT_MPI(MPI_Type_contiguous((int)count, number, &run));
    CT_MPI(MPI_Type_create_resized(run, 0, (MPI_Aint)stride * number_bytes, out));
    CT_MPI(MPI_Type_free(&run));
    CT_MPI(MPI_Type_commit(out));
    return CT_OK;
}

/* MPI_Iallgather or MPI_Ialltoall: they take the same. */
typedef int (*exchange_call)(const void *from, int from_count, MPI_Datatype from_type, void *to,
                             int to_count, MPI_Datatype to_type, MPI_Comm comm,
                             MPI_Request *request);

/* `numbers` of each rank for each place in `to`; those of the next rank follow at once. */
static ct_status exchange(mpi_comm *mpi, exchange_call call, void *to, const void *from,
                          int64_t numbers, MPI_Datatype type)
{
    const int64_t limit = CT_MPI_PIECE / mpi->base.size;
    MPI_Request request;
    CT_TRY(check_alive(mpi));
    if (numbers <= limit) {
        CT_MPI(call(from, (int)numbers, type, to, (int)numbers, type, MPI_COMM_WORLD, &request));
        return await(mpi, &request);
    }
    int bytes;
    CT_MPI(MPI_Type_size(type, &bytes));
    for (int64_t begin = 0; begin < numbers; begin += limit) {
        const size_t skip = (size_t)begin * (size_t)bytes;
        const void *piece = from == MPI_IN_PLACE ? from : (const char *)from + skip;
        MPI_Datatype strided;
        CT_TRY(make_strided(type, at_most(numbers - begin, limit), numbers, &strided));
        CT_MPI(call(piece, 1, strided, (char *)to + skip, 1, strided, MPI_COMM_WORLD, &request));
        CT_MPI(MPI_Type_free(&strided)); /* MPI keeps it as long as it needs it */
        CT_TRY(await(mpi, &request));
    }
    return CT_OK;
}

static ct_status exchange_timed(mpi_comm *mpi, exchange_call call, void *to, const void *from,
                                int64_t numbers, MPI_Datatype type)
{
    const double begin = ct_clock_seconds();
    const ct_status status = exchange(mpi, call, to, from, numbers, type);
    mpi->base.stats.exposed_seconds += ct_clock_seconds() - begin;
    return status;
}

static ct_status all_gather(ct_comm *comm, const ct_tensor *to, const ct_tensor *from)
{
    const size_t place = (size_t)comm->rank * ct_tensor_bytes(from);
    const bool in_place = from->data == (char *)to->data + place;
    return exchange_timed(of(comm), MPI_Iallgather, to->data, in_place ? MPI_IN_PLACE : from->data,
                          ct_tensor_count(from), type_of(from));
}

static ct_status all_to_all(ct_comm *comm, const ct_tensor *to, const ct_tensor *from)
{
    return exchange_timed(of(comm), MPI_Ialltoall, to->data, from->data,
                          ct_tensor_count(from) / comm->size, type_of(from));
}

static ct_status gather_host(ct_comm *comm, void *to, const void *from, size_t bytes)
{
    return exchange(of(comm), MPI_Iallgather, to, from, (int64_t)bytes, MPI_BYTE);
}

/* ---- sums ----------------------------------------------------------------------------------- */

/* Numbers begin .. of x, as many as a call may take. */
static ct_tensor piece_of(const ct_tensor *x, int64_t begin)
{
    const ct_tensor row = ct_tensor1(x->data, x->dtype, ct_tensor_count(x));
    return ct_tensor_rows(&row, begin, at_most(row.dim[0] - begin, CT_MPI_PIECE));
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
    for (int64_t begin = 0; begin < ct_tensor_count(x); begin += CT_MPI_PIECE) {
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
    if (mpi->started_count == CT_MPI_MAX_STARTED)
        return ct_fail(CT_ERR_UNSUPPORTED,
                       "more than %d sums between ranks at once: use a larger "
                       "distributed.bucket_mib",
                       CT_MPI_MAX_STARTED);
    *out = &mpi->started[mpi->started_count];
    **out = (started){.request = MPI_REQUEST_NULL};
    return CT_OK;
}

static ct_status all_reduce_start(ct_comm *comm, const ct_tensor *x)
{
    mpi_comm *mpi = of(comm);
    for (int64_t begin = 0; begin < ct_tensor_count(x); begin += CT_MPI_PIECE) {
        const ct_tensor piece = piece_of(x, begin);
        started *s = NULL;
        CT_TRY(next_started(mpi, &s));
        CT_TRY(start_sum(mpi, &piece, &s->request));
        mpi->started_count++;
    }
    comm->stats.bytes_reduced += ct_tensor_bytes(x);
    return CT_OK;
}

/* One call for all ranks' parts. */
static ct_status start_block(mpi_comm *mpi, const ct_tensor *to, const ct_tensor *from,
                             bool in_place, MPI_Op op)
{
    const int count = (int)ct_tensor_count(to);
    started *s = NULL;
    CT_TRY(next_started(mpi, &s));
    if (in_place) {
        s->to = to->data;
        s->front = from->data;
        s->bytes = ct_tensor_bytes(to);
    }
    CT_MPI(MPI_Ireduce_scatter_block(in_place ? MPI_IN_PLACE : from->data,
                                     in_place ? from->data : to->data, count, type_of(from), op,
                                     MPI_COMM_WORLD, &s->request));
    mpi->started_count++;
    return CT_OK;
}

/* Pieces of rank `root`'s part. */
static ct_status start_part(mpi_comm *mpi, const ct_tensor *to, const ct_tensor *part, int root,
                            bool in_place, MPI_Op op)
{
    const bool own = root == mpi->base.rank;
    for (int64_t begin = 0; begin < ct_tensor_count(part); begin += CT_MPI_PIECE) {
        const ct_tensor sent = piece_of(part, begin), received = piece_of(to, begin);
        started *s = NULL;
        CT_TRY(next_started(mpi, &s));
        CT_MPI(MPI_Ireduce(own && in_place ? MPI_IN_PLACE : sent.data, own ? received.data : NULL,
                           (int)sent.dim[0], type_of(part), op, root, MPI_COMM_WORLD, &s->request));
        mpi->started_count++;
    }
    return CT_OK;
}

static ct_status reduce_scatter_start(ct_comm *comm, const ct_tensor *to, const ct_tensor *from)
{
    mpi_comm *mpi = of(comm);
    const int64_t count = ct_tensor_count(to);
    const ct_tensor row = ct_tensor1(from->data, from->dtype, ct_tensor_count(from)),
                    own = ct_tensor_rows(&row, comm->rank * count, count);
    const bool in_place = to->data == own.data;
    MPI_Op op;
    CT_TRY(check_alive(mpi));
    CT_TRY(sum_of(mpi, from, &op));
    comm->stats.bytes_reduced += ct_tensor_bytes(from);
    if (row.dim[0] <= CT_MPI_PIECE) return start_block(mpi, to, from, in_place, op);
    for (int root = 0; root < comm->size; root++) {
        const ct_tensor part = ct_tensor_rows(&row, root * count, count);
        CT_TRY(start_part(mpi, to, &part, root, in_place, op));
    }
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

/* ---- the communicator ------------------------------------------------------------------------ */

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
