/* The device side of CUDA for the host's compiler: what kernels/device.cuh includes instead of
 * nvcc's own declarations. Everything that waits, exchanges or touches the device's state is a call
 * into the engine; the numerical functions are in device_math.h.
 *
 * A kernel runs once for each thread, on a fiber, in an order that CUDA leaves open. Collective
 * operations take the caller's line by default arguments, for reports. */
#ifndef CT_TESTS_SIMT_DEVICE_H
#define CT_TESTS_SIMT_DEVICE_H

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "simt/device_math.h"

/* __global__, __device__, __host__ and __forceinline__ come from the toolkit's host_defines.h. */
#ifndef __launch_bounds__
#define __launch_bounds__(...)
#endif

/* Constant during a kernel's run in one fiber, so the compiler may keep what it has read. */
#define threadIdx (::simt::thread_index())
#define blockIdx  (::simt::block_index())
#define blockDim  (::simt::block_size())
#define gridDim   (::simt::grid_size())
constexpr int warpSize = 32;

namespace simt
{

/* Where a kernel called, for reports. */
struct Location {
    const char *file;
    int line;
};
constexpr Location here(const char *file = __builtin_FILE(), int line = __builtin_LINE())
{
    return {file, line};
}

uint3 thread_index() __attribute__((const));
uint3 block_index() __attribute__((const));
dim3 block_size() __attribute__((const));
dim3 grid_size() __attribute__((const));

/* ---- shared memory ------------------------------------------------------------------------- */

/* One static shared array: its place in the running block's memory. */
struct SharedArray {
    const char *name;
    unsigned char *address;
    uint64_t block; /* the block for which `address` holds; blocks count from 1 */
};

/* Aligned to `alignment` and, on purpose, to no more. */
void *shared_array(SharedArray *array, size_t bytes, size_t alignment);
void *dynamic_shared();

#define CTK_SHARED(type, name, count)                                                              \
    static ::simt::SharedArray name##_place = {#name, nullptr, 0};                                 \
    type *const name = static_cast<type *>(                                                        \
        ::simt::shared_array(&name##_place, sizeof(type) * (size_t)(count), alignof(type)))
#define CTK_DYNAMIC_SHARED(type, name)                                                             \
    type *const name = static_cast<type *>(::simt::dynamic_shared())

/* ---- barriers and warps -------------------------------------------------------------------- */

enum class Reduction { none, count, all, any };
int block_barrier(Reduction reduction, bool predicate, Location where);
void warp_barrier(uint32_t mask, Location where);

enum class Shuffle { index, up, down, exclusive_or };
uint64_t shuffle(Shuffle kind, uint32_t mask, uint64_t value, int lane, int width, int value_bytes,
                 Location where);
uint32_t ballot(uint32_t mask, bool predicate, Location where);
uint32_t match_any(uint32_t mask, uint64_t value, Location where);
enum class WarpSum { add, minimum, maximum, bit_and, bit_or, bit_xor };
int64_t warp_reduce(WarpSum kind, uint32_t mask, int64_t value, Location where);
uint32_t active_mask();
void memory_fence(bool beyond_block);
[[noreturn]] void trap(Location where);

template <class T>
T shuffle_value(Shuffle kind, uint32_t mask, T value, int lane, int width, Location where)
{
    static_assert(std::is_trivially_copyable<T>::value && sizeof(T) <= 8,
                  "no shuffle of this type");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = shuffle(kind, mask, bits, lane, width, sizeof value, where);
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* ---- tensor cores and asynchronous copies: see kernels/mma.cuh ----------------------------- */

template <class T>
void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                  Location where = here());
template <>
void mma_m16n8k16<__nv_bfloat16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                 Location where);
template <>
void mma_m16n8k16<__half>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                          Location where);
void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                      Location where = here());

void ldmatrix_x4(uint32_t (&r)[4], const void *row, Location where = here());
void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row, Location where = here());
void ldmatrix_x2(uint32_t (&r)[2], const void *row, Location where = here());
void ldmatrix_x2_trans(uint32_t (&r)[2], const void *row, Location where = here());

