/* Atomic operations and fences. One thread runs at a time, so the operations are plain ones; what
 * they order between blocks is the checker's. */
#include "simt/checker.h"
#include "simt/engine.h"

namespace simt
{

void memory_fence(bool beyond_block)
{
    if (beyond_block) current->fenced = true;
}

namespace
{

template <class T, class F> T update(T *address, const void *code, F f)
{
    if ((uintptr_t)address % sizeof(T))
        fault_in(current, "misaligned atomic operation at %p in %s", (void *)address,
                 function_name(code).c_str());
    if (checked) {
        checker::check(address, sizeof(T), checker::Access::atomic, code);
        checker::atomic_order(current->fenced);
        current->fenced = false;
    }
    const T old = *address;
    *address = f(old);
    return old;
}

} // namespace

} // namespace simt

#define SIMT_ATOMIC(name, T, expression)                                                           \
    T name(T *address, T value)                                                                    \
    {                                                                                              \
        return simt::update(address, __builtin_return_address(0),                                  \
                            [=](T old) -> T { return expression; });                               \
    }
#define SIMT_ATOMICS(T)                                                                            \
    SIMT_ATOMIC(atomicAdd, T, old + value)                                                         \
    SIMT_ATOMIC(atomicExch, T, ((void)old, value))
#define SIMT_INTEGER_ATOMICS(T)                                                                    \
    SIMT_ATOMICS(T)                                                                                \
    SIMT_ATOMIC(atomicMin, T, value < old ? value : old)                                           \
    SIMT_ATOMIC(atomicMax, T, old < value ? value : old)                                           \
    SIMT_ATOMIC(atomicAnd, T, old &value)                                                          \
    SIMT_ATOMIC(atomicOr, T, old | value)                                                          \
    SIMT_ATOMIC(atomicXor, T, old ^ value)                                                         \
    T atomicCAS(T *address, T compare, T value)                                                    \
    {                                                                                              \
        return simt::update(address, __builtin_return_address(0),                                  \
                            [=](T old) -> T { return old == compare ? value : old; });             \
    }
SIMT_INTEGER_ATOMICS(int)
SIMT_INTEGER_ATOMICS(unsigned)
SIMT_INTEGER_ATOMICS(unsigned long long)
SIMT_ATOMICS(float)
SIMT_ATOMIC(atomicAdd, double, old + value)
SIMT_ATOMIC(atomicSub, int, old - value)
SIMT_ATOMIC(atomicSub, unsigned, old - value)
SIMT_ATOMIC(atomicInc, unsigned, old >= value ? 0 : old + 1)
SIMT_ATOMIC(atomicDec, unsigned, old == 0 || old > value ? value : old - 1)
