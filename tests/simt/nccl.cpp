/* NCCL's functions. nccl.h says what is modelled. */
#include "nccl.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstring>

#include "runtime.h"

namespace simt
{
namespace
{

constexpr const char *COMMUNICATOR = "NCCL communicator";

std::mutex error_mutex;
std::string *last_error; /* never destroyed: threads may still ask */

struct Grouped {
    ncclComm_t comm;
    cudaStream_t stream;
    NcclOperation operation;
};
thread_local int group_depth;
thread_local std::vector<Grouped> group;

NcclState &state_of(ncclComm_t comm, const char *call)
{
    object_check(comm, COMMUNICATOR, call);
    return *comm->state;
}

ncclResult_t error(NcclState &state, ncclResult_t result, const std::string &text)
{
    set_nccl_error(text);
    if (!state.blocking) state.result = result;
    return result;
}

/* Held by each captured launch: as long as a graph has it, the communicator cannot end. */
struct Recorded {
    NcclStatePtr state;
    explicit Recorded(NcclStatePtr of) : state(std::move(of)) { count(1); }
    ~Recorded() { count(-1); }
    void count(int change) const
    {
        std::lock_guard<std::mutex> guard(state->mutex);
        state->recorded += change;
        state->changed.notify_all();
    }
};

/* ---- queueing ------------------------------------------------------------------------------ */

ncclResult_t put_on_stream(const NcclStatePtr &state, const NcclDeferred &deferred)
{
    CUstream_st *stream = stream_of(deferred.stream, "an NCCL operation");
    if (is_capturing(stream) != deferred.capturing)
        fault("NCCL: %s was called %s, and is queued only now, after that has changed: "
              "ncclCommGetAsyncError was not asked until it said ncclSuccess",
              describe(deferred.launch).c_str(),
              deferred.capturing ? "during a capture" : "outside any capture");
    std::shared_ptr<Recorded> recorded;
    if (deferred.capturing) recorded = std::make_shared<Recorded>(state);
    const NcclLaunch launch = deferred.launch;
    /* Callers hold locks around NCCL's calls, which an abort wants too: the device, which may wait for
     * another rank, gets no turn here. */
    const cudaError_t queued = enqueue_library_call(
        deferred.stream, "NCCL", [state, recorded, launch] { run_launch(*state, launch); }, false);
    if (queued == cudaSuccess) return ncclSuccess;
    return error(*state, ncclUnhandledCudaError,
                 std::string("Cuda failure '") + cudaGetErrorString(queued) + "'");
}

/* At once, or when asked. */
ncclResult_t issue(ncclComm_t comm, cudaStream_t stream, std::vector<NcclOperation> operations)
{
    NcclState &state = *comm->state;
    NcclDeferred deferred = {stream, {std::move(operations), 0, 0}, false};
    deferred.capturing = is_capturing(stream_of(stream, "an NCCL operation"));
    if (deferred.capturing) deferred.launch.captured = ++state.captured;
    else deferred.launch.issued = ++state.issued;
    if (state.blocking || random_below(2) == 0) return put_on_stream(comm->state, deferred);
    state.questions = random_below(3);
    state.deferred.push_back(std::move(deferred));
    state.result = ncclInProgress;
    return ncclInProgress;
}

/* What every operation is checked for at its call. */
ncclResult_t check_ready(ncclComm_t comm, const char *call)
{
    check_not_running(call);
    NcclState &state = state_of(comm, call);
    if (state.finalized) fault("%s: the communicator was finalized", call);
    const int result = state.result;
    if (result == ncclInProgress)
        fault("%s: the communicator's last call is still in progress: ncclCommGetAsyncError must "
              "say ncclSuccess first",
              call);
    return (ncclResult_t)result;
}

void check_place(const NcclState &state, const NcclOperation &o, const char *call)
{
    const char *from = (const char *)o.from, *to = (const char *)o.to;
    const size_t from_bytes = bytes_from(state, o), to_bytes = bytes_to(state, o);
    if (from_bytes && place_of(from, from_bytes, "the source", call) != Place::device)
        fault("%s: the source is %s", call, describe_address(from));
    if (to_bytes && place_of(to, to_bytes, "the destination", call) != Place::device)
        fault("%s: the destination is %s", call, describe_address(to));
    const size_t part = o.count * type_bytes(o.type);
    const bool in_place = o.kind == Collective::all_gather ? from == to + (size_t)state.rank * part
                          : o.kind == Collective::reduce_scatter
                              ? to == from + (size_t)state.rank * part
                              : from == to;
    if (from_bytes && to_bytes && !in_place && from < to + to_bytes && to < from + from_bytes)
        fault("%s: source and destination overlap other than in place: %s", call,
              describe_address(from));
}

ncclResult_t add(ncclComm_t comm, cudaStream_t stream, const NcclOperation &operation,
                 const char *call)
{
    const ncclResult_t ready = check_ready(comm, call);
    if (ready != ncclSuccess) return ready;
    NcclState &state = *comm->state;
    if (operation.type >= ncclNumTypes || operation.peer >= state.size)
        return error(state, ncclInvalidArgument, "invalid type or peer");
    check_place(state, operation, call);
    if (group_depth > 0) {
        group.push_back({comm, stream, operation});
        return ncclSuccess;
    }
    if (operation.peer < 0) return issue(comm, stream, {operation});
    fault("%s outside a group would wait for its peer: not modelled", call);
}

ncclResult_t reduce(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op,
                    ncclComm_t comm, cudaStream_t stream, Collective kind, const char *call)
{
    const bool real = type == ncclFloat32 || type == ncclFloat64;
    const bool summed = real || type == ncclFloat16 || type == ncclBfloat16 || type == ncclInt32 ||
                        type == ncclUint8;
    if (!(op == ncclSum && summed) && !(op == ncclAvg && real))
        fault("%s: operation %d on type %d is not modelled", call, (int)op, (int)type);
    return add(comm, stream, {from, to, kind, (uint32_t)type, count, -1, (uint32_t)op}, call);
}

/* ---- ending -------------------------------------------------------------------------------- */

/* Until no round runs and no graph holds an operation. */
void wait_until_unused(NcclState &state, const char *call)
{
    std::unique_lock<std::mutex> guard(state.mutex);
    if (std::this_thread::get_id() == state.driver && state.recorded > 0)
        fault("%s waits for ever: recorded graphs hold %d operations of the communicator", call,
              state.recorded);
    const auto unused = [&state] { return !state.running && state.recorded == 0; };
    if (!state.changed.wait_for(guard, std::chrono::milliseconds(nccl_timeout_ms()), unused))
        fault("%s: for %llu ms recorded graphs have held operations of the communicator", call,
              (unsigned long long)nccl_timeout_ms());
}

void wake_up(NcclState &state)
{
    std::lock_guard<std::mutex> guard(state.mutex);
    state.aborted = true;
    if (write(state.wake[1], "", 1) != 1) fault("ncclCommAbort: cannot write to a pipe");
}

} // namespace

void set_nccl_error(const std::string &text)
{
    std::lock_guard<std::mutex> guard(error_mutex);
    delete last_error;
    last_error = new std::string(text);
}

} // namespace simt

