#include "simt/fiber.h"

#include <sys/mman.h>

#include <cstdint>

#include "simt/simt.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt
{

namespace
{

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t slot_bytes = 512 * 1024; /* frames are several times larger */
#else
constexpr size_t slot_bytes = 128 * 1024;
#endif
constexpr size_t guard_bytes = 4096;

char *stacks;
Fiber *running;

#if defined(__x86_64__)

void *host_stack_pointer;

extern "C" void simt_switch_stack(void **save, void *load);

/* Saves what the calling convention makes the callee's, on the old stack, and loads it from the new
 * one. Rounding modes are not switched: kernels do not change them. */
asm(R"(
    .text
    .p2align 4
    .globl simt_switch_stack
    .hidden simt_switch_stack
    .type simt_switch_stack, @function
simt_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size simt_switch_stack, . - simt_switch_stack
)");

void switch_in(Fiber *fiber)
{
    simt_switch_stack(&host_stack_pointer, fiber->stack_pointer);
}

void switch_out(Fiber *fiber)
{
    simt_switch_stack(&fiber->stack_pointer, host_stack_pointer);
}

void prepare(Fiber *fiber, void (*entry)())
{
    /* As if simt_switch_stack had been called by a function that "returns" to entry; the stack
     * pointer is 8 past a multiple of 16 there, as after any call. The zero above ends backtraces.
     */
    uint64_t *top = reinterpret_cast<uint64_t *>(fiber->stack + fiber->stack_bytes) - 2;
    top[1] = 0;
    top[0] = reinterpret_cast<uint64_t>(entry);
    for (int i = 1; i <= 6; i++) top[-i] = 0;
    fiber->stack_pointer = top - 6;
}

#else

ucontext_t host_context;

void switch_in(Fiber *fiber)
{
    swapcontext(&host_context, &fiber->context);
}

void switch_out(Fiber *fiber)
{
    swapcontext(&fiber->context, &host_context);
}

void prepare(Fiber *fiber, void (*entry)())
{
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack;
    fiber->context.uc_stack.ss_size = fiber->stack_bytes;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, entry, 0);
}

#endif

void (*fiber_entry)();

#if defined(__SANITIZE_ADDRESS__)
const void *host_stack;
size_t host_stack_bytes;

void start_switch(void **save, const void *stack, size_t bytes)
{
    __sanitizer_start_switch_fiber(save, stack, bytes);
}
void finish_switch_in(void *saved)
{
    __sanitizer_finish_switch_fiber(saved, &host_stack, &host_stack_bytes);
}
void finish_switch_out(void *saved)
{
    __sanitizer_finish_switch_fiber(saved, nullptr, nullptr);
}
#else
constexpr const void *host_stack = nullptr;
constexpr size_t host_stack_bytes = 0;

void start_switch(void **, const void *, size_t) {}
void finish_switch_in(void *) {}
void finish_switch_out(void *) {}
#endif

void enter()
{
    finish_switch_in(nullptr);
    fiber_entry();
}

} // namespace

void fiber_create(Fiber *fiber, int index, void (*entry)())
{
    if (!stacks) {
        void *range = mmap(nullptr, fiber_limit * slot_bytes, PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (range == MAP_FAILED)
            fault("no address space for the stacks of %d threads", fiber_limit);
        stacks = static_cast<char *>(range);
    }
    fiber->stack = stacks + (size_t)index * slot_bytes + guard_bytes;
    fiber->stack_bytes = slot_bytes - guard_bytes;
    fiber->fake_stack = nullptr;
    if (mprotect(fiber->stack, fiber->stack_bytes, PROT_READ | PROT_WRITE) != 0)
        fault("no memory for the stack of thread %d", index);
    fiber_entry = entry;
    prepare(fiber, enter);
}

bool in_fiber_stacks(const void *address)
{
    return stacks && (uintptr_t)address - (uintptr_t)stacks < fiber_limit * slot_bytes;
}

void fiber_resume(Fiber *fiber)
{
    void *saved = nullptr;
    running = fiber;
    start_switch(&saved, fiber->stack, fiber->stack_bytes);
    switch_in(fiber);
    finish_switch_out(saved);
    running = nullptr;
}

void fiber_suspend()
{
    Fiber *self = running;
    start_switch(&self->fake_stack, host_stack, host_stack_bytes);
    switch_out(self);
    finish_switch_in(self->fake_stack);
}

} // namespace simt
