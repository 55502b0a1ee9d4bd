/* Stream capture and graphs. A captured node keeps its action with the arguments of the call; a
 * launch queues one work item for each node, ordered by the captured dependencies alone. Not
 * modelled: building graphs by hand, updating an executable graph, capturing a launch of another
 * graph. */
#include "runtime.h"

#include <algorithm>

namespace simt
{

struct Capture {
    cudaStreamCaptureMode mode;
    CUstream_st *origin; /* NULL once ended, or when that stream was destroyed */
    bool valid = true;
    std::vector<CUgraphNode_st> nodes;
};

} // namespace simt

struct CUgraph_st {
    std::shared_ptr<const std::vector<CUgraphNode_st>> nodes;
};

struct CUgraphExec_st {
    std::shared_ptr<const std::vector<CUgraphNode_st>> nodes;
    simt::WorkPtr last; /* launches of one executable graph do not overlap */
};

namespace simt
{
namespace
{

cudaError_t invalidate(Capture &capture, cudaError_t error)
{
    capture.valid = false;
    return error;
}

void merge(std::vector<size_t> &into, const std::vector<size_t> &more)
{
    into.insert(into.end(), more.begin(), more.end());
    std::sort(into.begin(), into.end());
    into.erase(std::unique(into.begin(), into.end()), into.end());
}

/* Which nodes come before the ends in `tail`, the ends included. Edges point to earlier indices. */
std::vector<bool> reached_from(const std::vector<CUgraphNode_st> &nodes,
                               const std::vector<size_t> &tail)
{
    std::vector<bool> reached(nodes.size());
    for (size_t node : tail) reached[node] = true;
    for (size_t node = nodes.size(); node-- > 0;)
        if (reached[node])
            for (size_t before : nodes[node].after) reached[before] = true;
    return reached;
}

void end_capture(Capture &capture)
{
    capture.origin = nullptr;
    for (CUstream_st *stream : all_streams())
        if (stream->capture.get() == &capture) {
            stream->tail.clear();
            stream->capture.reset(); /* `capture` is kept by the caller */
        }
}

} // namespace

bool is_capturing(const CUstream_st *stream)
{
    return stream->capture != nullptr;
}

cudaError_t capture_node(CUstream_st *stream, CUgraphNode_st node)
{
    Capture &capture = *stream->capture;
    if (!capture.valid) return cudaErrorStreamCaptureInvalidated;
    node.after = stream->tail;
    stream->tail = {capture.nodes.size()};
    capture.nodes.push_back(std::move(node));
    return cudaSuccess;
}

cudaError_t capture_record(CUstream_st *stream, CUevent_st *event)
{
    if (!stream->capture->valid) return cudaErrorStreamCaptureInvalidated;
    event->marker.reset();
    event->capture = stream->capture;
    event->nodes = stream->tail;
    return cudaSuccess;
}

cudaError_t capture_wait(CUstream_st *stream, CUevent_st *event)
{
    if (!event->capture) return invalidate(*stream->capture, cudaErrorStreamCaptureIsolation);
    Capture &capture = *event->capture;
    if (!capture.origin) { /* over; its events are of no use outside */
        if (stream->capture) invalidate(*stream->capture, cudaErrorCapturedEvent);
        return cudaErrorCapturedEvent;
    }
    if (!capture.valid) return cudaErrorStreamCaptureInvalidated;
    if (stream->capture && stream->capture != event->capture) {
        invalidate(*stream->capture, cudaErrorStreamCaptureMerge);
        return invalidate(capture, cudaErrorStreamCaptureMerge);
    }
    if (stream == all_streams().front()) return invalidate(capture, cudaErrorStreamCaptureImplicit);
    stream->capture = event->capture;
    merge(stream->tail, event->nodes);
    return cudaSuccess;
}

cudaError_t forbidden_in_capture()
{
    cudaError_t error = cudaSuccess;
    for (CUstream_st *stream : all_streams())
        if (stream->capture && stream->capture->mode != cudaStreamCaptureModeRelaxed)
            error = invalidate(*stream->capture, cudaErrorStreamCaptureUnsupported);
    return error;
}

cudaError_t forbidden_on_stream(CUstream_st *stream)
{
    if (!stream->capture) return cudaSuccess;
    return invalidate(*stream->capture, cudaErrorStreamCaptureUnsupported);
}

cudaError_t forbidden_on_default_stream()
{
    cudaError_t error = cudaSuccess;
    for (CUstream_st *stream : all_streams())
        if (stream->capture && stream->blocking())
            error = invalidate(*stream->capture, cudaErrorStreamCaptureImplicit);
    return error;
}

void leave_capture(CUstream_st *stream)
{
    std::shared_ptr<Capture> capture = stream->capture;
    if (!capture) return;
    capture->valid = false;
    if (capture->origin == stream) end_capture(*capture);
}

} // namespace simt

