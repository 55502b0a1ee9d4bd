#include "allocations.h"

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__ || !defined __GLIBC__

long ct_own_allocations(void)
{
    return -1;
}

#else

#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>

/* An executable's malloc replaces the C library's, for the libraries too. The caller's address
 * tells them apart: ours lies in the executable's own text, whose bounds the linker defines. */
extern const char __executable_start[], etext[];

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);

static atomic_long own_allocations;

static void count(const void *caller)
{
    if ((const char *)caller >= __executable_start && (const char *)caller < etext)
        atomic_fetch_add(&own_allocations, 1);
}

void *malloc(size_t bytes)
{
    count(__builtin_return_address(0));
    return __libc_malloc(bytes);
}

void *calloc(size_t number, size_t bytes)
{
    count(__builtin_return_address(0));
    return __libc_calloc(number, bytes);
}

void *realloc(void *memory, size_t bytes)
{
    count(__builtin_return_address(0));
    return __libc_realloc(memory, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    count(__builtin_return_address(0));
    return __libc_memalign(alignment, bytes);
}

long ct_own_allocations(void)
{
    return atomic_load(&own_allocations);
}

#endif
