/* The environment's say in what happens: seeded choices, injected failures, and the end of a
 * process that misused the device. */
#include "runtime.h"

#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace simt
{
namespace
{

struct Injection {
    uint64_t fail_at = environment_number("CT_SIMT_FAIL", 0);
    const char *kind = "any";
    uint64_t calls = 0;

    Injection()
    {
        static const char *const kinds[] = {"alloc", "copy", "launch", "stream", "library", "any"};
        const char *wanted = getenv("CT_SIMT_FAIL_KIND");
        if (!wanted) return;
        kind = nullptr;
        for (const char *known : kinds)
            if (strcmp(wanted, known) == 0) kind = known;
        if (!kind)
            fault("CT_SIMT_FAIL_KIND is \"%s\"; known are alloc, copy, launch, stream, library "
                  "and any",
                  wanted);
    }
};

Injection &injection()
{
    static Injection instance;
    return instance;
}

uint64_t seed()
{
    static const uint64_t value = environment_number("CT_SIMT_SEED", 1);
    return value;
}

} // namespace

uint64_t environment_number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    if (!text || !*text) return otherwise;
    char *end;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (*end || errno || *text == '-') {
        fprintf(stderr, "SIMT fault: %s is \"%s\", not a number\n", name, text);
        _exit(SIMT_FAULT_EXIT);
    }
    return value;
}

/* SplitMix64 (Steele, Lea and Flood, 2014), scaled to the bound without a division. */
uint32_t random_below(uint32_t bound)
{
    static uint64_t state = seed();
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return (uint32_t)(((z >> 32) * bound) >> 32);
}

bool injected(const char *kind)
{
    start_exit_checks();
    Injection &state = injection();
    if (strcmp(state.kind, "any") != 0 && strcmp(state.kind, kind) != 0) return false;
    return ++state.calls == state.fail_at;
}

void write_call_count()
{
    const char *path = getenv("CT_SIMT_COUNT");
    if (!path) return;
    FILE *file = fopen(path, "w");
    if (!file || fprintf(file, "%llu\n", (unsigned long long)injection().calls) < 0 ||
        fclose(file) != 0)
        fault("CT_SIMT_COUNT: cannot write %s", path);
}

/* One write, because threads of the host may print at the same time. */
void fault(const char *format, ...)
{
    char text[4096];
    int used = snprintf(text, sizeof text, "SIMT fault: ");
    va_list arguments;
    va_start(arguments, format);
    int room = (int)sizeof text - used;
    int wrote = vsnprintf(text + used, (size_t)room, format, arguments);
    va_end(arguments);
    used += wrote < room ? wrote : room - 1;
    char ending[64];
    int tail =
        snprintf(ending, sizeof ending, " (CT_SIMT_SEED=%llu)\n", (unsigned long long)seed());
    if (used > (int)sizeof text - tail) used = (int)sizeof text - tail;
    memcpy(text + used, ending, (size_t)tail);
    if (write(STDERR_FILENO, text, (size_t)(used + tail)) < 0) {
        /* Nobody listens; the exit status still tells. */
    }
    _exit(SIMT_FAULT_EXIT);
}

} // namespace simt