using namespace simt;

extern "C" {

/* Everything that is queued runs now: what a GPU does by itself while the host waits for something
 * else. */
void simt_catch_up(void)
{
    check_not_running("simt_catch_up");
    if (sticky_error() == cudaSuccess) run_all();
}

const char *ncclGetErrorString(ncclResult_t result)
{
    static const char *const texts[] = {
        "no error",
        "unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
        "unhandled system error (run with NCCL_DEBUG=INFO for details)",
        "internal error - please report this issue to the NCCL developers",
        "invalid argument (run with NCCL_DEBUG=WARN for details)",
        "invalid usage (run with NCCL_DEBUG=WARN for details)",
        "remote process exited or there was a network error",
        "NCCL operation in progress"};
    return (unsigned)result < ncclNumResults ? texts[result] : "unknown result code";
}

const char *ncclGetLastError(ncclComm_t)
{
    static thread_local std::string text;
    std::lock_guard<std::mutex> guard(error_mutex);
    text = last_error ? *last_error : "";
    return text.c_str();
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    if (enter("library", cudaErrorUnknown) != cudaSuccess) return ncclSystemError;
    if (!id) return ncclInvalidArgument;
    make_id(id);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    check_not_running("ncclCommInitRankConfig");
    if (enter("library", cudaErrorUnknown) != cudaSuccess) return ncclSystemError;
    if (!comm || size < 1 || rank < 0 || rank >= size) return ncclInvalidArgument;
    auto state = std::make_shared<NcclState>();
    state->rank = rank;
    state->size = size;
    if (cudaGetDevice(&state->device) != cudaSuccess) return ncclUnhandledCudaError;
    state->blocking = !config || config->blocking != 0;
    state->sockets.assign((size_t)size, -1);
    state->driver = std::this_thread::get_id();
    if (pipe2(state->wake, O_CLOEXEC) != 0) return ncclSystemError;
    *comm = new ncclComm{state};
    object_created(*comm, COMMUNICATOR);
    state->result = ncclInProgress;
    state->meeting = std::thread(meet, state, id);
    if (!state->blocking) return ncclInProgress;
    state->meeting.join();
    return (ncclResult_t)state->result.load();
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *result)
{
    NcclState &state = state_of(comm, "ncclCommGetAsyncError");
    if (!result) return ncclInvalidArgument;
    if (!state.deferred.empty() && state.questions-- == 0) {
        state.result = ncclSuccess;
        const std::vector<NcclDeferred> deferred = std::move(state.deferred);
        state.deferred.clear();
        for (const NcclDeferred &one : deferred) (void)put_on_stream(comm->state, one);
    }
    if (state.result == ncclSuccess && !state.finalized)
        for (int socket : state.sockets)
            if (socket >= 0 && has_died(socket)) {
                set_nccl_error("another rank's process has ended");
                state.result = ncclRemoteError;
            }
    *result = (ncclResult_t)state.result.load();
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    const ncclResult_t ready = check_ready(comm, "ncclCommFinalize");
    if (ready != ncclSuccess) return ready;
    NcclState &state = *comm->state;
    if (enter("library", cudaErrorUnknown) != cudaSuccess)
        return error(state, ncclSystemError, "injected");
    if (state.meeting.joinable()) state.meeting.join();
    wait_until_unused(state, "ncclCommFinalize");
    run_all();
    say_bye(state);
    state.finalized = true;
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    check_not_running("ncclCommDestroy");
    NcclState &state = state_of(comm, "ncclCommDestroy");
    if (state.result == ncclInProgress)
        fault("ncclCommDestroy: the communicator's last call is still in progress");
    if (state.meeting.joinable()) state.meeting.join();
    wait_until_unused(state, "ncclCommDestroy");
    if (!state.finalized) {
        run_all();
        say_bye(state);
    }
    object_destroyed(comm, COMMUNICATOR, "ncclCommDestroy");
    delete comm;
    return ncclSuccess;
}

/* From any thread. */
ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    object_destroyed(comm, COMMUNICATOR, "ncclCommAbort");
    const NcclStatePtr state = comm->state;
    wake_up(*state);
    if (state->meeting.joinable()) state->meeting.join();
    wait_until_unused(*state, "ncclCommAbort");
    delete comm;
    return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream)
{
    return reduce(from, to, count, type, op, comm, stream, Collective::all_reduce, "ncclAllReduce");
}

