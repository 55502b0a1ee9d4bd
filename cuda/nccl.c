/* A communicator of NCCL: making it, checked calls, aborting and ending it. */
#include "cuda/nccl.h"

#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "cuda/graphs.h"

_Static_assert(CT_NCCL_ID_BYTES == NCCL_UNIQUE_ID_BYTES, "cuda.h does not include nccl.h");
_Static_assert(NCCL_VERSION_CODE >= NCCL_VERSION(2, 18, 1), "non-blocking communicators");

/* ---- checked calls ------------------------------------------------------------------------- */

ct_status ct_nccl_failed(const ct_nccl *nccl, const char *operation, const char *call,
                         ncclResult_t error, const char *file, int line)
{
    if (nccl) CT_TRY(ct_cuda_check_job(nccl->cuda)); /* an abort's consequence is no cause */
    const char *folder = strstr(file, "cuda/nccl"), *details = ncclGetLastError(NULL);
    const bool more = details && details[0];
    return ct_fail(CT_ERR_DEVICE, "%s%s%s: %s, at %s:%d%s%s", operation ? operation : "",
                   operation ? ": " : "", call, ncclGetErrorString(error), folder ? folder : file,
                   line, more ? "; " : "", more ? details : "");
}

ct_status ct_nccl_lock(ct_nccl *nccl)
{
    pthread_mutex_lock(&nccl->lock);
    if (!nccl->gone) return CT_OK;
    pthread_mutex_unlock(&nccl->lock);
    CT_TRY(ct_cuda_check_job(nccl->cuda));
    return ct_fail(CT_ERR_INTERNAL, "the communicator has ended");
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
}

ncclResult_t ct_nccl_settle(ct_nccl *nccl, ncclResult_t result)
{
    while (result == ncclInProgress) {
        pthread_mutex_unlock(&nccl->lock);
        nap();
        pthread_mutex_lock(&nccl->lock);
        if (nccl->gone) {
            result = ncclInvalidUsage;
            break;
        }
        const ncclResult_t asked = ncclCommGetAsyncError(nccl->comm, &result);
        if (asked != ncclSuccess) result = asked;
    }
    pthread_mutex_unlock(&nccl->lock);
    return result;
}

/* ---- ending -------------------------------------------------------------------------------- */

static void *abort_main(void *context)
{
    (void)ncclCommAbort(((ct_nccl *)context)->comm);
    return NULL;
}

/* Without a thread to spare the caller waits itself. */
void ct_nccl_abort(ct_comm *comm)
{
    ct_nccl *nccl = (ct_nccl *)comm;
    pthread_mutex_lock(&nccl->lock);
    const bool first = !nccl->gone;
    if (first) {
        nccl->gone = true;
        atomic_store(&nccl->cuda->aborted, true);
        nccl->aborting = pthread_create(&nccl->aborter, NULL, abort_main, nccl) == 0;
    }
    const bool own_thread = nccl->aborting;
    pthread_mutex_unlock(&nccl->lock);
    if (first && !own_thread) abort_main(nccl);
}

static void release(ct_nccl *nccl)
{
    if (nccl->clock) (void)cudaFree(nccl->clock);
    if (nccl->scratch) (void)cudaFree(nccl->scratch);
    if (nccl->joined) (void)cudaEventDestroy(nccl->joined);
    if (nccl->forked) (void)cudaEventDestroy(nccl->forked);
    if (nccl->stream) (void)cudaStreamDestroy(nccl->stream);
    nccl->cuda->shared = false;
    pthread_mutex_destroy(&nccl->lock);
    (void)cudaFreeHost(nccl);
    (void)cudaGetLastError();
}

/* All ranks' operations have ended and the library has let go of its streams. */
static ct_status finalize(ct_nccl *nccl)
{
    CT_CUDA("destroy", cudaStreamSynchronize(nccl->cuda->stream));
    CT_CUDA("destroy", cudaStreamSynchronize(nccl->stream));
    CT_TRY(ct_cuda_check_job(nccl->cuda));
    CT_NCCL(nccl, "destroy", ncclCommFinalize(nccl->comm));
    return CT_OK;
}

static bool is_gone(ct_nccl *nccl)
{
    pthread_mutex_lock(&nccl->lock);
    const bool gone = nccl->gone;
    pthread_mutex_unlock(&nccl->lock);
    return gone;
}

