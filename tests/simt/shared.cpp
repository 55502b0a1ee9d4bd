/* Shared memory of the running block: one arena, in which arrays are placed as the block first asks
 * for them, with gaps between so that an index past the end is no other array's element. */
#include <sys/mman.h>

#include <cstdio>
#include <cstring>

#include "simt/checker.h"
#include "simt/engine.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size)   ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

namespace simt
{

namespace
{

constexpr size_t most_arrays = 64, gap = 128;
/* Gaps and alignment come on top of what a GPU has. */
constexpr size_t arena_bytes = (shared_limit + (most_arrays + 2) * 3 * gap + 4095) / 4096 * 4096;

struct Extent {
    const char *name;
    uintptr_t low, high;
};

struct Arena {
    unsigned char *memory;
    size_t used; /* all arrays and gaps so far */
    size_t static_bytes, dynamic_bytes;
    Extent arrays[most_arrays];
    size_t count;
    unsigned char *dynamic; /* NULL: the block has not asked for it */
} arena;

void map_arena()
{
    /* A page that is never accessible on both sides. */
    void *range =
        mmap(nullptr, arena_bytes + 2 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (range == MAP_FAILED ||
        mprotect((char *)range + 4096, arena_bytes, PROT_READ | PROT_WRITE) != 0)
        fault("no memory for the block's shared memory");
    arena.memory = (unsigned char *)range + 4096;
    ASAN_POISON_MEMORY_REGION(arena.memory, arena_bytes);
}

/* At a multiple of `alignment` but not of twice that, up to 128. */
unsigned char *place(const char *name, size_t bytes, size_t alignment)
{
    if (arena.count == most_arrays) fault_in(current, "more than %zu shared arrays", most_arrays);
    if (arena.static_bytes > static_shared_limit)
        fault_in(current, "%zu bytes of static shared memory; at most %zu compile",
                 arena.static_bytes, static_shared_limit);
    if (arena.static_bytes + arena.dynamic_bytes > shared_limit)
        fault_in(current, "%zu bytes of static and %zu of dynamic shared memory; the limit is %zu",
                 arena.static_bytes, arena.dynamic_bytes, shared_limit);
    const size_t period = alignment <= gap ? 2 * alignment : alignment;
    size_t offset = (arena.used + gap + period - 1) / period * period;
    if (alignment <= gap) offset += alignment;
    unsigned char *address = arena.memory + offset;
    arena.used = offset + bytes;
    arena.arrays[arena.count++] = {name, (uintptr_t)address, (uintptr_t)address + bytes};
    ASAN_UNPOISON_MEMORY_REGION(address, bytes);
    poison(address, bytes);
    return address;
}

} // namespace

void poison(void *address, size_t bytes)
{
    /* 0x7fff is a NaN of both 16-bit formats, 0x7fff7fff one of f32. */
    auto *at = static_cast<unsigned char *>(address);
    size_t filled = bytes < 2 ? bytes : 2;
    for (size_t i = 0; i < filled; i++) at[i] = ((uintptr_t)at + i) & 1 ? 0x7f : 0xff;
    for (size_t next; filled < bytes; filled += next) {
        next = filled < bytes - filled ? filled : bytes - filled;
        memcpy(at + filled, at, next);
    }
}

void shared_begin_block(size_t dynamic_bytes)
{
    if (!arena.memory) map_arena();
    ASAN_POISON_MEMORY_REGION(arena.memory, arena.used);
    arena.used = arena.static_bytes = arena.count = 0;
    arena.dynamic_bytes = dynamic_bytes;
    arena.dynamic = nullptr;
}

void *shared_array(SharedArray *array, size_t bytes, size_t alignment)
{
    if (array->block != block.number) {
        arena.static_bytes += bytes;
        array->address = place(array->name, bytes, alignment);
        array->block = block.number;
    }
    return array->address;
}

void *dynamic_shared()
{
    constexpr size_t alignment = 128;
    if (!arena.dynamic)
        arena.dynamic = place("dynamic shared memory", arena.dynamic_bytes, alignment);
    return arena.dynamic;
}

bool in_shared_arena(const void *address)
{
    return (uintptr_t)address - (uintptr_t)arena.memory < arena_bytes;
}

bool shared_extent(uintptr_t address, size_t bytes, uintptr_t *low, uintptr_t *high)
{
    for (size_t i = 0; i < arena.count; i++) {
        const Extent &array = arena.arrays[i];
        if (address < array.low || address + bytes > array.high) continue;
        *low = array.low;
        *high = array.high;
        return true;
    }
    return false;
}

std::string describe_shared(uintptr_t address)
{
    const Extent *nearest = nullptr; /* the last that begins at or before it */
    for (size_t i = 0; i < arena.count; i++)
        if (arena.arrays[i].low <= address && (!nearest || arena.arrays[i].low > nearest->low))
            nearest = &arena.arrays[i];
    if (!nearest) return "before the first shared array";
    char text[256];
    snprintf(text, sizeof text, "%s of %zu bytes at +%zu", nearest->name,
             (size_t)(nearest->high - nearest->low), (size_t)(address - nearest->low));
    return text;
}

void require_shared_row(const char *operation, const void *address, Location where)
{
    uintptr_t low, high;
    if ((uintptr_t)address % 16)
        fault_in(current, "misaligned address %p for %s at %s: 16 bytes wanted", address, operation,
                 text_of(where).c_str());
    if (!in_shared_arena(address) || !shared_extent((uintptr_t)address, 16, &low, &high))
        fault_in(current, "%s at %s: %p is outside shared memory's arrays", operation,
                 text_of(where).c_str(), address);
}

} // namespace simt
