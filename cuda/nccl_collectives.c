/* The collectives of comm.h. nccl.h says on which streams they run, and why. */
#include "cuda/nccl.h"

static ct_nccl *of(ct_comm *comm)
{
    return (ct_nccl *)comm;
}

static ncclDataType_t type_of(ct_dtype dtype)
{
    static const ncclDataType_t types[] = {[CT_F32] = ncclFloat32,
                                           [CT_BF16] = ncclBfloat16,
                                           [CT_F16] = ncclFloat16,
                                           [CT_I32] = ncclInt32,
                                           [CT_U8] = ncclUint8};
    return types[dtype];
}

/* ---- what computing waits for -------------------------------------------------------------- */

static ct_status wait_begins(ct_nccl *nccl, const char *operation)
{
    const ctk_launch launch = ct_cuda_launch(nccl->cuda, NULL);
    CT_CUDA(operation, ctk_exposed_begin(&nccl->clock->begin, &launch));
    return CT_OK;
}

static ct_status wait_ends(ct_nccl *nccl, const char *operation, uint64_t bytes_reduced)
{
    const ctk_launch launch = ct_cuda_launch(nccl->cuda, NULL);
    ct_nccl_clock *clock = nccl->clock;
    CT_CUDA(operation, ctk_exposed_end(&clock->begin, &clock->stats.bytes_reduced,
                                       &clock->stats.exposed_seconds, bytes_reduced, &launch));
    CT_CUDA(operation, cudaMemcpyAsync(&nccl->base.stats, &clock->stats, sizeof clock->stats,
                                       cudaMemcpyDeviceToHost, nccl->cuda->stream));
    return CT_OK;
}

static ct_status wait_if_synchronous(const ct_nccl *nccl, const char *operation,
                                     cudaStream_t stream)
{
    if (nccl->cuda->synchronous) CT_CUDA(operation, cudaStreamSynchronize(stream));
    return CT_OK;
}

/* The communicator's stream goes on from where the device's is. */
static ct_status fork_stream(ct_nccl *nccl, const char *operation)
{
    CT_CUDA(operation, cudaEventRecord(nccl->forked, nccl->cuda->stream));
    CT_CUDA(operation, cudaStreamWaitEvent(nccl->stream, nccl->forked, 0));
    nccl->started = true;
    return CT_OK;
}

/* The device's stream waits for what was started. */
static ct_status join_stream(ct_nccl *nccl, const char *operation)
{
    if (!nccl->started) return CT_OK;
    CT_TRY(wait_begins(nccl, operation));
    CT_CUDA(operation, cudaEventRecord(nccl->joined, nccl->stream));
    CT_CUDA(operation, cudaStreamWaitEvent(nccl->cuda->stream, nccl->joined, 0));
    CT_TRY(wait_ends(nccl, operation, nccl->started_bytes));
    nccl->started = false;
    nccl->started_bytes = 0;
    return CT_OK;
}

static ct_status begin_plain(ct_nccl *nccl, const char *operation)
{
    CT_TRY(join_stream(nccl, operation));
    return wait_begins(nccl, operation);
}

static ct_status end_plain(ct_nccl *nccl, const char *operation, uint64_t bytes_reduced)
{
    CT_TRY(wait_ends(nccl, operation, bytes_reduced));
    return wait_if_synchronous(nccl, operation, nccl->cuda->stream);
}

/* ---- plain --------------------------------------------------------------------------------- */

static ct_status all_gather(ct_comm *comm, const ct_tensor *to, const ct_tensor *from)
{
    const char *operation = "all_gather";
    ct_nccl *nccl = of(comm);
    const size_t count = (size_t)ct_tensor_count(from);
    CT_TRY(begin_plain(nccl, operation));
    CT_NCCL(nccl, operation,
            ncclAllGather(from->data, to->data, count, type_of(from->dtype), nccl->comm,
                          nccl->cuda->stream));
    return end_plain(nccl, operation, 0);
}

static bool is_error(ncclResult_t result)
{
    return result != ncclSuccess && result != ncclInProgress;
}

/* A group is one operation; its end is called whatever its parts said, for it closes the group. */
static ncclResult_t exchange_rows(ct_nccl *nccl, const ct_tensor *to, const ct_tensor *from)
{
    const ncclDataType_t type = type_of(from->dtype);
    const int size = nccl->base.size;
    const size_t count = (size_t)ct_tensor_count(from) / (size_t)size;
    const size_t row = count * ct_dtype_bytes(from->dtype);
    ncclResult_t result = ncclGroupStart();
    if (is_error(result)) return result;
    for (int peer = 0; peer < size && !is_error(result); peer++) {
        const size_t offset = (size_t)peer * row;
        result = ncclSend((const uint8_t *)from->data + offset, count, type, peer, nccl->comm,
                          nccl->cuda->stream);
        if (is_error(result)) break;
        result = ncclRecv((uint8_t *)to->data + offset, count, type, peer, nccl->comm,
                          nccl->cuda->stream);
    }
    const ncclResult_t ended = ncclGroupEnd();
    return is_error(result) ? result : ended;
}

