/* Messages of failed library calls. Each keeps the library's own words, says where the call stands,
 * and adds what a user can do where the error alone does not tell. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/internal.h"

/* "cuda/linear.c" of a compiler's absolute path. */
static const char *short_path(const char *file)
{
    const char *folder = strstr(file, "cuda/"), *next;
    while (folder && (next = strstr(folder + 1, "cuda/")) != NULL) folder = next;
    return folder ? folder : file;
}

static const char *advice(cudaError_t error)
{
    switch ((int)error) {
    case cudaErrorNoKernelImageForDevice:
        return "; this build has no code for this GPU's compute capability: add it to "
               "CMAKE_CUDA_ARCHITECTURES, or use device: cpu";
    case cudaErrorInsufficientDriver:
        return "; the NVIDIA driver is missing or older than this build's CUDA needs";
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorIllegalInstruction:
    case cudaErrorLaunchFailure:
    case cudaErrorAssert: {
        const char *sync = getenv("CT_CUDA_SYNC");
        if (sync && strcmp(sync, "1") == 0) return "";
        return "; a kernel's fault may be reported by a later operation: CT_CUDA_SYNC=1 in the "
               "environment names the one at fault";
    }
    default:
        return "";
    }
}

static ct_status failed(ct_status code, const char *operation, const char *call, const char *words,
                        const char *name, const char *file, int line, const char *more)
{
    return ct_fail(code, "%s%s%s: %s (%s), at %s:%d%s", operation ? operation : "",
                   operation ? ": " : "", call, words, name, short_path(file), line, more);
}

ct_status ct_cuda_failed(const char *operation, const char *call, cudaError_t error,
                         const char *file, int line)
{
    /* Errors that do not stick to the device are cleared, so that no later call returns them. */
    (void)cudaGetLastError();
    return failed(error == cudaErrorMemoryAllocation ? CT_ERR_MEMORY : CT_ERR_DEVICE, operation,
                  call, cudaGetErrorString(error), cudaGetErrorName(error), file, line,
                  advice(error));
}

ct_status ct_cublas_failed(const char *operation, const char *call, cublasStatus_t error,
                           const char *file, int line)
{
    return failed(error == CUBLAS_STATUS_ALLOC_FAILED ? CT_ERR_MEMORY : CT_ERR_DEVICE, operation,
                  call, cublasLtGetStatusString(error), cublasLtGetStatusName(error), file, line,
                  "");
}

ct_status ct_cudnn_failed(const char *operation, const char *call, cudnnStatus_t error,
                          const char *file, int line)
{
    char details[512] = "", more[sizeof details + 16] = "";
    cudnnGetLastErrorString(details, sizeof details);
    if (details[0]) snprintf(more, sizeof more, "; %s", details);
    const bool memory = error == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ||
                        error == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED;
    return failed(memory ? CT_ERR_MEMORY : CT_ERR_DEVICE, operation, call, "cuDNN failed",
                  cudnnGetErrorString(error), file, line, more);
}

ct_status ct_cuda_check_job(const ct_cuda_device *cuda)
{
    if (!atomic_load(&cuda->aborted)) return CT_OK;
    return ct_fail(CT_ERR_DEVICE, "the job was aborted");
}
