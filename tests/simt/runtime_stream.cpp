/* Streams and events. */
#include "engine.h"
#include "runtime.h"

#include <algorithm>

namespace simt
{
namespace
{

std::vector<CUstream_st *> &streams()
{
    static auto *instance = new std::vector<CUstream_st *>{new CUstream_st};
    return *instance;
}

const void *kernel_in_progress; /* for reports */

CUstream_st *default_stream()
{
    return streams().front();
}

CUevent_st *event_of(cudaEvent_t handle, const char *call)
{
    object_check(handle, "event", call);
    return handle;
}

/* Waiting and asking are forbidden while a capture is in progress: on its streams in any mode, on
 * others unless it is relaxed. */
cudaError_t may_wait_for(CUstream_st *stream, const char *call)
{
    check_not_running(call);
    cudaError_t error = forbidden_on_stream(stream);
    return error == cudaSuccess ? forbidden_in_capture() : error;
}

/* The item whose end means that all the stream's work has ended. */
WorkPtr end_of(CUstream_st *stream)
{
    return stream == default_stream() ? push_now(stream, "wait", nullptr, false, nullptr)
                                      : stream->last;
}

} // namespace

const std::vector<CUstream_st *> &all_streams()
{
    return streams();
}

CUstream_st *stream_of(cudaStream_t handle, const char *call)
{
    if (!handle || handle == cudaStreamLegacy) return default_stream();
    if (handle == cudaStreamPerThread)
        fault("%s: the SIMT device has no per-thread default stream", call);
    object_check(handle, "stream", call);
    return handle;
}

WorkPtr push_now(CUstream_st *stream, const char *name, Action action, bool on_host,
                 const WorkPtr &also_after)
{
    std::vector<WorkPtr> after = {stream->last, also_after};
    if (stream == default_stream()) {
        for (CUstream_st *other : streams())
            if (other->blocking() && !other->capture) after.push_back(other->last);
    } else if (stream->blocking()) {
        after.push_back(default_stream()->last);
    }
    stream->last = add_work(stream->number, name, std::move(action), on_host, after);
    return stream->last;
}

cudaError_t push(CUstream_st *stream, const char *name, std::function<void()> run, bool on_host,
                 WorkPtr *work, bool meanwhile)
{
    if (work) work->reset();
    if (observing()) return cudaSuccess;
    auto action = std::make_shared<const std::function<void()>>(std::move(run));
    if (is_capturing(stream)) return capture_node(stream, {name, action, on_host, {}});
    if (stream == default_stream()) {
        cudaError_t error = forbidden_on_default_stream();
        if (error != cudaSuccess) return error;
    }
    WorkPtr added = push_now(stream, name, std::move(action), on_host, nullptr);
    if (work) *work = added;
    if (meanwhile) run_meanwhile();
    return cudaSuccess;
}

std::string running_name()
{
    return kernel_in_progress ? function_name(kernel_in_progress) : running_work();
}

cudaError_t enqueue_kernel(cudaStream_t handle, Grid grid)
{
    check_not_running("a kernel launch");
    CUstream_st *stream = stream_of(handle, "a kernel launch");
    cudaError_t error = enter("launch", cudaErrorLaunchFailure);
    if (error != cudaSuccess) {
        lose_device(error);
        return record(error);
    }
    uint64_t threads = (uint64_t)grid.block.x * grid.block.y * grid.block.z;
    bool fits = grid.grid.x && grid.grid.y && grid.grid.z && grid.grid.x <= 0x7fffffff &&
                grid.grid.y <= 65535 && grid.grid.z <= 65535 && threads > 0 && threads <= 1024 &&
                grid.block.z <= 64 && grid.dynamic_shared_bytes <= 227 * 1024;
    if (!fits) return record(cudaErrorInvalidConfiguration);
    if (observing()) announce(nullptr, &grid);
    auto run = [grid = std::move(grid)] {
        kernel_in_progress = grid.kernel;
        run_grid(grid);
        kernel_in_progress = nullptr;
    };
    return record(push(stream, "kernel", std::move(run), false, nullptr));
}

cudaError_t enqueue_library_call(cudaStream_t handle, const char *name, std::function<void()> work,
                                 bool meanwhile)
{
    check_not_running(name);
    CUstream_st *stream = stream_of(handle, name);
    cudaError_t error = enter("library", cudaErrorUnknown);
    if (error != cudaSuccess) return error;
    if (observing()) announce(name, nullptr);
    return push(stream, name, std::move(work), false, nullptr, meanwhile);
}

} // namespace simt

using namespace simt;

extern "C" {

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority)
{
    check_not_running("cudaStreamCreate");
    SIMT_ENTER("stream", cudaErrorMemoryAllocation);
    if (!stream || (flags & ~(unsigned)cudaStreamNonBlocking)) return record(cudaErrorInvalidValue);
    static unsigned created;
    *stream = new CUstream_st;
    (*stream)->number = ++created;
    (*stream)->flags = flags;
    (*stream)->priority = std::max(-5, std::min(priority, 0));
    streams().push_back(*stream);
    object_created(*stream, "stream");
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    return cudaStreamCreateWithPriority(stream, flags, 0);
}

cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    return cudaStreamCreateWithPriority(stream, cudaStreamDefault, 0);
}

/* Returns at once; what is queued still runs. */
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    check_not_running("cudaStreamDestroy");
    object_destroyed(stream, "stream", "cudaStreamDestroy");
    leave_capture(stream);
    auto &list = streams();
    list.erase(std::find(list.begin(), list.end(), stream));
    delete stream;
    return record(sticky_error());
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle)
{
    CUstream_st *stream = stream_of(handle, "cudaStreamSynchronize");
    cudaError_t error = may_wait_for(stream, "cudaStreamSynchronize");
    if (error != cudaSuccess) return record(error);
    SIMT_ENTER("stream", cudaErrorUnknown);
    run_until(end_of(stream));
    return cudaSuccess;
}

