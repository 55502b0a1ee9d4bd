#include "simt/checker.h"

#include <link.h>

#include <algorithm>
#include <cstring>
#include <unordered_map>

namespace simt
{

#if defined(CT_SIMT_CHECKED)
bool checked = false;
#endif

namespace checker
{

Running running;

namespace
{

/* A stamp is a time (48 bits), what kind of access, and the thread. Larger is later. */
using Stamp = uint64_t;
constexpr int time_shift = 16;
constexpr Stamp thread_bits = block_threads - 1;
constexpr Stamp atomic_bit = 1 << 10, pending_bit = 1 << 11; /* of writes */
constexpr Stamp warp_bit = 1 << 10;  /* of reads: several lanes of this thread's warp read */
constexpr Stamp block_bit = 1 << 11; /* several warps read */
constexpr Stamp other_bit = 1 << 12; /* other blocks of this grid read, too */

struct Cell {
    Stamp write, read;
};

constexpr uintptr_t page_bytes = 4096;

struct Page {
    uintptr_t number = 0;
    Stamp grid = 0;    /* the grid for which `live` holds */
    bool live = false; /* all of it is one live allocation */
    int shift = 2;     /* a cell covers 1 << shift bytes */
    std::vector<Cell> cells = std::vector<Cell>(page_bytes >> 2);
};

/* The last time at which a lane synchronised with another: `all` lanes with all, unless lanes have
 * synchronised in smaller groups since; then last[i][j] for lane i with lane j. */
struct WarpClock {
    uint64_t all;
    bool groups;
    uint64_t last[warp_lanes][warp_lanes];
};

struct Release {
    uint64_t time, barrier;
    uint32_t thread;
};
struct BlockRun {
    uint64_t begin;
    uint3 index;
    size_t first_release;
};

struct State {
    uint64_t time = 1;
    Stamp now = 0;                        /* of the running thread */
    Stamp grid = 0, block = 0, phase = 0; /* the first stamps of each */
    uint64_t acquired = 0;                /* the block's last atomic operation */
    uintptr_t low = 0, high = 0;          /* the shared array that was accessed last */
    std::unordered_map<uintptr_t, Page> pages;
    Page *recent[1024] = {};
    WarpClock warps[block_warps];
    std::vector<BlockRun> runs; /* blocks of this grid, in order of time */
    std::vector<Release> releases;
    std::vector<std::pair<uintptr_t, uintptr_t>> constants;
};

State *state; /* made by the first grid; pages are many, so it never dies */

struct Request {
    uintptr_t address;
    size_t bytes;
    Access kind;
    const void *code;
    bool shared;
};

void advance()
{
    state->time++;
    state->now = state->time << time_shift | (running.thread ? running.thread->id : 0);
}

uint64_t time_of(Stamp stamp)
{
    return stamp >> time_shift;
}

std::string text_of(const uint3 &index)
{
    return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " +
           std::to_string(index.z) + ")";
}

const char *verb(Access kind)
{
    switch (kind) {
    case Access::read:
        return "read";
    case Access::write:
        return "write";
    case Access::atomic:
        return "atomic operation";
    default:
        return "asynchronous copy";
    }
}

std::string place_text(const Request &request)
{
    std::string text = request.shared ? describe_shared(request.address)
                                      : describe_address((const void *)request.address);
    return std::string(verb(request.kind)) + " of " + std::to_string(request.bytes) + " bytes in " +
           function_name(request.code) + ", " + text;
}

/* ---- order ------------------------------------------------------------------------------------
 */

/* An access of this block and phase by another thread, stamped `stamp`, came before a __syncwarp
 * that joins it to the running thread. `all`: so did those of all lanes of that thread's warp. */
bool ordered_in_warp(Stamp stamp, bool all)
{
    const uint32_t other = stamp & thread_bits, self = running.thread->id;
    if (other / warp_lanes != self / warp_lanes) return false;
    const WarpClock &clock = state->warps[self / warp_lanes];
    const uint64_t time = time_of(stamp);
    if (!clock.groups) return time < clock.all;
    const uint64_t *last = clock.last[self % warp_lanes];
    if (!all) return time < last[other % warp_lanes];
    for (uint32_t lane = 0; lane < warp_lanes; lane++)
        if (time >= last[lane] && block.warps[self / warp_lanes].lanes >> lane & 1) return false;
    return true;
}

const BlockRun &run_at(uint64_t time)
{
    auto after = std::upper_bound(state->runs.begin(), state->runs.end(), time,
                                  [](uint64_t t, const BlockRun &run) { return t < run.begin; });
    return *(after - 1);
}

/* An access by an earlier block of this grid was released by a fence and an atomic operation, and
 * this block has done an atomic operation after that. */
bool ordered_between_blocks(Stamp stamp)
{
    const uint64_t time = time_of(stamp);
    const BlockRun &run = run_at(time);
    const size_t end =
        &run == &state->runs.back() ? state->releases.size() : (&run)[1].first_release;
    for (size_t i = run.first_release; i < end; i++) {
        const Release &release = state->releases[i];
        if (time < release.time && release.time <= state->acquired &&
            (release.thread == (stamp & thread_bits) || time < release.barrier))
            return true;
    }
    return false;
}

bool all_blocks_released()
{
    if (!state->acquired) return false;
    for (size_t i = 0; i + 1 < state->runs.size(); i++)
        if (state->runs[i].first_release == state->runs[i + 1].first_release) return false;
    return true;
}

[[noreturn]] void report_race(const Request &request, Stamp stamp, const char *earlier)
{
    if (stamp < state->block)
        fault_in(running.thread,
                 "race between blocks: %s; after a %s of block %s in the same launch, and nothing "
                 "orders the two",
                 place_text(request).c_str(), earlier,
                 text_of(run_at(time_of(stamp)).index).c_str());
    fault_in(running.thread,
             "race in %s memory: %s; after a %s by thread %s, with no barrier between",
             request.shared ? "shared" : "device", place_text(request).c_str(), earlier,
             text_of(block.threads[stamp & thread_bits].index).c_str());
}

/* ---- cells ------------------------------------------------------------------------------------
 */

void check_earlier_write(const Request &request, Stamp write)
{
    if (write & pending_bit && write >= state->block && request.kind != Access::async_end)
        fault_in(running.thread, "%s; a cp.async to it has not been waited for by thread %s",
                 place_text(request).c_str(),
                 text_of(block.threads[write & thread_bits].index).c_str());
    if (request.kind == Access::atomic && write & atomic_bit) return;
    if (write >= state->phase) {
        if ((write & thread_bits) != running.thread->id && !ordered_in_warp(write, false))
            report_race(request, write, write & atomic_bit ? "atomic operation" : "write");
    } else if (write < state->block && !request.shared && write >= state->grid) {
        if (!ordered_between_blocks(write))
            report_race(request, write, write & atomic_bit ? "atomic operation" : "write");
    }
}

[[noreturn]] void report_uninitialised(const Request &request)
{
    fault_in(running.thread, "uninitialised shared memory: %s", place_text(request).c_str());
}

/* Anything but a plain, complete write of this phase by the same thread, or an old one. */
bool write_needs_care(Stamp write, Stamp since)
{
    if (write < since) return false;
    return write >= state->phase ? ((write ^ state->now) & (thread_bits | pending_bit)) != 0
                                 : write < state->block || write & pending_bit;
}

inline void read_cell(const Request &request, Cell *cell, Stamp since)
{
    if (request.shared && cell->write < since) report_uninitialised(request);
    if (write_needs_care(cell->write, since)) check_earlier_write(request, cell->write);
    const Stamp read = cell->read, now = state->now;
    if (read < state->phase) {
        Stamp others = 0;
        if (read >= since) others = read < state->block ? other_bit : read & other_bit;
        cell->read = now | others;
    } else if (!(read & block_bit)) {
        const bool alone = !((read ^ now) & thread_bits) && !(read & warp_bit);
        const bool same_warp =
            (read & thread_bits) / warp_lanes == (now & thread_bits) / warp_lanes;
        cell->read = now | (read & other_bit);
        if (!same_warp) cell->read |= block_bit;
        else if (!alone && !ordered_in_warp(read, read & warp_bit)) cell->read |= warp_bit;
    }
}

void check_earlier_reads(const Request &request, Stamp read)
{
    if (read >= state->phase) {
        const bool alone = (read & thread_bits) == running.thread->id && !(read & warp_bit);
        const bool several = read & (warp_bit | block_bit);
        if (read & block_bit || !(alone || ordered_in_warp(read, several)))
            report_race(request, read, several ? "read by several threads, the last" : "read");
    } else if (!request.shared && read >= state->grid && read < state->block &&
               !ordered_between_blocks(read)) {
        report_race(request, read, "read");
    }
    if (read & other_bit && !request.shared && read >= state->grid && !all_blocks_released())
        fault_in(running.thread,
                 "race between blocks: %s; after reads by other blocks in the same launch, and "
                 "nothing orders the two",
                 place_text(request).c_str());
}

inline void write_cell(const Request &request, Cell *cell, Stamp since)
{
    if (request.kind == Access::atomic && request.shared && cell->write < since)
        report_uninitialised(request);
    if (write_needs_care(cell->write, since)) check_earlier_write(request, cell->write);
    if (cell->read >= since) check_earlier_reads(request, cell->read);
    cell->write = state->now | (request.kind == Access::atomic        ? atomic_bit
                                : request.kind == Access::async_begin ? pending_bit
                                                                      : 0);
}

/* ---- pages ------------------------------------------------------------------------------------
 */

Page *page_of(uintptr_t address)
{
    const uintptr_t number = address / page_bytes;
    Page *&recent = state->recent[number % 1024];
    if (!recent || recent->number != number) {
        recent = &state->pages[number];
        recent->number = number;
    }
    return recent;
}

/* Each cell becomes several smaller ones with the same past. */
void refine(Page *page, int shift)
{
    std::vector<Cell> cells(page_bytes >> shift);
    for (size_t i = 0; i < cells.size(); i++) cells[i] = page->cells[i << shift >> page->shift];
    page->cells.swap(cells);
    page->shift = shift;
}

void require_live(const Request &request, Page *page)
{
    if (page->grid != state->grid) {
        page->grid = state->grid;
        page->live = is_device_memory((const void *)(page->number * page_bytes), page_bytes);
    }
    if (!page->live && !is_device_memory((const void *)request.address, request.bytes))
        fault_in(running.thread, "access outside device memory: %s", place_text(request).c_str());
}

void require_shared(const Request &request)
{
    if (request.address >= state->low && request.address + request.bytes <= state->high) return;
    if (!shared_extent(request.address, request.bytes, &state->low, &state->high))
        fault_in(running.thread, "access outside shared memory's arrays: %s",
                 place_text(request).c_str());
}

int add_constants(dl_phdr_info *module, size_t, void *)
{
    for (int i = 0; i < module->dlpi_phnum; i++) {
        const auto &part = module->dlpi_phdr[i];
        const bool constant =
            part.p_type == PT_GNU_RELRO || (part.p_type == PT_LOAD && !(part.p_flags & PF_W));
        const uintptr_t begin = module->dlpi_addr + part.p_vaddr;
        if (constant) state->constants.emplace_back(begin, begin + part.p_memsz);
    }
    return 0;
}

void check_elsewhere(const Request &request)
{
    if (request.kind == Access::read) {
        for (const auto &range : state->constants)
            if (request.address >= range.first && request.address + request.bytes <= range.second)
                return;
    }
    if (in_fiber_stacks((const void *)request.address))
        fault_in(running.thread,
                 "a kernel touched another thread's local memory: %s of %zu bytes in %s",
                 verb(request.kind), request.bytes, function_name(request.code).c_str());
    fault_in(running.thread, "a kernel touched host memory: %s", place_text(request).c_str());
}

/* Within one page. */
void check_page(const Request &request)
{
    Page *page = page_of(request.address);
    Stamp since = state->block;
    if (!request.shared) {
        since = state->grid;
        require_live(request, page);
    }
    const uintptr_t ends = request.address | request.bytes;
    const int shift = ends % 4 == 0 ? 2 : ends % 2 == 0 ? 1 : 0;
    if (page->shift > shift) refine(page, shift);
    Cell *cell = &page->cells[request.address % page_bytes >> page->shift];
    Cell *end = cell + (request.bytes >> page->shift);
    if (request.kind == Access::read) {
        for (; cell < end; cell++) read_cell(request, cell, since);
    } else {
        for (; cell < end; cell++) write_cell(request, cell, since);
    }
}

} // namespace

void access(uintptr_t address, size_t bytes, Access kind, const void *code)
{
    Request request = {address, bytes, kind, code, in_shared_arena((const void *)address)};
    if (request.shared) require_shared(request);
    else if (!in_device_range((const void *)address)) return check_elsewhere(request);
    while (bytes) {
        request.bytes = std::min(bytes, page_bytes - request.address % page_bytes);
        check_page(request);
        request.address += request.bytes;
        bytes -= request.bytes;
    }
}

/* ---- events -----------------------------------------------------------------------------------
 */

void begin_grid()
{
    constexpr size_t many_pages = 16384;
    if (!state) {
        state = new State;
        dl_iterate_phdr(add_constants, nullptr);
    }
    if (state->pages.size() > many_pages) { /* nothing in them matters to a new grid */
        state->pages.clear();
        memset(state->recent, 0, sizeof state->recent);
    }
    advance();
    state->grid = state->time << time_shift;
    state->runs.clear();
    state->releases.clear();
}

void begin_block()
{
    advance();
    state->block = state->phase = state->time << time_shift;
    state->acquired = 0;
    state->low = state->high = 0;
    state->runs.push_back({state->time, block.index, state->releases.size()});
    for (WarpClock &clock : state->warps) {
        clock.all = state->time;
        clock.groups = false;
    }
}

void resume(const Thread *thread)
{
    running.thread = thread;
    if (!thread) return;
    running.stack = (uintptr_t)thread->fiber->stack;
    running.stack_bytes = thread->fiber->stack_bytes;
    state->now = state->time << time_shift | thread->id;
}

void block_barrier()
{
    advance();
    state->phase = state->time << time_shift;
}

void warp_barrier(uint32_t warp, uint32_t lanes)
{
    advance();
    WarpClock &clock = state->warps[warp];
    if (lanes == block.warps[warp].lanes) {
        clock.all = state->time;
        clock.groups = false;
        return;
    }
    if (!clock.groups) {
        for (auto &row : clock.last) std::fill(std::begin(row), std::end(row), clock.all);
        clock.groups = true;
    }
    /* What any of these lanes has seen, all of them have now. */
    uint64_t seen[warp_lanes] = {};
    for (uint32_t i = 0; i < warp_lanes; i++) {
        if (!(lanes >> i & 1)) continue;
        for (uint32_t j = 0; j < warp_lanes; j++)
            seen[j] = lanes >> j & 1 ? state->time : std::max(seen[j], clock.last[i][j]);
    }
    for (uint32_t i = 0; i < warp_lanes; i++)
        if (lanes >> i & 1) std::copy(std::begin(seen), std::end(seen), clock.last[i]);
}

void atomic_order(bool fenced)
{
    advance();
    if (fenced) state->releases.push_back({state->time, time_of(state->phase), running.thread->id});
    state->acquired = state->time;
}

} // namespace checker

} // namespace simt