void cp_async_16(void *shared, const void *global, int bytes = 16, Location where = here());
void cp_async_commit();
void cp_async_wait_groups(int pending, Location where);
template <int N> void cp_async_wait(Location where = here())
{
    cp_async_wait_groups(N, where);
}

/* To the nearest, ties away from zero; infinities and NaN stay. */
inline uint32_t tf32(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & ~0x1fffu;
}

/* ---- launches ------------------------------------------------------------------------------ */

/* A kernel's arguments: plain data, copied bit by bit at the launch as CUDA does. */
template <class... P> struct Arguments {
};
template <class First, class... Rest> struct Arguments<First, Rest...> {
    First first;
    Arguments<Rest...> rest;
};

inline Arguments<> pack_arguments()
{
    return {};
}
template <class First, class... Rest>
Arguments<First, Rest...> pack_arguments(First first, Rest... rest)
{
    return {first, pack_arguments(rest...)};
}

template <class F, class... Done> void call(F f, const Arguments<> &, const Done &...done)
{
    f(done...);
}
template <class F, class First, class... Rest, class... Done>
void call(F f, const Arguments<First, Rest...> &left, const Done &...done)
{
    call(f, left.rest, done..., left.first);
}

struct Launch {
    const void *kernel;
    dim3 grid, block;
    size_t dynamic_shared_bytes;
    cudaStream_t stream;
    const void *arguments; /* copied by launch() */
    size_t argument_bytes;
    void (*invoke)(const void *kernel, const void *arguments);
};
cudaError_t launch(const Launch &launch);

template <class... P> void invoke(const void *kernel, const void *arguments)
{
    call(reinterpret_cast<void (*)(P...)>(const_cast<void *>(kernel)),
         *static_cast<const Arguments<P...> *>(arguments));
}

/* The host's clock: time passes on the SIMT device, but it is not a GPU's. */
uint64_t clock_nanoseconds();

} // namespace simt

namespace ctk
{

inline uint64_t global_nanoseconds()
{
    return simt::clock_nanoseconds();
}

template <class... P, class... A>
cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, A &&...arguments)
{
    static_assert((std::is_trivially_copyable<P>::value && ... && true),
                  "a kernel's parameters are copied bit by bit");
    using Packed = simt::Arguments<P...>;
    static_assert(sizeof(Packed) <= 4096, "a kernel's parameters hold 4 KiB");
    const Packed packed = simt::pack_arguments<P...>(static_cast<P>(arguments)...);
    return simt::launch({reinterpret_cast<const void *>(kernel), grid, block, shared_bytes, stream,
                         &packed, sizeof packed, simt::invoke<P...>});
}

} // namespace ctk

/* ---- CUDA's own names ---------------------------------------------------------------------- */

