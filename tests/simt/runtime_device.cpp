/* The device's properties, and the errors of its API. */
#include "runtime.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace simt
{
namespace
{

cudaError_t sticky = cudaSuccess;
int current_device;
thread_local cudaError_t last_error = cudaSuccess;

/* An H100 SXM5's published figures, as far as a program can ask for them. CT_SIMT_SMS changes the
 * number of multiprocessors: results must not depend on it. */
cudaDeviceProp properties()
{
    cudaDeviceProp p = {};
    snprintf(p.name, sizeof p.name, "SIMT device (H100 figures)");
    p.totalGlobalMem = device_bytes_total();
    p.sharedMemPerBlock = 48 << 10;
    p.sharedMemPerBlockOptin = 227 << 10;
    p.sharedMemPerMultiprocessor = 228 << 10;
    p.reservedSharedMemPerBlock = 1 << 10;
    p.regsPerBlock = p.regsPerMultiprocessor = 65536;
    p.warpSize = 32;
    p.memPitch = 0x7fffffff;
    p.maxThreadsPerBlock = 1024;
    p.maxThreadsDim[0] = p.maxThreadsDim[1] = 1024;
    p.maxThreadsDim[2] = 64;
    p.maxGridSize[0] = 0x7fffffff;
    p.maxGridSize[1] = p.maxGridSize[2] = 65535;
    p.totalConstMem = 64 << 10;
    p.major = 9;
    p.minor = 0;
    p.multiProcessorCount = (int)environment_number("CT_SIMT_SMS", 132);
    p.canMapHostMemory = p.concurrentKernels = p.unifiedAddressing = 1;
    p.asyncEngineCount = 3;
    p.memoryBusWidth = 5120;
    p.l2CacheSize = 50 << 20;
    p.persistingL2CacheMaxSize = 32 << 20;
    p.maxThreadsPerMultiProcessor = 2048;
    p.maxBlocksPerMultiProcessor = 32;
    p.streamPrioritiesSupported = p.globalL1CacheSupported = p.localL1CacheSupported = 1;
    p.computePreemptionSupported = p.canUseHostPointerForRegisteredMem = 1;
    p.hostRegisterSupported = p.hostRegisterReadOnlySupported = p.memoryPoolsSupported = 1;
    p.hostNumaId = -1;
    return p;
}

/* Whether the machine has that device. A process uses one; the others are other processes'. */
bool exists(int device)
{
    return device >= 0 && (uint64_t)device < environment_number("SIMT_DEVICES", 1);
}

struct ErrorText {
    cudaError_t error;
    const char *name, *text;
};

#define ERROR(name, text)                                                                          \
    {                                                                                              \
        name, #name, text                                                                          \
    }
const ErrorText error_texts[] = {
    ERROR(cudaSuccess, "no error"),
    ERROR(cudaErrorInvalidValue, "invalid argument"),
    ERROR(cudaErrorMemoryAllocation, "out of memory"),
    ERROR(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    ERROR(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    ERROR(cudaErrorInsufficientDriver,
          "CUDA driver version is insufficient for CUDA runtime version"),
    ERROR(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    ERROR(cudaErrorInvalidDevice, "invalid device ordinal"),
    ERROR(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    ERROR(cudaErrorIllegalState, "the operation cannot be performed in the present state"),
    ERROR(cudaErrorNotReady, "device not ready"),
    ERROR(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    ERROR(cudaErrorHostMemoryAlreadyRegistered,
          "part or all of the requested memory range is already mapped"),
    ERROR(cudaErrorHostMemoryNotRegistered,
          "pointer does not correspond to a registered memory region"),
    ERROR(cudaErrorLaunchFailure, "unspecified launch failure"),
    ERROR(cudaErrorNotSupported, "operation not supported"),
    ERROR(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    ERROR(cudaErrorStreamCaptureInvalidated,
          "operation failed due to a previous error during capture"),
    ERROR(cudaErrorStreamCaptureMerge,
          "operation would result in a merge of separate capture sequences"),
    ERROR(cudaErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began"),
    ERROR(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    ERROR(cudaErrorStreamCaptureIsolation,
          "dependency created on uncaptured work in another stream"),
    ERROR(cudaErrorStreamCaptureImplicit,
          "operation would make the legacy stream depend on a capturing blocking stream"),
    ERROR(cudaErrorCapturedEvent,
          "operation not permitted on an event last recorded in a capturing stream"),
    ERROR(cudaErrorUnknown, "unknown error"),
};
#undef ERROR

const ErrorText *find_error(cudaError_t error)
{
    for (const ErrorText &entry : error_texts)
        if (entry.error == error) return &entry;
    return nullptr;
}

} // namespace

cudaError_t sticky_error()
{
    return sticky;
}

cudaError_t enter(const char *kind, cudaError_t error)
{
    if (sticky != cudaSuccess) return sticky;
    return kind && injected(kind) ? error : cudaSuccess;
}

cudaError_t record(cudaError_t error)
{
    if (error != cudaSuccess) last_error = error;
    return error;
}

void lose_device(cudaError_t error)
{
    sticky = error;
    drop_all();
}

} // namespace simt

using namespace simt;

extern "C" {

cudaError_t cudaGetDeviceCount(int *count)
{
    SIMT_ENTER("stream", cudaErrorNoDevice);
    if (!count) return record(cudaErrorInvalidValue);
    *count = (int)environment_number("SIMT_DEVICES", 1);
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    SIMT_ENTER("stream", cudaErrorUnknown);
    if (!exists(device)) return record(cudaErrorInvalidDevice);
    current_device = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    SIMT_ENTER(nullptr, cudaSuccess);
    if (!device) return record(cudaErrorInvalidValue);
    *device = current_device;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *out, int device)
{
    SIMT_ENTER("stream", cudaErrorUnknown);
    if (!out) return record(cudaErrorInvalidValue);
    if (!exists(device)) return record(cudaErrorInvalidDevice);
    *out = properties();
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device)
{
    SIMT_ENTER(nullptr, cudaSuccess);
    if (!value) return record(cudaErrorInvalidValue);
    if (!exists(device)) return record(cudaErrorInvalidDevice);
    cudaDeviceProp p = properties();
    const std::pair<cudaDeviceAttr, int> values[] = {
        {cudaDevAttrComputeCapabilityMajor, p.major},
        {cudaDevAttrComputeCapabilityMinor, p.minor},
        {cudaDevAttrMultiProcessorCount, p.multiProcessorCount},
        {cudaDevAttrWarpSize, p.warpSize},
        {cudaDevAttrMaxThreadsPerBlock, p.maxThreadsPerBlock},
        {cudaDevAttrMaxBlockDimX, p.maxThreadsDim[0]},
        {cudaDevAttrMaxBlockDimY, p.maxThreadsDim[1]},
        {cudaDevAttrMaxBlockDimZ, p.maxThreadsDim[2]},
        {cudaDevAttrMaxGridDimX, p.maxGridSize[0]},
        {cudaDevAttrMaxGridDimY, p.maxGridSize[1]},
        {cudaDevAttrMaxGridDimZ, p.maxGridSize[2]},
        {cudaDevAttrMaxThreadsPerMultiProcessor, p.maxThreadsPerMultiProcessor},
        {cudaDevAttrMaxBlocksPerMultiprocessor, p.maxBlocksPerMultiProcessor},
        {cudaDevAttrMaxSharedMemoryPerBlock, (int)p.sharedMemPerBlock},
        {cudaDevAttrMaxSharedMemoryPerBlockOptin, (int)p.sharedMemPerBlockOptin},
        {cudaDevAttrMaxSharedMemoryPerMultiprocessor, (int)p.sharedMemPerMultiprocessor},
        {cudaDevAttrReservedSharedMemoryPerBlock, (int)p.reservedSharedMemPerBlock},
        {cudaDevAttrMaxRegistersPerBlock, p.regsPerBlock},
        {cudaDevAttrMaxRegistersPerMultiprocessor, p.regsPerMultiprocessor},
        {cudaDevAttrL2CacheSize, p.l2CacheSize},
        {cudaDevAttrAsyncEngineCount, p.asyncEngineCount},
        {cudaDevAttrGlobalMemoryBusWidth, p.memoryBusWidth},
        {cudaDevAttrMemoryClockRate, 2619000}, /* kHz, of an H100 SXM5 */
        {cudaDevAttrClockRate, 1980000},
        {cudaDevAttrConcurrentKernels, p.concurrentKernels},
        {cudaDevAttrUnifiedAddressing, p.unifiedAddressing},
        {cudaDevAttrMemoryPoolsSupported, p.memoryPoolsSupported},
        {cudaDevAttrHostRegisterSupported, p.hostRegisterSupported},
    };
    for (const auto &known : values) {
        if (known.first != attribute) continue;
        *value = known.second;
        return cudaSuccess;
    }
    fault("cudaDeviceGetAttribute: attribute %d is not modelled", (int)attribute);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    SIMT_ENTER(nullptr, cudaSuccess);
    if (least) *least = 0;
    if (greatest) *greatest = -5;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    if (!version) return record(cudaErrorInvalidValue);
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    return cudaDriverGetVersion(version);
}

/* CUDA would free what is left; that its owner did not is reported as the leak it is. */
cudaError_t cudaDeviceReset(void)
{
    check_not_running("cudaDeviceReset");
    if (sticky == cudaSuccess) run_all();
    check_leaks("at cudaDeviceReset");
    sticky = last_error = cudaSuccess;
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t error = last_error;
    last_error = sticky;
    return error;
}

cudaError_t cudaPeekAtLastError(void)
{
    return last_error;
}

const char *cudaGetErrorName(cudaError_t error)
{
    const ErrorText *found = find_error(error);
    return found ? found->name : "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error)
{
    const ErrorText *found = find_error(error);
    return found ? found->text : "unrecognized error code";
}

cudaError_t cudaFuncSetAttribute(const void *function, cudaFuncAttribute attribute, int value)
{
    SIMT_ENTER("launch", cudaErrorUnknown);
    if (!function) return record(cudaErrorInvalidDeviceFunction);
    int most = attribute == cudaFuncAttributeMaxDynamicSharedMemorySize      ? 227 << 10
               : attribute == cudaFuncAttributePreferredSharedMemoryCarveout ? 100
                                                                             : -2;
    return value >= -1 && value <= most ? cudaSuccess : record(cudaErrorInvalidValue);
}

/* By threads, blocks and shared memory. Registers are the compiler's secret; kernels/budgets.txt
 * holds them. */
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *function,
                                                          int threads, size_t shared_bytes)
{
    SIMT_ENTER(nullptr, cudaSuccess);
    cudaDeviceProp p = properties();
    if (!blocks || !function || threads < 1 || threads > p.maxThreadsPerBlock)
        return record(cudaErrorInvalidValue);
    int warps = (threads + p.warpSize - 1) / p.warpSize;
    size_t by_shared = p.sharedMemPerMultiprocessor / (shared_bytes + p.reservedSharedMemPerBlock);
    *blocks = std::min({p.maxThreadsPerMultiProcessor / p.warpSize / warps,
                        p.maxBlocksPerMultiProcessor, (int)by_shared});
    if (shared_bytes > p.sharedMemPerBlockOptin) *blocks = 0;
    return cudaSuccess;
}
}
