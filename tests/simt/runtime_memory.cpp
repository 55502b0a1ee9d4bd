/* Device memory and pinned memory.
 *
 * Device memory is one reserved range of addresses. Each allocation has pages of its own, pushed
 * against their end (as near as 256-byte alignment allows) and followed by at least one page that
 * is never accessible:
 *
 *   ..guard│head slack│allocation (256-aligned)│slack < 256│guard│..
 *
 * Addresses are used once, until the range is exhausted, so that a stale pointer hits nothing. All
 * pages are closed (PROT_NONE) while the host has control and opened while work runs. Slack is
 * poisoned for AddressSanitizer; without it, is_device_memory is exact to the byte. */
#include "runtime.h"

#include <sys/mman.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

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

constexpr size_t PAGE = 4096;
constexpr size_t ALIGNMENT = 256; /* cudaMalloc's */
constexpr size_t RANGE_BYTES = (size_t)256 << 30;

struct Allocation {
    uintptr_t address;
    size_t bytes;
    uintptr_t first_page;
    size_t page_bytes;
    bool live;
};

struct Pinned {
    size_t bytes;
    bool registered; /* cudaHostRegister: the memory itself is the caller's */
};

struct Memory {
    uintptr_t base;
    uint32_t *owner;                     /* of each page: 1 + index into allocations; 0: none */
    std::vector<Allocation> allocations; /* all there ever were, for reports */
    std::map<uintptr_t, size_t> by_page; /* live ones: first page -> index */
    std::map<uintptr_t, Pinned> pinned;
    uintptr_t cursor;
    size_t used = 0, limit;
    bool open = false;
    struct sigaction earlier;

    Memory();
};

Memory *instance; /* NULL until the first allocation */

/* Device addresses are the runtime's business; any other fault goes back to whoever handled it
 * before, by running the faulting instruction again under the earlier handler. */
void on_bad_access(int signal, siginfo_t *info, void *)
{
    if (instance && in_device_range(info->si_addr)) {
        const char *work = running_work();
        if (work)
            fault("%s touched memory that is not its own: %s", work,
                  describe_address(info->si_addr));
        fault("host code touched device memory: %s", describe_address(info->si_addr));
    }
    sigaction(signal, &instance->earlier, nullptr);
}

Memory::Memory()
{
    limit = environment_number("CT_SIMT_MEMORY_MIB", 8192) << 20;
    void *range =
        mmap(nullptr, RANGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    void *table = mmap(nullptr, RANGE_BYTES / PAGE * sizeof *owner, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED || table == MAP_FAILED)
        fault("cannot reserve %zu GiB of addresses for device memory", RANGE_BYTES >> 30);
    base = (uintptr_t)range;
    owner = (uint32_t *)table;
    cursor = base + PAGE;
    struct sigaction action = {};
    action.sa_sigaction = on_bad_access;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    if (sigaction(SIGSEGV, &action, &earlier) != 0) fault("cannot install a handler of SIGSEGV");
}

Memory &memory()
{
    if (!instance) instance = new Memory; /* never destroyed: handlers refer to it */
    return *instance;
}

/* The first free run of pages at or after `start`, with a guard page behind it; 0 if there is none.
 */
uintptr_t find_room(Memory &state, uintptr_t start, size_t page_bytes)
{
    uintptr_t end = state.base + RANGE_BYTES;
    for (auto next = state.by_page.lower_bound(start);; ++next) {
        uintptr_t limit = next == state.by_page.end() ? end : next->first;
        if (limit >= start && limit - start >= page_bytes + PAGE) return start;
        if (next == state.by_page.end()) return 0;
        start = next->first + state.allocations[next->second].page_bytes + PAGE;
    }
}

void protect(const Allocation &allocation, int protection)
{
    if (mprotect((void *)allocation.first_page, allocation.page_bytes, protection) != 0)
        fault("cannot change the protection of device memory");
}

/* NULL when `address` lies in no live allocation, its slack included. */
const Allocation *allocation_at(const void *address)
{
    if (!in_device_range(address)) return nullptr;
    uint32_t owner = instance->owner[((uintptr_t)address - instance->base) / PAGE];
    return owner ? &instance->allocations[owner - 1] : nullptr;
}

const std::pair<const uintptr_t, Pinned> *pinned_at(const void *address)
{
    if (!instance) return nullptr;
    auto next = instance->pinned.upper_bound((uintptr_t)address);
    if (next == instance->pinned.begin()) return nullptr;
    --next;
    return (uintptr_t)address - next->first < next->second.bytes ? &*next : nullptr;
}

} // namespace

