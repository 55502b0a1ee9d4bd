/* The SIMT device: CUDA's execution model on the host's processor, to run the files of kernels/ and cuda/
 * without a GPU and to see faults that a GPU would hide. This header is what its parts share.
 *
 *   kernels/     ── compiled as C++ with device.h ──► engine: blocks, fibers, warps, shared memory,
 *        │                                             mma, and the checker of every access
 *        │ ctk::launch                                      ▲ run_grid
 *        ▼                                                  │
 *   runtime: streams, events, graphs (deferred), memory, failure injection ◄── calls of cuda/
 *        ▲                                                                     cuda*(), cublasLt*(),
 *        ├── products (cuBLASLt's subset), convolutions (cuDNN's subset) ◄──── cudnnBackend*()
 *        └── collectives between processes (NCCL's subset) ◄────────────────── nccl*()
 *
 * One operating-system thread drives the device at a time. Environment:
 *   CT_SIMT_SEED=n      order of blocks, threads and streams (default 1; printed with every fault)
 *   CT_SIMT_FAIL=k      the k-th fallible call fails (1 is the first); CT_SIMT_FAIL_KIND=alloc, copy,
 *                       launch, stream, library or any (default) says which calls are counted
 *   CT_SIMT_COUNT=file  at exit, the number of fallible calls of that kind is written there
 *   SIMT_DEVICES=n      as many devices are reported; each process uses the one that it sets
 *   SIMT_NCCL_DELAY_US, SIMT_NCCL_TIMEOUT_MS: nccl.h
 * A fault (a race, a bad access, divergent barriers, misuse of the API, a leak at exit) prints one
 * report that starts with "SIMT fault:" on standard error and ends the process with SIMT_FAULT_EXIT. */
#ifndef CT_TESTS_SIMT_SIMT_H
#define CT_TESTS_SIMT_SIMT_H

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>

namespace simt {

constexpr int SIMT_FAULT_EXIT = 86;

/* ---- engine (engine.cpp and its neighbours) ---------------------------------------------------- */

struct Grid {
    dim3 grid, block;
    size_t dynamic_shared_bytes;
    const void *kernel;          /* its address, for names in reports */
    std::function<void()> thread; /* what one thread runs; holds a copy of the arguments */
};

/* Runs every block of the grid, in a seeded order; returns when all have ended. */
void run_grid(const Grid &grid);

/* ---- runtime (runtime_*.cpp) ------------------------------------------------------------------- */

/* Puts work at the end of a stream (NULL: the legacy default stream), or into the graph that the stream
 * is being captured into. It runs later, at the latest when something waits for it. meanwhile:
 * the device may get a turn before the call returns. Fails when injected. */
cudaError_t enqueue_kernel(cudaStream_t stream, Grid grid);
cudaError_t enqueue_library_call(cudaStream_t stream, const char *name, std::function<void()> work,
                                 bool meanwhile = true);

/* Whether [address, address + bytes) lies in one live allocation of device memory. */
bool is_device_memory(const void *address, size_t bytes);
/* All of device memory lies in one reserved range: a quick first question. */
bool in_device_range(const void *address);

/* "device allocation of 4096 bytes at +128", "pinned host memory", ... for reports. */
const char *describe_address(const void *address);

/* Counts one fallible call of a kind ("alloc", "copy", "launch", "stream", "library"); true: fail it. */
bool injected(const char *kind);

/* Seeded numbers for adversarial orders. */
uint32_t random_below(uint32_t bound);

/* Prints the report with the seed, and ends the process. */
[[noreturn]] void fault(const char *format, ...) __attribute__((format(printf, 1, 2)));

} // namespace simt

#endif
