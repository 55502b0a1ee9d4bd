/* What the parts of the engine share: the running grid, block and thread.
 *
 *   engine.cpp      grids, blocks, who runs next, barriers       shared.cpp   shared memory
 *   warp.cpp        operations of a warp's lanes                 atomics.cpp  atomics and fences
 *   mma.cpp         tensor cores                                 async.cpp    cp.async
 *   checker.cpp     every access to memory                       symbol.cpp   names for reports
 *
 * Blocks of a grid run one after the other; the threads of a block are fibers, one of which runs at
 * a time, until it ends or waits. So nothing here needs locks, and the order of all that happens is
 * given by the seed. A fiber that waits has a state other than `ready`; whoever completes what it
 * waits for puts it back in the queue. When nobody is ready and not all are done, the block is
 * stuck, and the report says who waits for whom. */
#ifndef CT_TESTS_SIMT_ENGINE_H
#define CT_TESTS_SIMT_ENGINE_H

#include <string>
#include <vector>

#include "simt/device.h"
#include "simt/fiber.h"
#include "simt/simt.h"

namespace simt
{

constexpr uint32_t warp_lanes = 32, block_threads = 1024, block_warps = block_threads / warp_lanes;
constexpr size_t shared_limit = 227 * 1024;       /* static and dynamic, compute capability 9.0 */
constexpr size_t static_shared_limit = 48 * 1024; /* what ptxas accepts */

enum class State { fresh, ready, at_barrier, at_warp, done };

struct PendingCopy {
    unsigned char *to;
    const void *from;
    int bytes;      /* read from `from`; zeros after, up to 16 */
    uint32_t group; /* counts commits */
};

struct Thread {
    uint32_t id; /* in the block; lane id % 32 of warp id / 32 */
    uint3 index;
    State state;
    Fiber *fiber; /* NULL before it starts and after it ends */
    bool fenced;  /* has called __threadfence since its last atomic operation */

    /* While it waits: for what, and where it called. */
    const char *operation;
    Location where;
    uint32_t mask;
    void *operand;
    bool predicate;

    std::vector<PendingCopy> copies;
    uint32_t copy_groups; /* committed so far */
};

struct Warp {
    uint32_t lanes;   /* that exist */
    uint32_t waiting; /* at a warp operation */
};

struct Block {
    const Grid *grid;
    uint64_t number; /* counts all blocks ever run, from 1 */
    uint3 index;
    uint32_t thread_count, done, at_barrier;
    int barrier_count; /* predicates that were true at the last barrier */
    uint32_t barrier_threads;
    const Thread *barrier_first; /* of those that wait at the barrier */
    Thread threads[block_threads];
    Warp warps[block_warps];
};

extern Block block;
extern Thread *current; /* NULL: the host has control */

/* The running fiber waits until another one calls wake() for it. */
void wait_in(State state);
void wake(Thread *thread);

/* Ends the process with a report of the running thread (NULL: of none) in its block and kernel. */
[[noreturn]] void fault_in(const Thread *thread, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
std::string text_of(Location where);

/* ---- shared.cpp */
void shared_begin_block(size_t dynamic_bytes);
bool in_shared_arena(const void *address);
/* The array that [address, address + bytes) lies in, as [*low, *high); false: in none. */
bool shared_extent(uintptr_t address, size_t bytes, uintptr_t *low, uintptr_t *high);
std::string describe_shared(uintptr_t address);
/* A 16-byte operand of ldmatrix or cp.async: a fault unless it is aligned and in shared memory. */
void require_shared_row(const char *operation, const void *address, Location where);
/* NaN in f16, bf16 and f32, and a large number as an integer. */
void poison(void *address, size_t bytes);

/* ---- warp.cpp: all lanes of `mask` deposit an operand; the last to arrive computes for all.
 * operands[lane] is NULL for lanes outside `lanes`. Returns in every lane when that is done. */
using Compute = void (*)(void *const operands[warp_lanes], uint32_t lanes, const Warp &warp);
void collective(const char *operation, uint32_t mask, void *operand, Compute compute,
                Location where);
void require_full_warp(const char *operation, Location where);

/* ---- symbol.cpp */
std::string function_name(const void *address); /* "ctk::softmax<float>", or the address in hex */

} // namespace simt

#endif
