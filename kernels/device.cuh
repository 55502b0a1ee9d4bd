/* What every kernel file starts with: the device side of CUDA, from nvcc, or from the SIMT device
 * of tests/simt/ when the host's compiler compiles the very same file (CT_SIMT).
 *
 * Where the two differ in syntax, kernels use the names below and nothing else:
 * - ctk::launch(kernel, grid, block, shared_bytes, stream, arguments...) instead of <<<>>>;
 * - CTK_SHARED(type, name, count): a static shared array `name` of `count` elements, in a kernel or
 * a device function; index it as one dimension;
 * - CTK_DYNAMIC_SHARED(type, name): the dynamic shared memory, 128-byte-aligned, as type *name;
 * - mma, ldmatrix and cp.async through mma.cuh;
 * - global_nanoseconds(). */
#ifndef CT_KERNELS_DEVICE_CUH
#define CT_KERNELS_DEVICE_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#ifdef CT_SIMT

#include "simt/device.h"

#else

#include <cuda_runtime.h>

#include <utility>

#define CTK_SHARED(type, name, count) __shared__ type name[count]
#define CTK_DYNAMIC_SHARED(type, name)                                                             \
    extern __shared__ __align__(128) unsigned char ctk_dynamic_shared[];                           \
    type *name = reinterpret_cast<type *>(ctk_dynamic_shared)

namespace ctk
{

/* Nothing to do (an empty grid) is no error. */
template <class... P, class... A>
cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, A &&...arguments)
{
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
    if (shared_bytes > 48 * 1024) {
        cudaError_t error = cudaFuncSetAttribute(
            kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes);
        if (error != cudaSuccess) return error;
    }
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    return cudaLaunchKernelEx(&config, kernel, static_cast<P>(arguments)...);
}

/* The GPU's clock, the same on all its multiprocessors. */
__device__ inline uint64_t global_nanoseconds()
{
    uint64_t now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    return now;
}

} // namespace ctk

#endif

#endif
