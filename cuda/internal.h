/* Shared by the files of the GPU backend: the device, checked calls, and how an operation is
 * written.
 *
 * One function an operation, ct_cuda_<op>(device, args), in the file of its group; those that are
 * one kernel each are generated in operations.c from CTK_OPS. As in the CPU backend, an operation
 * asks for all its scratch memory by one call of ct_cuda_workspace before anything else and returns
 * after building what it needs when `preparing` is set.
 *
 * Every call of a library stands in CT_CUDA, CT_CUBLAS or CT_CUDNN: the message names the operation
 * in progress, the call, the library's own words, and file and line. Work is asynchronous, so a
 * kernel's fault may be reported by a later operation; CT_CUDA_SYNC=1 in the environment waits
 * after each one.
 *
 * Streams: `stream` computes. `copy_stream` carries uploads from pinned staging (staging.h). A
 * communicator has one of its own (nccl.h). */
#ifndef CT_CUDA_INTERNAL_H
#define CT_CUDA_INTERNAL_H

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>
#include <stdatomic.h>

#include "cuda/cuda.h"
#include "kernels/kernels.h"

typedef struct ct_cuda_device {
    ct_device base; /* base.workspace_bytes is the room needed by what was prepared or run so far */
    ct_cuda_options options;
    struct cudaDeviceProp properties;
    cudaStream_t stream, copy_stream;
    const char *operation; /* in progress, for messages: "linear_fwd" */
    bool preparing;
    bool synchronous; /* CT_CUDA_SYNC=1 */
    bool shared;      /* a communicator is attached: other ranks rely on what is recorded here */
    /* Set by another thread when the job is aborted: collectives have ended early, so that nothing
     * that comes from the device may be believed (ct_cuda_check_job). */
    atomic_bool aborted;
    void *workspace; /* workspace_capacity bytes, one for all operations: they run in order */
    size_t workspace_capacity;
    struct ct_cuda_staging *staging;           /* staging.h */
    struct ct_cuda_graphs *graphs;             /* graphs.h */
    struct ct_cuda_products *products;         /* products.h: cuBLASLt */
    struct ct_cuda_convolutions *convolutions; /* convolutions.h: cuDNN; created on first use */
} ct_cuda_device;

static inline ct_cuda_device *ct_cuda(ct_device *device)
{
    return (ct_cuda_device *)device;
}

#define CT_CUDA_DECLARE(name)                                                                      \
    ct_status ct_cuda_##name(ct_device *device, const ct_##name##_args *args);
CT_OPS(CT_CUDA_DECLARE)
#undef CT_CUDA_DECLARE

/* Set the message and return CT_ERR_DEVICE (CT_ERR_MEMORY when memory is what is missing).
 * `operation` may be NULL: outside any. */
CT_NODISCARD ct_status ct_cuda_failed(const char *operation, const char *call, cudaError_t error,
                                      const char *file, int line);
CT_NODISCARD ct_status ct_cublas_failed(const char *operation, const char *call,
                                        cublasStatus_t error, const char *file, int line);
CT_NODISCARD ct_status ct_cudnn_failed(const char *operation, const char *call, cudnnStatus_t error,
                                       const char *file, int line);

/* CT_ERR_DEVICE once the job was aborted. To be asked after each wait for the device. */
CT_NODISCARD ct_status ct_cuda_check_job(const ct_cuda_device *cuda);

#define CT_CUDA(operation, call)                                                                   \
    do {                                                                                           \
        cudaError_t ct_error_ = (call);                                                            \
        if (ct_error_ != cudaSuccess)                                                              \
            return ct_cuda_failed(operation, #call, ct_error_, __FILE__, __LINE__);                \
    } while (0)
#define CT_CUBLAS(operation, call)                                                                 \
    do {                                                                                           \
        cublasStatus_t ct_error_ = (call);                                                         \
        if (ct_error_ != CUBLAS_STATUS_SUCCESS)                                                    \
            return ct_cublas_failed(operation, #call, ct_error_, __FILE__, __LINE__);              \
    } while (0)
#define CT_CUDNN(operation, call)                                                                  \
    do {                                                                                           \
        cudnnStatus_t ct_error_ = (call);                                                          \
        if (ct_error_ != CUDNN_STATUS_SUCCESS)                                                     \
            return ct_cudnn_failed(operation, #call, ct_error_, __FILE__, __LINE__);               \
    } while (0)

/* *out (any pointer type) = scratch memory of `bytes` bytes and no more, 256-aligned,
 * uninitialised, valid until the operation returns; NULL for 0 bytes. While preparing, the size is
 * noted and *out is NULL. Growing it outside `commit` waits for the device and drops recorded
 * graphs. */
CT_NODISCARD ct_status ct_cuda_workspace(ct_cuda_device *cuda, size_t bytes, void *out);

/* For pieces of a workspace: up to the next multiple of 256, which libraries ask for; the larger
 * one for pieces that serve in turn. */
static inline size_t ct_cuda_aligned(size_t bytes)
{
    return (bytes + 255) & ~(size_t)255;
}

static inline size_t ct_cuda_larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static inline ctk_launch ct_cuda_launch(const ct_cuda_device *cuda, void *workspace)
{
    return (ctk_launch){.stream = cuda->stream,
                        .workspace = workspace,
                        .sm_count = cuda->properties.multiProcessorCount,
                        .tf32 = cuda->base.tf32};
}

#endif