/* Recorded graphs go first: the library waits for those that hold its operations. After an abort
 * nothing is called that could replace the failure's message. */
void ct_nccl_destroy(ct_comm *comm)
{
    ct_nccl *nccl = (ct_nccl *)comm;
    ct_cuda_device *cuda = nccl->cuda;
    (void)cudaStreamSynchronize(cuda->stream);
    ct_cuda_graphs_drop(cuda->graphs);
    if (!is_gone(nccl) && finalize(nccl) != CT_OK) ct_nccl_abort(comm);
    if (!is_gone(nccl)) (void)ncclCommDestroy(nccl->comm);
    else if (nccl->aborting) (void)pthread_join(nccl->aborter, NULL);
    release(nccl);
}

/* ---- making -------------------------------------------------------------------------------- */

ct_status ct_cuda_nccl_id(void *id)
{
    ncclUniqueId unique;
    const ncclResult_t error = ncclGetUniqueId(&unique);
    if (error != ncclSuccess)
        return ct_nccl_failed(NULL, NULL, "ncclGetUniqueId", error, __FILE__, __LINE__);
    memcpy(id, &unique, sizeof unique);
    return CT_OK;
}

static ct_status allocate(ct_nccl *nccl)
{
    int least, greatest;
    CT_CUDA(NULL, cudaDeviceGetStreamPriorityRange(&least, &greatest));
    /* A collective that computing will wait for gets its multiprocessors first. */
    CT_CUDA(NULL, cudaStreamCreateWithPriority(&nccl->stream, cudaStreamNonBlocking, greatest));
    CT_CUDA(NULL, cudaEventCreateWithFlags(&nccl->forked, cudaEventDisableTiming));
    CT_CUDA(NULL, cudaEventCreateWithFlags(&nccl->joined, cudaEventDisableTiming));
    const size_t scratch_bytes = (size_t)nccl->base.size * CT_NCCL_PIECE_BYTES;
    CT_CUDA(NULL, cudaMalloc((void **)&nccl->scratch, scratch_bytes));
    CT_CUDA(NULL, cudaMalloc((void **)&nccl->clock, sizeof *nccl->clock));
    CT_CUDA(NULL, cudaMemsetAsync(nccl->clock, 0, sizeof *nccl->clock, nccl->cuda->stream));
    return CT_OK;
}

/* Nobody else knows the communicator yet: no lock. */
static ct_status meet(ct_nccl *nccl, const void *id, double timeout_seconds)
{
    ncclUniqueId unique;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    memcpy(&unique, id, sizeof unique);
    config.blocking = 0;
    const double end = ct_clock_seconds() + timeout_seconds;
    const int rank = nccl->base.rank, size = nccl->base.size;
    ncclResult_t result = ncclCommInitRankConfig(&nccl->comm, size, unique, rank, &config);
    while (result == ncclInProgress && ct_clock_seconds() < end) {
        nap();
        const ncclResult_t asked = ncclCommGetAsyncError(nccl->comm, &result);
        if (asked != ncclSuccess) result = asked;
    }
    if (result == ncclSuccess) return CT_OK;
    const ct_status status =
        result == ncclInProgress
            ? ct_fail(CT_ERR_DEVICE, "NCCL: not all %d ranks came within %g seconds", size,
                      timeout_seconds)
            : ct_nccl_failed(NULL, NULL, "ncclCommInitRankConfig", result, __FILE__, __LINE__);
    if (nccl->comm) (void)ncclCommAbort(nccl->comm);
    return status;
}

ct_status ct_cuda_comm_create(ct_device *device, const void *id, int rank, int size,
                              double timeout_seconds, ct_comm **out)
{
    ct_nccl *nccl = NULL;
    CT_CUDA(NULL, cudaMallocHost((void **)&nccl, sizeof *nccl));
    memset(nccl, 0, sizeof *nccl);
    nccl->base = (ct_comm){.table = &ct_nccl_table, .rank = rank, .size = size};
    nccl->cuda = ct_cuda(device);
    pthread_mutex_init(&nccl->lock, NULL);
    ct_status status;
    CT_TRY_GOTO(status, allocate(nccl), fail);
    CT_TRY_GOTO(status, meet(nccl, id, timeout_seconds), fail);
    nccl->cuda->shared = true;
    *out = &nccl->base;
    return CT_OK;
fail:
    release(nccl);
    return status;
}
