/* One operation among all ranks, when this rank's stream has reached it. */
#include <poll.h>
#include <unistd.h>

#include <cstring>

#include "nccl.h"
#include "runtime.h"

namespace simt
{
namespace
{

/* What a rank says of an operation. */
struct Wire {
    Collective kind;
    uint32_t type;
    uint64_t count;
    int32_t peer;
    uint32_t op;
};
struct WireHead {
    uint64_t captured, operations;
};

/* A rank's part in the round. */
struct Share {
    NcclLaunch launch; /* without addresses */
    std::vector<char> data;
};

const char *kind_name(Collective kind)
{
    static const char *const names[] = {"AllReduce", "ReduceScatter", "AllGather", "Send", "Recv"};
    return names[(uint32_t)kind];
}

bool point_to_point(const NcclLaunch &launch)
{
    return launch.operations[0].kind >= Collective::send;
}

/* ---- messages ------------------------------------------------------------------------------ */

std::vector<char> pack(const NcclState &state, const NcclLaunch &launch)
{
    std::vector<char> bytes;
    auto add = [&bytes](const void *data, size_t count) {
        bytes.insert(bytes.end(), (const char *)data, (const char *)data + count);
    };
    const WireHead head = {launch.captured, launch.operations.size()};
    add(&head, sizeof head);
    for (const NcclOperation &o : launch.operations) {
        const Wire wire = {o.kind, o.type, o.count, o.peer, o.op};
        add(&wire, sizeof wire);
    }
    for (const NcclOperation &o : launch.operations) add(o.from, bytes_from(state, o));
    return bytes;
}

Share unpack(const std::vector<char> &bytes)
{
    Share share;
    const char *at = bytes.data();
    WireHead head;
    memcpy(&head, at, sizeof head);
    at += sizeof head;
    share.launch.captured = head.captured;
    share.launch.issued = 0;
    for (uint64_t i = 0; i < head.operations; i++, at += sizeof(Wire)) {
        Wire wire;
        memcpy(&wire, at, sizeof wire);
        share.launch.operations.push_back(
            {nullptr, nullptr, wire.kind, wire.type, wire.count, wire.peer, wire.op});
    }
    share.data.assign(at, bytes.data() + bytes.size());
    return share;
}

[[noreturn]] void fault_everywhere(NcclState &state, const std::string &text)
{
    for (int socket : state.sockets)
        if (socket >= 0)
            (void)send_message(state, socket, Message::fault, text.data(), text.size());
    fault("%s", text.c_str());
}

/* A rank's process has ended. As on a GPU, nothing ends before someone aborts. */
void wait_for_abort(NcclState &state, const NcclLaunch &launch)
{
    state.result = ncclRemoteError;
    set_nccl_error("another rank's process has ended");
    if (state.rank == 0)
        for (int socket : state.sockets)
            if (socket >= 0) (void)send_message(state, socket, Message::dead, nullptr, 0);
    pollfd wake = {state.wake[0], POLLIN, 0};
    if (poll(&wake, 1, (int)nccl_timeout_ms()) == 0)
        fault("NCCL: another rank's process ended during %s, and nobody aborted rank %d for %llu "
              "ms",
              describe(launch).c_str(), state.rank, (unsigned long long)nccl_timeout_ms());
}

/* ---- agreement ----------------------------------------------------------------------------- */

bool same(const NcclLaunch &a, const NcclLaunch &b)
{
    if (a.captured != b.captured || point_to_point(a) != point_to_point(b)) return false;
    if (point_to_point(a)) return true; /* matched one by one */
    const NcclOperation &x = a.operations[0], &y = b.operations[0];
    return x.kind == y.kind && x.type == y.type && x.count == y.count && x.op == y.op;
}

/* Operations of one kind with one peer, in the order of the group. */
std::vector<NcclOperation> with_peer(const NcclLaunch &launch, Collective kind, int peer)
{
    std::vector<NcclOperation> found;
    for (const NcclOperation &o : launch.operations)
        if (o.kind == kind && o.peer == peer) found.push_back(o);
    return found;
}

void check_pair(NcclState &state, const std::vector<Share> &shares, int sender, int receiver)
{
    const auto sends = with_peer(shares[(size_t)sender].launch, Collective::send, receiver);
    const auto receives = with_peer(shares[(size_t)receiver].launch, Collective::receive, sender);
    bool fits = sends.size() == receives.size();
    for (size_t i = 0; fits && i < sends.size(); i++)
        fits = sends[i].type == receives[i].type && sends[i].count == receives[i].count;
    if (fits) return;
    auto list = [](const std::vector<NcclOperation> &operations) {
        return operations.empty() ? std::string("nothing") : describe({operations, 0, 0});
    };
    fault_everywhere(state, "NCCL: rank " + std::to_string(sender) + " sends rank " +
                                std::to_string(receiver) + ": " + list(sends) +
                                ", which expects: " + list(receives));
}

void check_agreement(NcclState &state, const std::vector<Share> &shares)
{
    for (int rank = 1; rank < state.size; rank++)
        if (!same(shares[0].launch, shares[(size_t)rank].launch))
            fault_everywhere(state, "NCCL: ranks differ: rank 0 is at " +
                                        describe(shares[0].launch) + ", rank " +
                                        std::to_string(rank) + " at " +
                                        describe(shares[(size_t)rank].launch));
    if (!point_to_point(shares[0].launch)) return;
    for (int sender = 0; sender < state.size; sender++)
        for (int receiver = 0; receiver < state.size; receiver++)
            check_pair(state, shares, sender, receiver);
}

/* ---- results ------------------------------------------------------------------------------- */

template <class T, class Wide>
std::vector<char> sum(const std::vector<Share> &shares, Wide (*widen)(T), T (*narrow)(Wide))
{
    const bool mean = shares[0].launch.operations[0].op == ncclAvg;
    std::vector<char> result(shares[0].data.size());
    for (size_t at = 0; at < result.size(); at += sizeof(T)) {
        Wide total = 0;
        for (const Share &share : shares) {
            T value;
            memcpy(&value, share.data.data() + at, sizeof value);
            total = (Wide)(total + widen(value));
        }
        if (mean) total = (Wide)(total / (Wide)shares.size());
        const T value = narrow(total);
        memcpy(result.data() + at, &value, sizeof value);
    }
    return result;
}

template <class T, class Wide> std::vector<char> sum_plain(const std::vector<Share> &shares)
{
    return sum<T, Wide>(
        shares, [](T value) { return (Wide)value; }, [](Wide value) { return (T)value; });
}

float from_bf16(uint16_t half)
{
    const uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

uint16_t to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (value != value) return 0x7fff;
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

std::vector<char> sum_of(const std::vector<Share> &shares, uint32_t type)
{
    switch (type) {
    case ncclFloat32:
        return sum_plain<float, float>(shares);
    case ncclFloat64:
        return sum_plain<double, double>(shares);
    case ncclFloat16:
        return sum_plain<_Float16, float>(shares);
    case ncclBfloat16:
        return sum<uint16_t, float>(shares, from_bf16, to_bf16);
    case ncclInt32:
        return sum_plain<uint32_t, uint32_t>(shares);
    default:
        return sum_plain<uint8_t, uint32_t>(shares);
    }
}

/* Where rank `sender` put what it sends `receiver`, and how much. */
std::vector<char> sent(const NcclState &state, const Share &share, int receiver)
{
    std::vector<char> found;
    size_t at = 0;
    for (const NcclOperation &o : share.launch.operations) {
        const size_t bytes = bytes_from(state, o);
        if (o.kind == Collective::send && o.peer == receiver)
            found.insert(found.end(), share.data.begin() + (long)at,
                         share.data.begin() + (long)(at + bytes));
        at += bytes;
    }
    return found;
}

/* A receiver's data in the order of its receives. */
std::vector<char> received(const NcclState &state, const std::vector<Share> &shares, int receiver)
{
    std::vector<std::vector<char>> from;
    std::vector<size_t> taken(shares.size());
    for (const Share &share : shares) from.push_back(sent(state, share, receiver));
    std::vector<char> result;
    for (const NcclOperation &o : shares[(size_t)receiver].launch.operations) {
        if (o.kind != Collective::receive) continue;
        const size_t bytes = bytes_to(state, o);
        size_t &at = taken[(size_t)o.peer];
        const auto begin = from[(size_t)o.peer].begin() + (long)at;
        result.insert(result.end(), begin, begin + (long)bytes);
        at += bytes;
    }
    return result;
}

std::vector<std::vector<char>> results(const NcclState &state, const std::vector<Share> &shares)
{
    const size_t size = shares.size();
    const NcclOperation &operation = shares[0].launch.operations[0];
    std::vector<std::vector<char>> all(size);
    if (point_to_point(shares[0].launch)) {
        for (size_t rank = 0; rank < size; rank++) all[rank] = received(state, shares, (int)rank);
        return all;
    }
    std::vector<char> whole;
    if (operation.kind == Collective::all_gather)
        for (const Share &share : shares)
            whole.insert(whole.end(), share.data.begin(), share.data.end());
    else whole = sum_of(shares, operation.type);
    const bool parts = operation.kind == Collective::reduce_scatter;
    const long part = (long)(whole.size() / size);
    for (size_t rank = 0; rank < size; rank++)
        all[rank] = parts ? std::vector<char>(whole.begin() + (long)rank * part,
                                              whole.begin() + (long)(rank + 1) * part)
                          : whole;
    return all;
}

/* ---- the round ----------------------------------------------------------------------------- */

std::string ended(int rank, const NcclState &state, const NcclLaunch &launch)
{
    return "NCCL: rank " + std::to_string(rank) + " has ended its communicator while rank " +
           std::to_string(state.rank) + " is at " + describe(launch);
}

/* Everybody's shares; false when that cannot be. */
bool collect(NcclState &state, const NcclLaunch &launch, std::vector<Share> *shares)
{
    shares->push_back(unpack(pack(state, launch)));
    for (int rank = 1; rank < state.size; rank++) {
        const std::string text =
            "rank " + std::to_string(rank) + " to take part in " + describe(launch);
        Message kind;
        std::vector<char> bytes;
        const Outcome outcome =
            receive_message(state, state.sockets[(size_t)rank], text.c_str(), &kind, &bytes);
        if (outcome == Outcome::aborted) return false;
        if (outcome == Outcome::closed) {
            wait_for_abort(state, launch);
            return false;
        }
        if (kind == Message::bye) fault_everywhere(state, ended(rank, state, launch));
        shares->push_back(unpack(bytes));
    }
    return true;
}

bool run_root(NcclState &state, const NcclLaunch &launch, std::vector<char> *result)
{
    std::vector<Share> shares;
    if (!collect(state, launch, &shares)) return false;
    check_agreement(state, shares);
    const auto all = results(state, shares);
    bool died = false;
    for (int rank = 1; rank < state.size; rank++) {
        const std::vector<char> &bytes = all[(size_t)rank];
        const Outcome outcome = send_message(state, state.sockets[(size_t)rank], Message::data,
                                             bytes.data(), bytes.size());
        if (outcome == Outcome::aborted) return false;
        died |= outcome == Outcome::closed;
    }
    *result = all[0];
    if (died) wait_for_abort(state, launch);
    return !died;
}

bool run_other(NcclState &state, const NcclLaunch &launch, std::vector<char> *result)
{
    const std::vector<char> own = pack(state, launch);
    const std::string text = "the other ranks to take part in " + describe(launch);
    Message kind = Message::dead;
    Outcome outcome = send_message(state, state.sockets[0], Message::data, own.data(), own.size());
    if (outcome != Outcome::aborted) /* one that cannot be written to may have said why */
        outcome = receive_message(state, state.sockets[0], text.c_str(), &kind, result);
    if (outcome == Outcome::aborted) return false;
    if (outcome == Outcome::closed || kind == Message::dead) {
        wait_for_abort(state, launch);
        return false;
    }
    if (kind == Message::fault) fault("%.*s", (int)result->size(), result->data());
    if (kind == Message::bye) fault("%s", ended(0, state, launch).c_str());
    return true;
}

void check_buffers(const NcclState &state, const NcclLaunch &launch)
{
    for (const NcclOperation &o : launch.operations) {
        const void *const ends[] = {o.from, o.to};
        const size_t bytes[] = {bytes_from(state, o), bytes_to(state, o)};
        for (int i = 0; i < 2; i++)
            if (bytes[i] && !is_device_memory(ends[i], bytes[i]))
                fault("%s: its memory is no longer there when it runs: %s",
                      describe(launch).c_str(), describe_address(ends[i]));
    }
}

/* The result, or NaNs. */
void store(const NcclState &state, const NcclLaunch &launch, const std::vector<char> *result)
{
    size_t at = 0;
    for (const NcclOperation &o : launch.operations) {
        const size_t bytes = bytes_to(state, o);
        if (bytes == 0) continue;
        if (result) memcpy(o.to, result->data() + at, bytes);
        else memset(o.to, 0xff, bytes);
        at += bytes;
    }
}

void delay()
{
    static const uint64_t most = environment_number("SIMT_NCCL_DELAY_US", 0);
    if (most > 0) usleep(random_below((uint32_t)most + 1));
}

} // namespace

std::string describe(const NcclLaunch &launch)
{
    static const char *const types[] = {"i8",  "u8",  "i32", "u32",  "i64",  "u64",
                                        "f16", "f32", "f64", "bf16", "f8e4", "f8e5"};
    std::string text;
    for (const NcclOperation &o : launch.operations) {
        text += (text.empty() ? "" : ", ") + std::string(kind_name(o.kind)) +
                (o.op == ncclAvg ? " (mean) of " : " of ") + std::to_string(o.count) + " x " +
                types[o.type];
        if (o.peer >= 0) text += " with rank " + std::to_string(o.peer);
    }
    if (launch.captured) text += " (captured launch " + std::to_string(launch.captured) + ")";
    return text;
}

size_t type_bytes(uint32_t type)
{
    static const size_t bytes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1};
    return bytes[type];
}

size_t bytes_from(const NcclState &state, const NcclOperation &o)
{
    if (o.kind == Collective::receive) return 0;
    const size_t parts = o.kind == Collective::reduce_scatter ? (size_t)state.size : 1;
    return parts * o.count * type_bytes(o.type);
}

size_t bytes_to(const NcclState &state, const NcclOperation &o)
{
    if (o.kind == Collective::send) return 0;
    const size_t parts = o.kind == Collective::all_gather ? (size_t)state.size : 1;
    return parts * o.count * type_bytes(o.type);
}

void run_launch(NcclState &state, const NcclLaunch &launch)
{
    {
        std::lock_guard<std::mutex> guard(state.mutex);
        state.running = !state.aborted;
    }
    if (launch.issued && launch.issued != state.ran + 1)
        fault("NCCL: rank %d: %s runs before what was issued earlier on another stream: nothing "
              "orders them",
              state.rank, describe(launch).c_str());
    if (launch.issued) state.ran++;
    check_buffers(state, launch);
    std::vector<char> result;
    bool done = false;
    if (!state.aborted) {
        delay();
        done =
            state.rank == 0 ? run_root(state, launch, &result) : run_other(state, launch, &result);
    }
    store(state, launch, done ? &result : nullptr);
    std::lock_guard<std::mutex> guard(state.mutex);
    state.running = false;
    state.changed.notify_all();
}

} // namespace simt
