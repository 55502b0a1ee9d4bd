/* How an operation divides its scratch memory: one function lays it out, and runs twice, with NULL
 * to learn the size and with the memory itself. */
#ifndef CT_KERNELS_WORKSPACE_CUH
#define CT_KERNELS_WORKSPACE_CUH

#include <cstddef>
#include <cstdint>

#include "base/memory.h"

namespace ctk
{

/* The next `count` T of the workspace, CT_ALIGNMENT-aligned; NULL while it is only measured. */
template <class T> T *take(void *workspace, size_t *used, int64_t count)
{
    char *start = static_cast<char *>(workspace);
    if (start) start += *used;
    *used += ((size_t)count * sizeof(T) + CT_ALIGNMENT - 1) / CT_ALIGNMENT * CT_ALIGNMENT;
    return reinterpret_cast<T *>(start);
}

} // namespace ctk

#endif
