/* Checked host allocation, and the stack-shaped arena that activations and workspaces live in. */
#ifndef CT_BASE_MEMORY_H
#define CT_BASE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* Alignment of everything handed out by an arena: a cache line, and the widest vector. */
#define CT_ALIGNMENT 64

/* *out = zeroed memory for count elements of `size` bytes, freed with free(). `what` names it in
 * the message of CT_ERR_MEMORY. count or size 0 gives a valid pointer. */
CT_NODISCARD ct_status ct_alloc(size_t count, size_t size, const char *what, void *out);

/* Grows *pointer (NULL at first) so that it holds at least `needed` elements, by doubling;
 * *capacity is updated. New elements are not initialised. Freed with free(). */
CT_NODISCARD ct_status ct_grow(void *pointer, size_t *capacity, size_t needed, size_t size,
                               const char *what);

/* *out = a copy of `text`, freed with free(). */
CT_NODISCARD ct_status ct_strdup(const char *text, char **out);

/* A stack over one block of memory that it does not own and never touches, so the block may be a
 * device's:
 *
 *   base                 mark                    used            capacity
 *   |---- A ----|-- B ----|------- C ------|-- D --|.................|
 *
 * Push places the next piece on top; release(mark) drops all above. With base NULL it only
 * measures: pushes return NULL pointers, and `peak` tells how large the block must be. */
typedef struct ct_arena {
    uint8_t *base;
    size_t capacity_bytes;
    size_t used_bytes;
    size_t peak_bytes;
} ct_arena;

/* base NULL with any capacity: measuring. base must be CT_ALIGNMENT-aligned. */
void ct_arena_init(ct_arena *arena, void *base, size_t capacity_bytes);

/* *out = the next `bytes` bytes, aligned to CT_ALIGNMENT, uninitialised (NULL when measuring).
 * CT_ERR_INTERNAL when it does not fit: plans are made before memory is. */
CT_NODISCARD ct_status ct_arena_push(ct_arena *arena, size_t bytes, void **out);

size_t ct_arena_mark(const ct_arena *arena);
void ct_arena_release(ct_arena *arena, size_t mark);

#endif