inline void __syncthreads(simt::Location where = simt::here())
{
    simt::block_barrier(simt::Reduction::none, false, where);
}
inline int __syncthreads_count(int predicate, simt::Location where = simt::here())
{
    return simt::block_barrier(simt::Reduction::count, predicate, where);
}
inline int __syncthreads_and(int predicate, simt::Location where = simt::here())
{
    return simt::block_barrier(simt::Reduction::all, predicate, where);
}
inline int __syncthreads_or(int predicate, simt::Location where = simt::here())
{
    return simt::block_barrier(simt::Reduction::any, predicate, where);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, simt::Location where = simt::here())
{
    simt::warp_barrier(mask, where);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, simt::Location where = simt::here())
{
    return simt::shuffle_value(simt::Shuffle::index, mask, value, lane, width, where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32,
                 simt::Location where = simt::here())
{
    return simt::shuffle_value(simt::Shuffle::up, mask, value, (int)distance, width, where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32,
                   simt::Location where = simt::here())
{
    return simt::shuffle_value(simt::Shuffle::down, mask, value, (int)distance, width, where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32,
                  simt::Location where = simt::here())
{
    return simt::shuffle_value(simt::Shuffle::exclusive_or, mask, value, lane_mask, width, where);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, simt::Location where = simt::here())
{
    return simt::ballot(mask, predicate, where);
}
inline int __any_sync(unsigned mask, int predicate, simt::Location where = simt::here())
{
    return simt::ballot(mask, predicate, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate, simt::Location where = simt::here())
{
    return simt::ballot(mask, !predicate, where) == 0;
}
/* Only the caller is certain to be active: CUDA promises no more. */
inline unsigned __activemask()
{
    return simt::active_mask();
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value, simt::Location where = simt::here())
{
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "no match of this type");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    return simt::match_any(mask, bits, where);
}

#define SIMT_REDUCE(name, kind)                                                                    \
    inline unsigned name(unsigned mask, unsigned value, simt::Location where = simt::here())       \
    {                                                                                              \
        return (unsigned)simt::warp_reduce(simt::WarpSum::kind, mask, value, where);               \
    }                                                                                              \
    inline int name(unsigned mask, int value, simt::Location where = simt::here())                 \
    {                                                                                              \
        return (int)simt::warp_reduce(simt::WarpSum::kind, mask, value, where);                    \
    }
SIMT_REDUCE(__reduce_add_sync, add)
SIMT_REDUCE(__reduce_min_sync, minimum)
SIMT_REDUCE(__reduce_max_sync, maximum)
SIMT_REDUCE(__reduce_and_sync, bit_and)
SIMT_REDUCE(__reduce_or_sync, bit_or)
SIMT_REDUCE(__reduce_xor_sync, bit_xor)
#undef SIMT_REDUCE

inline void __threadfence_block()
{
    simt::memory_fence(false);
}
inline void __threadfence()
{
    simt::memory_fence(true);
}
inline void __threadfence_system()
{
    simt::memory_fence(true);
}
inline void __trap(simt::Location where = simt::here())
{
    simt::trap(where);
}

/* Reads and writes with a caching hint. */
#define SIMT_LOAD(name)                                                                            \
    template <class T> inline T name(const T *address)                                             \
    {                                                                                              \
        return *address;                                                                           \
    }
SIMT_LOAD(__ldg)
SIMT_LOAD(__ldca)
SIMT_LOAD(__ldcg)
SIMT_LOAD(__ldcs)
SIMT_LOAD(__ldlu)
SIMT_LOAD(__ldcv)
#undef SIMT_LOAD
#define SIMT_STORE(name)                                                                           \
    template <class T> inline void name(T *address, T value)                                       \
    {                                                                                              \
        *address = value;                                                                          \
    }
SIMT_STORE(__stwb)
SIMT_STORE(__stcg)
SIMT_STORE(__stcs)
SIMT_STORE(__stwt)
#undef SIMT_STORE

#define SIMT_ATOMIC(name, T) T name(T *address, T value);
#define SIMT_ATOMICS(T)                                                                            \
    SIMT_ATOMIC(atomicAdd, T)                                                                      \
    SIMT_ATOMIC(atomicExch, T)
#define SIMT_INTEGER_ATOMICS(T)                                                                    \
    SIMT_ATOMICS(T)                                                                                \
    SIMT_ATOMIC(atomicMin, T)                                                                      \
    SIMT_ATOMIC(atomicMax, T)                                                                      \
    SIMT_ATOMIC(atomicAnd, T)                                                                      \
    SIMT_ATOMIC(atomicOr, T)                                                                       \
    SIMT_ATOMIC(atomicXor, T)                                                                      \
    T atomicCAS(T *address, T compare, T value);
SIMT_INTEGER_ATOMICS(int)
SIMT_INTEGER_ATOMICS(unsigned)
SIMT_INTEGER_ATOMICS(unsigned long long)
SIMT_ATOMICS(float)
SIMT_ATOMIC(atomicAdd, double)
int atomicSub(int *address, int value);
unsigned atomicSub(unsigned *address, unsigned value);
unsigned atomicInc(unsigned *address, unsigned limit);
unsigned atomicDec(unsigned *address, unsigned limit);
#undef SIMT_INTEGER_ATOMICS
#undef SIMT_ATOMICS
#undef SIMT_ATOMIC

#endif
