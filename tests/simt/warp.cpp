#include <cstring>

#include "simt/checker.h"
#include "simt/engine.h"

namespace simt
{

namespace
{

bool same_operation(const Warp &warp, uint32_t lanes, const Thread &self)
{
    if ((warp.waiting & lanes) != lanes) return false;
    const Thread *first = &block.threads[self.id / warp_lanes * warp_lanes];
    for (uint32_t left = lanes; left; left &= left - 1) {
        const Thread &other = first[__builtin_ctz(left)];
        if (other.operation != self.operation || other.mask != self.mask) return false;
    }
    return true;
}

} // namespace

void collective(const char *operation, uint32_t mask, void *operand, Compute compute,
                Location where)
{
    Thread *self = current;
    Warp &warp = block.warps[self->id / warp_lanes];
    const uint32_t lane = self->id % warp_lanes, lanes = mask & warp.lanes;
    if (!(mask >> lane & 1))
        fault_in(self, "%s at %s: the mask 0x%08x does not name the calling lane %u", operation,
                 text_of(where).c_str(), mask, lane);
    self->operation = operation;
    self->where = where;
    self->mask = mask;
    self->operand = operand;
    warp.waiting |= 1u << lane;
    if (!same_operation(warp, lanes, *self)) {
        wait_in(State::at_warp);
        return;
    }
    Thread *first = self - lane;
    void *operands[warp_lanes] = {};
    for (uint32_t left = lanes; left; left &= left - 1) {
        const uint32_t l = __builtin_ctz(left);
        operands[l] = first[l].operand;
    }
    compute(operands, lanes, warp);
    warp.waiting &= ~lanes;
    const uint32_t start = random_below(warp_lanes);
    for (uint32_t i = 0; i < warp_lanes; i++) {
        const uint32_t l = (start + i) % warp_lanes;
        if (lanes >> l & 1 && l != lane) wake(&first[l]);
    }
}

void require_full_warp(const char *operation, Location where)
{
    if (block.warps[current->id / warp_lanes].lanes != 0xffffffffu)
        fault_in(current, "%s at %s needs a warp of 32 threads; the block has %u", operation,
                 text_of(where).c_str(), block.thread_count);
}

void warp_barrier(uint32_t mask, Location where)
{
    auto compute = [](void *const *, uint32_t lanes, const Warp &warp) {
        if (checked) checker::warp_barrier((uint32_t)(&warp - block.warps), lanes);
    };
    collective("__syncwarp", mask, nullptr, compute, where);
}

uint32_t active_mask()
{
    return 1u << current->id % warp_lanes;
}

/* ---- shuffles ---------------------------------------------------------------------------------
 */

namespace
{

struct ShuffleOperand {
    Shuffle kind;
    uint64_t value, result;
    int lane, width;
    Location where;
};

int source_lane(const ShuffleOperand &operand, int self)
{
    const int first = self & ~(operand.width - 1), end = first + operand.width;
    int source = self;
    switch (operand.kind) {
    case Shuffle::index:
        return first + (operand.lane & (operand.width - 1));
    case Shuffle::up:
        source = self - operand.lane;
        return source >= first ? source : self;
    case Shuffle::down:
        source = self + operand.lane;
        return source < end ? source : self;
    default:
        source = self ^ operand.lane;
        return source < end ? source : self;
    }
}

void exchange(void *const operands[warp_lanes], uint32_t lanes, const Warp &warp)
{
    for (uint32_t left = lanes; left; left &= left - 1) {
        const int lane = __builtin_ctz(left);
        auto *operand = static_cast<ShuffleOperand *>(operands[lane]);
        const int source = source_lane(*operand, lane);
        if (source < 0 || source >= (int)warp_lanes || !operands[source])
            fault_in(&block.threads[(&warp - block.warps) * warp_lanes + lane],
                     "shuffle at %s reads lane %d, which takes no part: its value is undefined",
                     text_of(operand->where).c_str(), source);
        operand->result = static_cast<ShuffleOperand *>(operands[source])->value;
    }
}

} // namespace

uint64_t shuffle(Shuffle kind, uint32_t mask, uint64_t value, int lane, int width, int value_bytes,
                 Location where)
{
    static const char *const names[2][4] = {
        {"__shfl_sync", "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync"},
        {"__shfl_sync of 8 bytes", "__shfl_up_sync of 8 bytes", "__shfl_down_sync of 8 bytes",
         "__shfl_xor_sync of 8 bytes"}};
    if (width < 1 || width > (int)warp_lanes || width & (width - 1))
        fault_in(current, "shuffle at %s: width %d is no power of two up to 32",
                 text_of(where).c_str(), width);
    if (kind != Shuffle::index && (lane < 0 || lane >= (int)warp_lanes))
        fault_in(current, "shuffle at %s over a distance of %d", text_of(where).c_str(), lane);
    ShuffleOperand operand = {kind, value, 0, lane, width, where};
    collective(names[value_bytes > 4][(int)kind], mask, &operand, exchange, where);
    return operand.result;
}

/* ---- votes ------------------------------------------------------------------------------------
 */

namespace
{

struct VoteOperand {
    uint64_t value;
    uint32_t result;
};

struct ReduceOperand {
    WarpSum kind;
    int64_t value;
};

int64_t combine(WarpSum kind, int64_t a, int64_t b)
{
    switch (kind) {
    case WarpSum::add:
        return a + b;
    case WarpSum::minimum:
        return b < a ? b : a;
    case WarpSum::maximum:
        return a < b ? b : a;
    case WarpSum::bit_and:
        return a & b;
    case WarpSum::bit_or:
        return a | b;
    default:
        return a ^ b;
    }
}

} // namespace

uint32_t ballot(uint32_t mask, bool predicate, Location where)
{
    auto compute = [](void *const *operands, uint32_t lanes, const Warp &) {
        uint32_t votes = 0;
        for (uint32_t l = 0; l < warp_lanes; l++)
            if (lanes >> l & 1 && static_cast<VoteOperand *>(operands[l])->value) votes |= 1u << l;
        for (uint32_t l = 0; l < warp_lanes; l++)
            if (lanes >> l & 1) static_cast<VoteOperand *>(operands[l])->result = votes;
    };
    VoteOperand operand = {predicate, 0};
    collective("a vote (__ballot_sync, __any_sync, __all_sync)", mask, &operand, compute, where);
    return operand.result;
}

uint32_t match_any(uint32_t mask, uint64_t value, Location where)
{
    auto compute = [](void *const *operands, uint32_t lanes, const Warp &) {
        for (uint32_t l = 0; l < warp_lanes; l++) {
            if (!(lanes >> l & 1)) continue;
            auto *self = static_cast<VoteOperand *>(operands[l]);
            for (uint32_t other = 0; other < warp_lanes; other++)
                if (lanes >> other & 1 &&
                    static_cast<VoteOperand *>(operands[other])->value == self->value)
                    self->result |= 1u << other;
        }
    };
    VoteOperand operand = {value, 0};
    collective("__match_any_sync", mask, &operand, compute, where);
    return operand.result;
}

int64_t warp_reduce(WarpSum kind, uint32_t mask, int64_t value, Location where)
{
    static const char *const names[] = {"__reduce_add_sync", "__reduce_min_sync",
                                        "__reduce_max_sync", "__reduce_and_sync",
                                        "__reduce_or_sync",  "__reduce_xor_sync"};
    auto compute = [](void *const *operands, uint32_t lanes, const Warp &) {
        const auto *first = static_cast<ReduceOperand *>(operands[__builtin_ctz(lanes)]);
        const WarpSum kind = first->kind;
        int64_t result = first->value;
        for (uint32_t left = lanes & (lanes - 1); left; left &= left - 1)
            result = combine(kind, result,
                             static_cast<ReduceOperand *>(operands[__builtin_ctz(left)])->value);
        for (uint32_t left = lanes; left; left &= left - 1)
            static_cast<ReduceOperand *>(operands[__builtin_ctz(left)])->value = result;
    };
    ReduceOperand operand = {kind, value};
    collective(names[(int)kind], mask, &operand, compute, where);
    return operand.value;
}

} // namespace simt
