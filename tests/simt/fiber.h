/* Fibers: stacks of their own that one operating-system thread switches between. A fiber runs its
 * entry function on a mapped stack with a guard page below it; the entry never returns, it suspends
 * itself for the last time instead. AddressSanitizer is told of every switch. */
#ifndef CT_TESTS_SIMT_FIBER_H
#define CT_TESTS_SIMT_FIBER_H

#include <cstddef>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace simt
{

struct Fiber {
    char *stack; /* lowest usable address */
    size_t stack_bytes;
    void *fake_stack; /* AddressSanitizer's */
#if defined(__x86_64__)
    void *stack_pointer;
#else
    ucontext_t context;
#endif
};

/* Stacks of all fibers lie in one reserved range, so that an address in another fiber's stack is
 * known as such. `index` counts from 0 to fiber_limit - 1. */
constexpr int fiber_limit = 1024;
void fiber_create(Fiber *fiber, int index, void (*entry)());
bool in_fiber_stacks(const void *address);

/* From the host's stack: runs the fiber until it suspends. */
void fiber_resume(Fiber *fiber);
/* From the running fiber: back to fiber_resume's caller. */
void fiber_suspend();

} // namespace simt

#endif
