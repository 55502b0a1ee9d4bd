/* The checker of every access to memory that a kernel makes. Kernels are compiled with
 * -fsanitize=thread, whose hooks checker.cpp defines (this is not ThreadSanitizer's library).
 *
 * An access is wrong when it
 * - lies outside what a kernel may touch: live device allocations, the block's shared arrays, the
 *   thread's own stack, constants of the program;
 * - reads shared memory that this block has not written, or that a cp.async may still be writing;
 * - conflicts with an earlier one: same bytes, another thread, one of the two a write, not both
 *   atomic, and nothing that orders them. What orders: the end of a launch; __syncthreads for
 *   the block; __syncwarp for its lanes (shuffles and votes order no memory accesses, says the CUDA
 *   programming guide); for other blocks, __threadfence and an atomic operation after it, and an
 *   atomic operation of the other block later.
 *
 * How it knows. All that happens has an order, so a counter is the clock: it advances whenever a
 * grid or block begins, a barrier opens, or a __syncwarp completes. Memory is shadowed by cells
 * that remember time and thread of the last write and of the last reads. An access at an earlier
 * time than the grid's, the block's or the barrier's beginning is ordered by that alone; nothing
 * need ever be cleared. A cell covers 4 bytes, or 1 or 2 once a page of 4 KiB sees an access that
 * small. */
#ifndef CT_TESTS_SIMT_CHECKER_H
#define CT_TESTS_SIMT_CHECKER_H

#include "simt/engine.h"

namespace simt
{

/* Whether the program's kernels were compiled to call the hooks: they say so before main. The hooks
 * exist only where no other sanitizer is at work. */
#if defined(CT_SIMT_CHECKED)
extern bool checked;
#else
constexpr bool checked = false;
#endif

namespace checker
{

/* A cp.async begins to write at once and ends when it is waited for. */
enum class Access { read, write, atomic, async_begin, async_end };

void begin_grid();
void begin_block();
void end_grid();
void resume(const Thread *thread); /* NULL: the host */
void block_barrier();
void warp_barrier(uint32_t warp, uint32_t lanes);
/* An atomic operation of a thread that has fenced before it, or of one that has not. */
void atomic_order(bool fenced);

/* Checks and notes [address, address + bytes), outside the running thread's own stack. `code` lies
 * in the function that accesses, for the report. */
void access(uintptr_t address, size_t bytes, Access kind, const void *code);

/* The running thread's stack: most accesses end here. `thread` is NULL in host code. */
struct Running {
    const Thread *thread;
    uintptr_t stack;
    size_t stack_bytes;
};
extern Running running;

inline void check(const void *address, size_t bytes, Access kind, const void *code)
{
    if (!running.thread || (uintptr_t)address - running.stack < running.stack_bytes) return;
    access((uintptr_t)address, bytes, kind, code);
}

} // namespace checker

} // namespace simt

#endif