bool in_device_range(const void *address)
{
    return instance && (uintptr_t)address - instance->base < RANGE_BYTES;
}

bool is_device_memory(const void *address, size_t bytes)
{
    const Allocation *allocation = allocation_at(address);
    if (!allocation || (uintptr_t)address < allocation->address) return false;
    size_t offset = (uintptr_t)address - allocation->address;
    return offset <= allocation->bytes && bytes <= allocation->bytes - offset;
}

size_t device_bytes_used()
{
    return memory().used;
}

size_t device_bytes_total()
{
    return memory().limit;
}

const char *describe_address(const void *address)
{
    static thread_local char text[256];
    if (!in_device_range(address)) {
        const auto *pinned = pinned_at(address);
        if (pinned)
            snprintf(text, sizeof text, "%p, pinned host memory of %zu bytes at +%zu", address,
                     pinned->second.bytes, (uintptr_t)address - pinned->first);
        else snprintf(text, sizeof text, "%p, host memory", address);
        return text;
    }
    /* The nearest allocation, live or freed; the newest of several as near. */
    const Allocation *nearest = nullptr;
    uintptr_t at = (uintptr_t)address, distance = 0;
    for (const Allocation &candidate : instance->allocations) {
        uintptr_t start = candidate.address, end = start + candidate.bytes;
        uintptr_t away = at < start ? start - at : at < end ? 0 : at - end + 1;
        if (nearest && away > distance) continue;
        nearest = &candidate;
        distance = away;
    }
    if (!nearest) {
        snprintf(text, sizeof text, "%p, device address that was never allocated", address);
        return text;
    }
    const char *state = nearest->live ? "" : "freed ";
    uintptr_t end = nearest->address + nearest->bytes;
    if (at < nearest->address)
        snprintf(text, sizeof text, "%p, %zu bytes before a %sdevice allocation of %zu bytes",
                 address, nearest->address - at, state, nearest->bytes);
    else if (at < end)
        snprintf(text, sizeof text, "%p, %sdevice allocation of %zu bytes at +%zu", address, state,
                 nearest->bytes, at - nearest->address);
    else
        snprintf(text, sizeof text,
                 "%p, %zu bytes past the end of a %sdevice allocation of %zu bytes", address,
                 at - end, state, nearest->bytes);
    return text;
}

void *device_allocate(size_t bytes)
{
    Memory &state = memory();
    if (!observing() && bytes > state.limit - state.used) return nullptr;
    size_t page_bytes = (bytes + PAGE - 1) / PAGE * PAGE;
    uintptr_t first_page = find_room(state, state.cursor, page_bytes);
    if (!first_page) first_page = find_room(state, state.base + PAGE, page_bytes);
    if (!first_page) return nullptr;
    uintptr_t address = first_page + ((page_bytes - bytes) & ~(ALIGNMENT - 1));
    if (!observing()) {
        if (mprotect((void *)first_page, page_bytes, PROT_READ | PROT_WRITE) != 0) return nullptr;
        /* Opening and closing costs as many pages as there are. A refusal changes nothing else. */
        (void)madvise((void *)first_page, page_bytes, MADV_HUGEPAGE);
        memset((void *)first_page, 0xff, page_bytes);
        ASAN_POISON_MEMORY_REGION((void *)first_page, address - first_page);
        ASAN_POISON_MEMORY_REGION((void *)(address + bytes),
                                  first_page + page_bytes - address - bytes);
    }

    size_t index = state.allocations.size();
    state.allocations.push_back({address, bytes, first_page, page_bytes, true});
    state.by_page[first_page] = index;
    for (size_t page = 0; page < page_bytes / PAGE; page++)
        state.owner[(first_page - state.base) / PAGE + page] = (uint32_t)index + 1;
    state.used += bytes;
    state.cursor = first_page + page_bytes + PAGE;
    if (!state.open) protect(state.allocations[index], PROT_NONE);
    object_created((void *)address, "device allocation");
    return (void *)address;
}

