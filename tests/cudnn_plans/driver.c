/* Stands in for the driver, libcuda.so.1, where there is none: as much of it as cuDNN wants before
 * it compiles its run-time engines for GPUs that are only described. Compiling is NVRTC's and real;
 * what was compiled is "loaded" into nothing, and whatever else would need a GPU fails as the
 * toolkit's stub does. */
#include <cuda.h>

#define EXPORT __attribute__((visibility("default")))

/* What cuDNN looks up when it loads the driver: by name only. */
#define NEEDS_GPU(X)                                                                               \
    X(cuCtxGetCurrent)                                                                             \
    X(cuCtxGetLimit)                                                                               \
    X(cuCtxPopCurrent)                                                                             \
    X(cuCtxPushCurrent)                                                                            \
    X(cuDeviceGet)                                                                                 \
    X(cuDeviceGetCount)                                                                            \
    X(cuGetErrorName)                                                                              \
    X(cuGetErrorString)                                                                            \
    X(cuInit)                                                                                      \
    X(cuKernelGetAttribute)                                                                        \
    X(cuKernelSetAttribute)                                                                        \
    X(cuLaunchCooperativeKernel)                                                                   \
    X(cuLaunchKernel)                                                                              \
    X(cuLaunchKernelEx)                                                                            \
    X(cuLibraryLoadFromFile)                                                                       \
    X(cuLibraryUnload)                                                                             \
    X(cuLinkAddData)                                                                               \
    X(cuLinkComplete)                                                                              \
    X(cuLinkCreate)                                                                                \
    X(cuLinkDestroy)                                                                               \
    X(cuOccupancyMaxPotentialClusterSize)                                                          \
    X(cuStreamGetCtx)

#define DEFINE(name)                                                                               \
    EXPORT CUresult stand_in_##name(void) __asm__(#name);                                          \
    CUresult stand_in_##name(void)                                                                 \
    {                                                                                              \
        return CUDA_ERROR_STUB_LIBRARY;                                                            \
    }
NEEDS_GPU(DEFINE)

EXPORT CUresult cuDriverGetVersion(int *version)
{
    *version = CUDA_VERSION;
    return CUDA_SUCCESS;
}

static char nothing;

EXPORT CUresult cuLibraryLoadData(CUlibrary *library, const void *code, CUjit_option *jit_options,
                                  void **jit_values, unsigned jit_count,
                                  CUlibraryOption *library_options, void **library_values,
                                  unsigned library_count)
{
    (void)code, (void)jit_options, (void)jit_values, (void)jit_count;
    (void)library_options, (void)library_values, (void)library_count;
    *library = (CUlibrary)(void *)&nothing;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuLibraryGetKernel(CUkernel *kernel, CUlibrary library, const char *name)
{
    (void)library, (void)name;
    *kernel = (CUkernel)(void *)&nothing;
    return CUDA_SUCCESS;
}
