#include "simt/engine.h"

#include <alloca.h>

#include <algorithm>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <memory>
#include <numeric>

#include "simt/checker.h"

namespace simt
{

Block block;
Thread *current;

namespace
{

/* A seeded order of 0 .. count - 1 that needs no memory: steps of a length that has no common
 * divisor with count. */
class Order
{
  public:
    explicit Order(uint64_t count) : count(count)
    {
        const uint32_t bound = (uint32_t)std::min<uint64_t>(count, UINT32_MAX);
        at = random_below(bound);
        step = count > 2 ? 1 + random_below(bound - 1) : 1;
        while (std::gcd(step, count) != 1) step = step % count + 1;
    }
    uint64_t next()
    {
        at = (at + step) % count;
        return at;
    }

  private:
    uint64_t count, step, at;
};

/* Ready threads. Taken from the front, threads advance side by side; from the back, one warp runs
 * far ahead of the others: the seed chooses, anew after every barrier. */
struct Queue {
    Thread *items[block_threads];
    uint32_t head, count;
    bool last_first;

    void push(Thread *thread) { items[(head + count++) % block_threads] = thread; }
    Thread *pop()
    {
        count--;
        if (last_first) return items[(head + count) % block_threads];
        Thread *thread = items[head];
        head = (head + 1) % block_threads;
        return thread;
    }
} queue;

Fiber fibers[block_threads];
Fiber *idle_fibers[block_threads]; /* the one used last is taken first: its stack is in the cache */
int idle_count, created_count;

void open_barrier()
{
    block.barrier_count = 0;
    block.barrier_threads = block.at_barrier;
    block.at_barrier = 0;
    if (checked) checker::block_barrier();
    queue.last_first = random_below(2);
    Order order(block.thread_count);
    for (uint32_t i = 0; i < block.thread_count; i++) {
        Thread *thread = &block.threads[order.next()];
        if (thread->state != State::at_barrier) continue;
        block.barrier_count += thread->predicate;
        wake(thread);
    }
}

void finish_thread()
{
    current->state = State::done;
    block.done++;
    if (block.at_barrier && block.at_barrier + block.done == block.thread_count) open_barrier();
}

/* What a fiber runs: thread after thread, so that most never need a new stack. */
void run_threads()
{
    for (;;) {
        block.grid->thread();
        finish_thread();
        fiber_suspend();
    }
}

Fiber *take_fiber()
{
    if (idle_count) return idle_fibers[--idle_count];
    Fiber *fiber = &fibers[created_count];
    fiber_create(fiber, created_count++, run_threads);
    return fiber;
}

/* Nobody can go on: says why, for the first thread that waits. */
[[noreturn]] void report_stuck()
{
    for (uint32_t i = 0; i < block.thread_count; i++) {
        const Thread &waits = block.threads[i];
        if (waits.state != State::at_warp) continue;
        const uint32_t first = waits.id / warp_lanes * warp_lanes;
        for (uint32_t lane = 0; lane < warp_lanes; lane++) {
            const Thread &other = block.threads[first + lane];
            if (!(waits.mask & block.warps[waits.id / warp_lanes].lanes & 1u << lane)) continue;
            if (other.state == State::done)
                fault_in(&waits,
                         "deadlock: %s with mask 0x%08x at %s waits for lane %u, which has exited",
                         waits.operation, waits.mask, text_of(waits.where).c_str(), lane);
            if (other.operation != waits.operation || other.mask != waits.mask)
                fault_in(&waits,
                         "divergent threads: %s with mask 0x%08x at %s waits for lane %u, which "
                         "waits in %s with mask 0x%08x at %s",
                         waits.operation, waits.mask, text_of(waits.where).c_str(), lane,
                         other.operation, other.mask, text_of(other.where).c_str());
        }
    }
    fault_in(nullptr, "deadlock: no thread of the block can go on");
}

void begin_block(const Grid &grid, uint64_t index)
{
    block.grid = &grid;
    block.number++;
    block.index.x = (uint32_t)(index % grid.grid.x);
    block.index.y = (uint32_t)(index / grid.grid.x % grid.grid.y);
    block.index.z = (uint32_t)(index / grid.grid.x / grid.grid.y);
    block.done = block.at_barrier = 0;
    for (uint32_t i = 0; i < block.thread_count; i++) {
        Thread &thread = block.threads[i];
        thread.state = State::fresh;
        thread.fenced = false;
        thread.copies.clear();
        thread.copy_groups = 0;
    }
    for (Warp &warp : block.warps) warp.waiting = 0;
    shared_begin_block(grid.dynamic_shared_bytes);
    if (checked) checker::begin_block();
}

void run_block(const Grid &grid, uint64_t index)
{
    begin_block(grid, index);
    Order order(block.thread_count);
    uint32_t started = 0;
    queue.head = queue.count = 0;
    queue.last_first = random_below(2);
    while (block.done < block.thread_count) {
        /* New threads start in between those that go on after an operation of their warp. */
        const bool start =
            started < block.thread_count && (!queue.count || (!queue.last_first && started % 2));
        if (!start && !queue.count) report_stuck();
        Thread *thread = start ? &block.threads[order.next()] : queue.pop();
        if (start) {
            started++;
            thread->state = State::ready;
            thread->fiber = take_fiber();
        }
        current = thread;
        if (checked) checker::resume(thread);
        fiber_resume(thread->fiber);
        current = nullptr;
        if (checked) checker::resume(nullptr);
        if (thread->state == State::done) {
            idle_fibers[idle_count++] = thread->fiber;
            thread->fiber = nullptr;
        }
    }
}

/* Threads' indices and warps are the same for all blocks of a grid. */
void lay_out_threads(const dim3 &size)
{
    block.thread_count = size.x * size.y * size.z;
    for (uint32_t i = 0; i < block.thread_count; i++) {
        Thread &thread = block.threads[i];
        thread.id = i;
        thread.index.x = i % size.x;
        thread.index.y = i / size.x % size.y;
        thread.index.z = i / size.x / size.y;
    }
    for (uint32_t w = 0; w < block_warps; w++) {
        const uint32_t first = w * warp_lanes;
        const uint32_t lanes =
            block.thread_count > first ? std::min(block.thread_count - first, warp_lanes) : 0;
        block.warps[w].lanes = (uint32_t)(((uint64_t)1 << lanes) - 1);
    }
}

std::string text_of(const uint3 &index)
{
    return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " +
           std::to_string(index.z) + ")";
}

} // namespace

void run_grid(const Grid &grid)
{
    if (current) fault("a grid is run from within a kernel");
    lay_out_threads(grid.block);
    if (checked) checker::begin_grid();
    const uint64_t count = (uint64_t)grid.grid.x * grid.grid.y * grid.grid.z;
    Order order(count);
    for (uint64_t i = 0; i < count; i++) run_block(grid, order.next());
}

void wait_in(State state)
{
    current->state = state;
    fiber_suspend();
}

void wake(Thread *thread)
{
    thread->state = State::ready;
    queue.push(thread);
}

int block_barrier(Reduction reduction, bool predicate, Location where)
{
    static const char *const names[] = {"__syncthreads", "__syncthreads_count", "__syncthreads_and",
                                        "__syncthreads_or"};
    Thread *self = current;
    self->operation = names[(int)reduction];
    self->where = where;
    self->mask = 0;
    self->predicate = predicate;
    if (!block.at_barrier++) block.barrier_first = self;
    const Thread *first = block.barrier_first;
    if (first->operation != self->operation || first->where.line != where.line ||
        strcmp(first->where.file, where.file) != 0)
        fault_in(self, "divergent barrier: %s at %s, while thread %s waits in %s at %s",
                 self->operation, text_of(where).c_str(), text_of(first->index).c_str(),
                 first->operation, text_of(first->where).c_str());
    self->state = State::at_barrier;
    if (block.at_barrier + block.done == block.thread_count) open_barrier();
    fiber_suspend();
    switch (reduction) {
    case Reduction::all:
        return block.barrier_count == (int)block.barrier_threads;
    case Reduction::any:
        return block.barrier_count != 0;
    default:
        return block.barrier_count;
    }
}

uint3 thread_index()
{
    return current->index;
}
uint3 block_index()
{
    return block.index;
}
dim3 block_size()
{
    return block.grid->block;
}
dim3 grid_size()
{
    return block.grid->grid;
}

void trap(Location where)
{
    fault_in(current, "__trap at %s", text_of(where).c_str());
}

std::string text_of(Location where)
{
    return std::string(where.file) + ":" + std::to_string(where.line);
}

void fault_in(const Thread *thread, const char *format, ...)
{
    char what[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    if (!current) fault("%s", what);
    const std::string kernel = function_name(block.grid->kernel);
    fault("%s\n  kernel %s, block %s%s%s", what, kernel.c_str(), text_of(block.index).c_str(),
          thread ? ", thread " : "", thread ? text_of(thread->index).c_str() : "");
}

/* ---- launches ---------------------------------------------------------------------------------
 */

namespace
{

bool is_launchable(const Launch &launch)
{
    const dim3 &grid = launch.grid, &block = launch.block;
    const uint64_t threads = (uint64_t)block.x * block.y * block.z;
    return threads > 0 && threads <= block_threads && block.x <= 1024 && block.y <= 1024 &&
           block.z <= 64 && grid.x <= 0x7fffffffu && grid.y <= 65535 && grid.z <= 65535;
}

} // namespace

cudaError_t launch(const Launch &launch)
{
    if (launch.grid.x == 0 || launch.grid.y == 0 || launch.grid.z == 0) return cudaSuccess;
    if (launch.dynamic_shared_bytes > shared_limit) return cudaErrorInvalidValue;
    if (!is_launchable(launch)) return cudaErrorInvalidConfiguration;
    const auto *bytes = static_cast<const unsigned char *>(launch.arguments);
    auto arguments =
        std::make_shared<std::vector<unsigned char>>(bytes, bytes + launch.argument_bytes);
    const void *kernel = launch.kernel;
    auto invoke = launch.invoke;
    Grid grid = {launch.grid, launch.block, launch.dynamic_shared_bytes, kernel, [=] {
                     /* Each thread has parameters of its own, on its own stack. */
                     constexpr size_t alignment = 64;
                     void *raw = alloca(arguments->size() + alignment);
                     size_t room = arguments->size() + alignment;
                     void *own = std::align(alignment, arguments->size(), raw, room);
                     memcpy(own, arguments->data(), arguments->size());
                     invoke(kernel, own);
                 }};
    return enqueue_kernel(launch.stream, std::move(grid));
}

uint64_t clock_nanoseconds()
{
    using namespace std::chrono;
    return (uint64_t)duration_cast<nanoseconds>(steady_clock::now().time_since_epoch()).count();
}

} // namespace simt