void device_release(void *address, const char *call)
{
    if (in_device_range(address) && !is_device_memory(address, 0))
        fault("%s: not a live allocation: %s", call, describe_address(address));
    object_destroyed(address, "device allocation", call);
    Memory &state = memory();
    size_t index = (size_t)(allocation_at(address) - state.allocations.data());
    Allocation &allocation = state.allocations[index];
    allocation.live = false;
    state.used -= allocation.bytes;
    state.by_page.erase(allocation.first_page);
    memset(&state.owner[(allocation.first_page - state.base) / PAGE], 0,
           allocation.page_bytes / PAGE * sizeof *state.owner);
    ASAN_UNPOISON_MEMORY_REGION((void *)allocation.first_page, allocation.page_bytes);
    /* A fresh mapping gives the pages back and keeps the addresses reserved. */
    if (mmap((void *)allocation.first_page, allocation.page_bytes, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
        fault("%s: cannot unmap device memory", call);
}

void device_open()
{
    if (!instance || instance->open || observing()) return;
    for (const auto &entry : instance->by_page)
        protect(instance->allocations[entry.second], PROT_READ | PROT_WRITE);
    instance->open = true;
}

void device_close()
{
    if (!instance || !instance->open) return;
    for (const auto &entry : instance->by_page)
        protect(instance->allocations[entry.second], PROT_NONE);
    instance->open = false;
}

Place place_of(const void *address, size_t bytes, const char *role, const char *call)
{
    if (in_device_range(address)) {
        if (!is_device_memory(address, bytes))
            fault("%s: %zu bytes from %s are not within a live allocation: %s", call, bytes, role,
                  describe_address(address));
        return Place::device;
    }
    const auto *pinned = pinned_at(address);
    const auto *last = pinned_at((const char *)address + bytes - 1);
    if (pinned != last || in_device_range((const char *)address + bytes - 1))
        fault("%s: %zu bytes from %s leave their allocation: %s", call, bytes, role,
              describe_address(address));
    return pinned ? Place::pinned : Place::pageable;
}

/* ---- API ----------------------------------------------------------------------------------- */

namespace
{

/* Frees wait for the work that may still use the memory, as CUDA's implicit synchronisation does.
 */
cudaError_t wait_before_free(const char *call)
{
    check_not_running(call);
    cudaError_t error = forbidden_in_capture();
    if (error != cudaSuccess) return error;
    if (sticky_error() == cudaSuccess) run_all();
    return cudaSuccess;
}

cudaError_t pin(void *address, size_t bytes, bool registered)
{
    memory().pinned[(uintptr_t)address] = {bytes, registered};
    object_created(address, registered ? "registered host range" : "pinned allocation");
    return cudaSuccess;
}

} // namespace
} // namespace simt

using namespace simt;

extern "C" {

cudaError_t cudaMalloc(void **address, size_t bytes)
{
    check_not_running("cudaMalloc");
    cudaError_t forbidden = forbidden_in_capture();
    if (forbidden != cudaSuccess) return record(forbidden);
    SIMT_ENTER("alloc", cudaErrorMemoryAllocation);
    if (!address) return record(cudaErrorInvalidValue);
    *address = nullptr;
    if (bytes == 0) return cudaSuccess;
    *address = device_allocate(bytes);
    return *address ? cudaSuccess : record(cudaErrorMemoryAllocation);
}

cudaError_t cudaFree(void *address)
{
    if (!address) return record(sticky_error());
    cudaError_t error = wait_before_free("cudaFree");
    if (error != cudaSuccess) return record(error);
    device_release(address, "cudaFree");
    return record(sticky_error());
}

/* The memory is there at once; that only work of the stream may use it yet is not checked. */
cudaError_t cudaMallocAsync(void **address, size_t bytes, cudaStream_t handle)
{
    CUstream_st *stream = stream_of(handle, "cudaMallocAsync");
    if (is_capturing(stream)) return record(forbidden_on_stream(stream));
    SIMT_ENTER("alloc", cudaErrorMemoryAllocation);
    if (!address) return record(cudaErrorInvalidValue);
    *address = nullptr;
    if (bytes == 0) return cudaSuccess;
    *address = device_allocate(bytes);
    if (!*address) {
        run_all(); /* frees that are queued */
        *address = device_allocate(bytes);
    }
    return *address ? cudaSuccess : record(cudaErrorMemoryAllocation);
}

cudaError_t cudaFreeAsync(void *address, cudaStream_t handle)
{
    CUstream_st *stream = stream_of(handle, "cudaFreeAsync");
    if (is_capturing(stream)) return record(forbidden_on_stream(stream));
    if (!address) return record(sticky_error());
    object_check(address, "device allocation", "cudaFreeAsync");
    if (sticky_error() != cudaSuccess) {
        device_release(address, "cudaFreeAsync");
        return record(sticky_error());
    }
    return record(push(
        stream, "cudaFreeAsync", [address] { device_release(address, "cudaFreeAsync"); }, false,
        nullptr));
}

cudaError_t cudaHostAlloc(void **address, size_t bytes, unsigned flags)
{
    check_not_running("cudaHostAlloc");
    cudaError_t forbidden = forbidden_in_capture();
    if (forbidden != cudaSuccess) return record(forbidden);
    SIMT_ENTER("alloc", cudaErrorMemoryAllocation);
    constexpr unsigned known =
        cudaHostAllocPortable | cudaHostAllocMapped | cudaHostAllocWriteCombined;
    if (!address || (flags & ~known)) return record(cudaErrorInvalidValue);
    *address = nullptr;
    if (bytes == 0) return cudaSuccess;
    if (posix_memalign(address, PAGE, bytes) != 0) return record(cudaErrorMemoryAllocation);
    memset(*address, 0xff, bytes);
    return pin(*address, bytes, false);
}

cudaError_t cudaMallocHost(void **address, size_t bytes)
{
    return cudaHostAlloc(address, bytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void *address)
{
    if (!address) return record(sticky_error());
    cudaError_t error = wait_before_free("cudaFreeHost");
    if (error != cudaSuccess) return record(error);
    object_destroyed(address, "pinned allocation", "cudaFreeHost");
    memory().pinned.erase((uintptr_t)address);
    free(address);
    return record(sticky_error());
}

cudaError_t cudaHostRegister(void *address, size_t bytes, unsigned flags)
{
    check_not_running("cudaHostRegister");
    cudaError_t forbidden = forbidden_in_capture();
    if (forbidden != cudaSuccess) return record(forbidden);
    SIMT_ENTER("alloc", cudaErrorMemoryAllocation);
    constexpr unsigned known =
        cudaHostRegisterPortable | cudaHostRegisterMapped | cudaHostRegisterReadOnly;
    if (!address || bytes == 0 || (flags & ~known)) return record(cudaErrorInvalidValue);
    if (in_device_range(address))
        fault("cudaHostRegister: not host memory: %s", describe_address(address));
    auto next = memory().pinned.lower_bound((uintptr_t)address);
    bool overlaps = pinned_at(address) ||
                    (next != memory().pinned.end() && next->first - (uintptr_t)address < bytes);
    if (overlaps) return record(cudaErrorHostMemoryAlreadyRegistered);
    return pin(address, bytes, true);
}

cudaError_t cudaHostUnregister(void *address)
{
    cudaError_t error = wait_before_free("cudaHostUnregister");
    if (error != cudaSuccess) return record(error);
    object_destroyed(address, "registered host range", "cudaHostUnregister");
    memory().pinned.erase((uintptr_t)address);
    return record(sticky_error());
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    SIMT_ENTER(nullptr, cudaSuccess);
    if (!free_bytes || !total_bytes) return record(cudaErrorInvalidValue);
    *total_bytes = device_bytes_total();
    *free_bytes = device_bytes_total() - device_bytes_used();
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *address)
{
    SIMT_ENTER(nullptr, cudaSuccess);
    if (!attributes) return record(cudaErrorInvalidValue);
    *attributes = {};
    if (is_device_memory(address, 1)) {
        attributes->type = cudaMemoryTypeDevice;
        attributes->devicePointer = const_cast<void *>(address);
    } else if (pinned_at(address)) {
        attributes->type = cudaMemoryTypeHost;
        attributes->devicePointer = attributes->hostPointer = const_cast<void *>(address);
    } else {
        attributes->type = cudaMemoryTypeUnregistered;
        attributes->device = -2; /* cudaInvalidDeviceId */
        attributes->hostPointer = const_cast<void *>(address);
    }
    return cudaSuccess;
}
}