static ct_status all_to_all(ct_comm *comm, const ct_tensor *to, const ct_tensor *from)
{
    const char *operation = "all_to_all";
    ct_nccl *nccl = of(comm);
    CT_TRY(begin_plain(nccl, operation));
    CT_NCCL(nccl, operation, exchange_rows(nccl, to, from));
    return end_plain(nccl, operation, 0);
}

static ct_status reduce_plain(ct_nccl *nccl, const char *operation, const ct_tensor *x,
                              ncclRedOp_t op)
{
    CT_TRY(begin_plain(nccl, operation));
    CT_NCCL(nccl, operation,
            ncclAllReduce(x->data, x->data, (size_t)ct_tensor_count(x), type_of(x->dtype), op,
                          nccl->comm, nccl->cuda->stream));
    return end_plain(nccl, operation, ct_tensor_bytes(x));
}

static ct_status all_reduce(ct_comm *comm, const ct_tensor *x)
{
    return reduce_plain(of(comm), "all_reduce", x, ncclSum);
}

static ct_status all_reduce_mean(ct_comm *comm, const ct_tensor *x)
{
    return reduce_plain(of(comm), "all_reduce_mean", x, ncclAvg);
}

/* ---- beside computing ---------------------------------------------------------------------- */

static ct_status all_reduce_start(ct_comm *comm, const ct_tensor *x)
{
    const char *operation = "all_reduce_start";
    ct_nccl *nccl = of(comm);
    CT_TRY(fork_stream(nccl, operation));
    CT_NCCL(nccl, operation,
            ncclAllReduce(x->data, x->data, (size_t)ct_tensor_count(x), type_of(x->dtype), ncclSum,
                          nccl->comm, nccl->stream));
    nccl->started_bytes += ct_tensor_bytes(x);
    return wait_if_synchronous(nccl, operation, nccl->stream);
}

static ct_status reduce_scatter_start(ct_comm *comm, const ct_tensor *to, const ct_tensor *from)
{
    const char *operation = "reduce_scatter_start";
    ct_nccl *nccl = of(comm);
    CT_TRY(fork_stream(nccl, operation));
    CT_NCCL(nccl, operation,
            ncclReduceScatter(from->data, to->data, (size_t)ct_tensor_count(to),
                              type_of(from->dtype), ncclSum, nccl->comm, nccl->stream));
    nccl->started_bytes += ct_tensor_bytes(from);
    return wait_if_synchronous(nccl, operation, nccl->stream);
}

static ct_status finish(ct_comm *comm)
{
    return join_stream(of(comm), "finish");
}

/* ---- host memory --------------------------------------------------------------------------- */

static ct_status gather_piece(ct_nccl *nccl, uint8_t *to, size_t stride, const uint8_t *from,
                              size_t bytes)
{
    const char *operation = "gather_host";
    ct_device *device = &nccl->cuda->base;
    const ct_backend *backend = device->backend;
    uint8_t *own = nccl->scratch + (size_t)nccl->base.rank * bytes;
    CT_TRY(backend->upload(device, own, from, bytes));
    CT_NCCL(nccl, operation,
            ncclAllGather(own, nccl->scratch, bytes, ncclUint8, nccl->comm, nccl->cuda->stream));
    for (int rank = 0; rank < nccl->base.size; rank++)
        CT_TRY(backend->download(device, to + (size_t)rank * stride,
                                 nccl->scratch + (size_t)rank * bytes, bytes));
    return CT_OK;
}

static ct_status gather_host(ct_comm *comm, void *to, const void *from, size_t bytes)
{
    ct_nccl *nccl = of(comm);
    CT_TRY(join_stream(nccl, "gather_host"));
    for (size_t done = 0, piece; done < bytes; done += piece) {
        piece = bytes - done < CT_NCCL_PIECE_BYTES ? bytes - done : CT_NCCL_PIECE_BYTES;
        CT_TRY(
            gather_piece(nccl, (uint8_t *)to + done, bytes, (const uint8_t *)from + done, piece));
    }
    return CT_OK;
}

const ct_comm_table ct_nccl_table = {.name = "nccl",
                                     .all_gather = all_gather,
                                     .all_to_all = all_to_all,
                                     .all_reduce = all_reduce,
                                     .all_reduce_mean = all_reduce_mean,
                                     .all_reduce_start = all_reduce_start,
                                     .reduce_scatter_start = reduce_scatter_start,
                                     .finish = finish,
                                     .gather_host = gather_host,
                                     .abort = ct_nccl_abort,
                                     .destroy = ct_nccl_destroy};