ncclResult_t ncclReduceScatter(const void *from, void *to, size_t count, ncclDataType_t type,
                               ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream)
{
    return reduce(from, to, count, type, op, comm, stream, Collective::reduce_scatter,
                  "ncclReduceScatter");
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream)
{
    return add(comm, stream, {from, to, Collective::all_gather, (uint32_t)type, count, -1, 0},
               "ncclAllGather");
}

ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream)
{
    return add(comm, stream, {from, nullptr, Collective::send, (uint32_t)type, count, peer, 0},
               "ncclSend");
}

ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    return add(comm, stream, {nullptr, to, Collective::receive, (uint32_t)type, count, peer, 0},
               "ncclRecv");
}

ncclResult_t ncclGroupStart(void)
{
    group_depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void)
{
    if (group_depth == 0) return ncclInvalidUsage;
    if (--group_depth > 0 || group.empty()) return ncclSuccess;
    const std::vector<Grouped> parts = std::move(group);
    group.clear();
    std::vector<NcclOperation> operations;
    for (const Grouped &part : parts) {
        if (part.comm != parts[0].comm || part.stream != parts[0].stream || part.operation.peer < 0)
            fault("ncclGroupEnd: only sends and receives of one communicator on one stream are "
                  "modelled");
        operations.push_back(part.operation);
    }
    return issue(parts[0].comm, parts[0].stream, std::move(operations));
}
}