/* Asking gives the device time, so that a loop around it ends. */
cudaError_t cudaStreamQuery(cudaStream_t handle)
{
    CUstream_st *stream = stream_of(handle, "cudaStreamQuery");
    cudaError_t error = may_wait_for(stream, "cudaStreamQuery");
    if (error != cudaSuccess) return record(error);
    SIMT_ENTER("stream", cudaErrorUnknown);
    WorkPtr end = end_of(stream);
    run_some(end);
    return !end || end->done ? cudaSuccess : record(cudaErrorNotReady);
}

cudaError_t cudaStreamGetFlags(cudaStream_t handle, unsigned *flags)
{
    SIMT_ENTER(nullptr, cudaSuccess);
    if (!flags) return record(cudaErrorInvalidValue);
    *flags = stream_of(handle, "cudaStreamGetFlags")->flags;
    return cudaSuccess;
}

cudaError_t cudaStreamGetPriority(cudaStream_t handle, int *priority)
{
    SIMT_ENTER(nullptr, cudaSuccess);
    if (!priority) return record(cudaErrorInvalidValue);
    *priority = stream_of(handle, "cudaStreamGetPriority")->priority;
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned flags)
{
    CUstream_st *stream = stream_of(handle, "cudaStreamWaitEvent");
    event_of(event, "cudaStreamWaitEvent");
    SIMT_ENTER("stream", cudaErrorUnknown);
    if (flags & ~(unsigned)cudaEventWaitExternal) return record(cudaErrorInvalidValue);
    if (is_capturing(stream) || event->capture) return record(capture_wait(stream, event));
    if (event->marker && !event->marker->done)
        push_now(stream, "event wait", nullptr, false, event->marker);
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    check_not_running("cudaDeviceSynchronize");
    for (CUstream_st *stream : all_streams()) {
        cudaError_t error = forbidden_on_stream(stream);
        if (error != cudaSuccess) return record(error);
    }
    SIMT_ENTER("stream", cudaErrorUnknown);
    run_all();
    return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t function, void *data)
{
    CUstream_st *stream = stream_of(handle, "cudaLaunchHostFunc");
    check_not_running("cudaLaunchHostFunc");
    SIMT_ENTER("stream", cudaErrorUnknown);
    if (!function) return record(cudaErrorInvalidValue);
    return record(push(
        stream, "host function", [=] { function(data); }, true, nullptr));
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    check_not_running("cudaEventCreate");
    SIMT_ENTER("stream", cudaErrorMemoryAllocation);
    constexpr unsigned known = cudaEventBlockingSync | cudaEventDisableTiming;
    if (!event || (flags & ~known)) return record(cudaErrorInvalidValue);
    *event = new CUevent_st;
    (*event)->flags = flags;
    object_created(*event, "event");
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    check_not_running("cudaEventDestroy");
    object_destroyed(event, "event", "cudaEventDestroy");
    delete event;
    return record(sticky_error());
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t handle, unsigned flags)
{
    check_not_running("cudaEventRecord");
    CUstream_st *stream = stream_of(handle, "cudaEventRecord");
    event_of(event, "cudaEventRecord");
    SIMT_ENTER("stream", cudaErrorUnknown);
    if (flags != cudaEventRecordDefault) return record(cudaErrorInvalidValue);
    if (is_capturing(stream)) return record(capture_record(stream, event));
    if (stream == default_stream()) {
        cudaError_t error = forbidden_on_default_stream();
        if (error != cudaSuccess) return record(error);
    }
    event->capture.reset();
    event->marker = push_now(stream, "event", nullptr, false, nullptr);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle)
{
    return cudaEventRecordWithFlags(event, handle, cudaEventRecordDefault);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    check_not_running("cudaEventSynchronize");
    event_of(event, "cudaEventSynchronize");
    if (event->capture) return record(cudaErrorCapturedEvent);
    cudaError_t error = forbidden_in_capture();
    if (error != cudaSuccess) return record(error);
    SIMT_ENTER("stream", cudaErrorUnknown);
    run_until(event->marker);
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    check_not_running("cudaEventQuery");
    event_of(event, "cudaEventQuery");
    if (event->capture) return record(cudaErrorCapturedEvent);
    cudaError_t error = forbidden_in_capture();
    if (error != cudaSuccess) return record(error);
    SIMT_ENTER("stream", cudaErrorUnknown);
    run_some(event->marker);
    return !event->marker || event->marker->done ? cudaSuccess : record(cudaErrorNotReady);
}

/* By the host's clock: when the SIMT device got there, not what a GPU would need. */
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end)
{
    SIMT_ENTER("stream", cudaErrorUnknown);
    if (!ms) return record(cudaErrorInvalidValue);
    for (cudaEvent_t event : {start, end}) {
        event_of(event, "cudaEventElapsedTime");
        if (event->flags & cudaEventDisableTiming) return record(cudaErrorInvalidResourceHandle);
        if (event->capture) return record(cudaErrorCapturedEvent);
        if (!event->marker) return record(cudaErrorInvalidResourceHandle);
    }
    if (!start->marker->done || !end->marker->done) return record(cudaErrorNotReady);
    *ms =
        std::chrono::duration<float, std::milli>(end->marker->ended - start->marker->ended).count();
    return cudaSuccess;
}
}