using namespace simt;

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode)
{
    check_not_running("cudaStreamBeginCapture");
    CUstream_st *stream = stream_of(handle, "cudaStreamBeginCapture");
    SIMT_ENTER("stream", cudaErrorUnknown);
    if (stream == all_streams().front()) return record(cudaErrorStreamCaptureUnsupported);
    if (stream->capture) return record(cudaErrorIllegalState);
    stream->capture = std::make_shared<Capture>(Capture{mode, stream, true, {}});
    stream->tail.clear();
    return cudaSuccess;
}

/* A capture that failed for any reason ends here too, without a graph. */
cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t *graph)
{
    check_not_running("cudaStreamEndCapture");
    CUstream_st *stream = stream_of(handle, "cudaStreamEndCapture");
    if (graph) *graph = nullptr;
    std::shared_ptr<Capture> capture = stream->capture;
    if (!capture || !graph) {
        SIMT_ENTER("stream", cudaErrorUnknown);
        return record(graph ? cudaErrorIllegalState : cudaErrorInvalidValue);
    }
    if (capture->origin != stream)
        return record(invalidate(*capture, cudaErrorStreamCaptureUnmatched));

    std::vector<size_t> tail = stream->tail;
    std::vector<bool> joined = reached_from(capture->nodes, tail);
    end_capture(*capture);
    SIMT_ENTER("stream", cudaErrorUnknown);
    if (!capture->valid) return record(cudaErrorStreamCaptureInvalidated);
    if (std::find(joined.begin(), joined.end(), false) != joined.end())
        return record(cudaErrorStreamCaptureUnjoined);
    *graph = new CUgraph_st{
        std::make_shared<const std::vector<CUgraphNode_st>>(std::move(capture->nodes))};
    object_created(*graph, "graph");
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus *status)
{
    CUstream_st *stream = stream_of(handle, "cudaStreamIsCapturing");
    SIMT_ENTER(nullptr, cudaSuccess);
    if (!status) return record(cudaErrorInvalidValue);
    *status = !stream->capture         ? cudaStreamCaptureStatusNone
              : stream->capture->valid ? cudaStreamCaptureStatusActive
                                       : cudaStreamCaptureStatusInvalidated;
    return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count)
{
    object_check(graph, "graph", "cudaGraphGetNodes");
    SIMT_ENTER(nullptr, cudaSuccess);
    if (!count) return record(cudaErrorInvalidValue);
    if (!nodes) {
        *count = graph->nodes->size();
        return cudaSuccess;
    }
    for (size_t i = 0; i < *count; i++)
        nodes[i] =
            i < graph->nodes->size() ? const_cast<cudaGraphNode_t>(&(*graph->nodes)[i]) : nullptr;
    *count = std::min(*count, graph->nodes->size());
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *executable, cudaGraph_t graph,
                                          unsigned long long flags)
{
    check_not_running("cudaGraphInstantiate");
    object_check(graph, "graph", "cudaGraphInstantiate");
    SIMT_ENTER("stream", cudaErrorMemoryAllocation);
    constexpr unsigned long long known =
        cudaGraphInstantiateFlagAutoFreeOnLaunch | cudaGraphInstantiateFlagUseNodePriority;
    if (!executable || (flags & ~known)) return record(cudaErrorInvalidValue);
    *executable = new CUgraphExec_st{graph->nodes, nullptr};
    object_created(*executable, "executable graph");
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph,
                                 unsigned long long flags)
{
    return cudaGraphInstantiateWithFlags(executable, graph, flags);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t handle)
{
    check_not_running("cudaGraphLaunch");
    object_check(executable, "executable graph", "cudaGraphLaunch");
    CUstream_st *stream = stream_of(handle, "cudaGraphLaunch");
    cudaError_t error = enter("launch", cudaErrorLaunchFailure);
    if (error != cudaSuccess) {
        lose_device(error);
        return record(error);
    }
    if (stream->capture) return record(forbidden_on_stream(stream));
    if (stream == all_streams().front()) {
        error = forbidden_on_default_stream();
        if (error != cudaSuccess) return record(error);
    }
    WorkPtr start = push_now(stream, "graph start", nullptr, false, executable->last);
    std::vector<WorkPtr> items;
    for (const CUgraphNode_st &node : *executable->nodes) {
        std::vector<WorkPtr> after = {start};
        for (size_t before : node.after) after.push_back(items[before]);
        items.push_back(add_work(stream->number, node.name, node.action, node.on_host, after));
    }
    items.push_back(start);
    stream->last = executable->last = add_work(stream->number, "graph end", nullptr, false, items);
    return cudaSuccess;
}

/* Launches that are queued keep what they need. */
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable)
{
    check_not_running("cudaGraphExecDestroy");
    object_destroyed(executable, "executable graph", "cudaGraphExecDestroy");
    delete executable;
    return record(sticky_error());
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    check_not_running("cudaGraphDestroy");
    object_destroyed(graph, "graph", "cudaGraphDestroy");
    delete graph;
    return record(sticky_error());
}
}
