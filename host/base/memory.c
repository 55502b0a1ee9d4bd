#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

ct_status ct_alloc(size_t count, size_t size, const char *what, void *out)
{
    void *block = calloc(count ? count : 1, size ? size : 1);
    if (!block)
        return ct_fail(CT_ERR_MEMORY, "out of host memory: %zu x %zu bytes for %s", count, size,
                       what);
    memcpy(out, &block, sizeof block);
    return CT_OK;
}

ct_status ct_grow(void *pointer, size_t *capacity, size_t needed, size_t size, const char *what)
{
    if (needed <= *capacity) return CT_OK;
    size_t count = *capacity ? *capacity : 16;
    while (count < needed) {
        if (count > SIZE_MAX / 2 / size)
            return ct_fail(CT_ERR_MEMORY, "out of host memory: %zu elements for %s", needed, what);
        count *= 2;
    }
    void *old, *block;
    memcpy(&old, pointer, sizeof old);
    block = realloc(old, count * size);
    if (!block)
        return ct_fail(CT_ERR_MEMORY, "out of host memory: %zu x %zu bytes for %s", count, size,
                       what);
    memcpy(pointer, &block, sizeof block);
    *capacity = count;
    return CT_OK;
}

ct_status ct_strdup(const char *text, char **out)
{
    size_t bytes = strlen(text) + 1;
    CT_TRY(ct_alloc(bytes, 1, "a string", out));
    memcpy(*out, text, bytes);
    return CT_OK;
}

void ct_arena_init(ct_arena *arena, void *base, size_t capacity_bytes)
{
    *arena = (ct_arena){.base = base, .capacity_bytes = capacity_bytes};
}

ct_status ct_arena_push(ct_arena *arena, size_t bytes, void **out)
{
    size_t rounded = (bytes + CT_ALIGNMENT - 1) / CT_ALIGNMENT * CT_ALIGNMENT;
    if (arena->base && rounded > arena->capacity_bytes - arena->used_bytes)
        return ct_fail(CT_ERR_INTERNAL, "arena of %zu bytes is full: %zu used, %zu more asked for",
                       arena->capacity_bytes, arena->used_bytes, bytes);
    *out = arena->base ? arena->base + arena->used_bytes : NULL;
    arena->used_bytes += rounded;
    if (arena->used_bytes > arena->peak_bytes) arena->peak_bytes = arena->used_bytes;
    return CT_OK;
}

size_t ct_arena_mark(const ct_arena *arena)
{
    return arena->used_bytes;
}

void ct_arena_release(ct_arena *arena, size_t mark)
{
    arena->used_bytes = mark;
}
