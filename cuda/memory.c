#include "cuda/memory.h"

#include <string.h>

#include "cuda/graphs.h"

#define GIB                 ((double)(1 << 30))
#define WORKSPACE_ALIGNMENT 256 /* what the libraries ask of theirs */

static ct_status out_of_memory(const ct_cuda_device *cuda, size_t bytes, const char *purpose)
{
    (void)cudaGetLastError();
    size_t available = 0, total = 0;
    if (cudaMemGetInfo(&available, &total) != cudaSuccess) (void)cudaGetLastError();
    return ct_fail(CT_ERR_MEMORY,
                   "out of GPU memory: %.3f GiB wanted for %s, %.3f of %.3f GiB free on %s; "
                   "reduce train.batch_size (or image.size, text.max_tokens)",
                   (double)bytes / GIB, purpose, (double)available / GIB, (double)total / GIB,
                   cuda->properties.name);
}

/* 0 bytes still give a pointer to free. */
static ct_status allocate(const ct_cuda_device *cuda, size_t bytes, const char *purpose, void **out)
{
    *out = NULL;
    cudaError_t error = cudaMalloc(out, bytes ? bytes : 1);
    if (error == cudaErrorMemoryAllocation) return out_of_memory(cuda, bytes, purpose);
    if (error != cudaSuccess)
        return ct_cuda_failed(purpose, "cudaMalloc", error, __FILE__, __LINE__);
    return CT_OK;
}

ct_status ct_cuda_alloc(ct_device *device, size_t bytes, const char *purpose, void **out)
{
    CT_TRY(allocate(ct_cuda(device), bytes, purpose, out));
    ct_status status = ct_cuda_zero(device, *out, bytes);
    if (status == CT_OK) return CT_OK;
    (void)cudaFree(*out);
    *out = NULL;
    return status;
}

void ct_cuda_free(ct_device *device, void *memory)
{
    if (!memory) return;
    ct_cuda_device *cuda = ct_cuda(device);
    /* Results are not looked at: after a fault each call repeats its error, which has been told. */
    (void)cudaStreamSynchronize(cuda->stream);
    ct_cuda_graphs_drop(cuda->graphs);
    (void)cudaFree(memory);
}

ct_status ct_cuda_zero(ct_device *device, void *memory, size_t bytes)
{
    if (bytes) CT_CUDA("zero", cudaMemsetAsync(memory, 0, bytes, ct_cuda(device)->stream));
    return CT_OK;
}

/* Contents are scratch, so growing need not copy. What was recorded holds the old address. */
ct_status ct_cuda_grow_workspace(ct_cuda_device *cuda)
{
    const size_t bytes = cuda->base.workspace_bytes;
    if (bytes <= cuda->workspace_capacity) return CT_OK;
    enum cudaStreamCaptureStatus capture;
    CT_CUDA(cuda->operation, cudaStreamIsCapturing(cuda->stream, &capture));
    if (capture != cudaStreamCaptureStatusNone)
        return ct_fail(CT_ERR_INTERNAL,
                       "%s: the workspace must grow from %zu to %zu bytes while a step is recorded",
                       cuda->operation ? cuda->operation : "commit", cuda->workspace_capacity,
                       bytes);
    CT_CUDA(cuda->operation, cudaStreamSynchronize(cuda->stream));
    ct_cuda_graphs_drop(cuda->graphs);
    CT_CUDA(cuda->operation, cudaFree(cuda->workspace));
    cuda->workspace = NULL;
    cuda->workspace_capacity = 0;
    CT_TRY(allocate(cuda, bytes, "the operations' workspace", &cuda->workspace));
    cuda->workspace_capacity = bytes;
    return CT_OK;
}

/* The last bytes of it, so that an operation that uses more than it asked for leaves the
 * allocation, which the SIMT device and compute-sanitizer see, however much other operations need.
 */
ct_status ct_cuda_workspace(ct_cuda_device *cuda, size_t bytes, void *out)
{
    const size_t aligned =
        (bytes + WORKSPACE_ALIGNMENT - 1) / WORKSPACE_ALIGNMENT * WORKSPACE_ALIGNMENT;
    if (aligned > cuda->base.workspace_bytes) cuda->base.workspace_bytes = aligned;
    if (!cuda->preparing) CT_TRY(ct_cuda_grow_workspace(cuda));
    uint8_t *pointer = NULL;
    if (aligned && !cuda->preparing)
        pointer = (uint8_t *)cuda->workspace + cuda->workspace_capacity - aligned;
    memcpy(out, &pointer, sizeof pointer);
    return CT_OK;
}
