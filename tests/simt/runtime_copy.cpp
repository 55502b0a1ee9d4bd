/* Copies and fills. What CUDA's documentation calls "API synchronization behavior" decides when
 * host memory is read and written: pageable to device   the source is staged at the call; the
 * device copy itself runs later, even for cudaMemcpy device to pageable   the call waits pinned
 * read and written when the copy runs; cudaMemcpy waits for that device to device     never waits,
 * not even cudaMemcpy; nor does cudaMemset */
#include "runtime.h"

#include <cstring>

namespace simt
{
namespace
{

struct Copy {
    char *to;
    const char *from;
    size_t bytes;
    Place to_place, from_place;
    const char *call;
    std::shared_ptr<std::vector<char>> staged; /* of a pageable source */

    void run() const;
};

void check_still(const void *address, size_t bytes, Place before, const char *role,
                 const char *call)
{
    if (before == Place::pageable) return;
    if (place_of(address, bytes, role, call) != before)
        fault("%s: %s was freed before the copy ran: %s", call, role, describe_address(address));
}

void Copy::run() const
{
    check_still(to, bytes, to_place, "the destination", call);
    check_still(from, bytes, from_place, "the source", call);
    memcpy(to, staged ? staged->data() : from, bytes);
}

const char *kind_name(cudaMemcpyKind kind)
{
    static const char *const names[] = {"cudaMemcpyHostToHost", "cudaMemcpyHostToDevice",
                                        "cudaMemcpyDeviceToHost", "cudaMemcpyDeviceToDevice"};
    return names[kind];
}

/* CUDA would go by the addresses or return an error; a wrong kind is always a mistake. */
void check_kind(const Copy &copy, cudaMemcpyKind kind)
{
    if (kind == cudaMemcpyDefault) return;
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (to_device != (copy.to_place == Place::device))
        fault("%s: %s, but the destination is %s", copy.call, kind_name(kind),
              describe_address(copy.to));
    if (from_device != (copy.from_place == Place::device))
        fault("%s: %s, but the source is %s", copy.call, kind_name(kind),
              describe_address(copy.from));
}

cudaError_t copy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t handle,
                 bool synchronous, const char *call)
{
    check_not_running(call);
    CUstream_st *stream = stream_of(handle, call);
    SIMT_ENTER("copy", cudaErrorUnknown);
    if ((unsigned)kind > cudaMemcpyDefault) return record(cudaErrorInvalidMemcpyDirection);
    if (bytes == 0) return cudaSuccess;
    if (!to || !from) return record(cudaErrorInvalidValue);
    Copy item = {(char *)to,
                 (const char *)from,
                 bytes,
                 place_of(to, bytes, "the destination", call),
                 place_of(from, bytes, "the source", call),
                 call,
                 nullptr};
    check_kind(item, kind);
    if (item.to < item.from + bytes && item.from < item.to + bytes)
        fault("%s: source and destination overlap: %s", call, describe_address(from));

    bool pageable = item.to_place == Place::pageable || item.from_place == Place::pageable;
    if (pageable && is_capturing(stream)) return record(forbidden_on_stream(stream));
    if (synchronous) {
        cudaError_t error = forbidden_in_capture();
        if (error != cudaSuccess) return record(error);
    }
    if (observing()) return cudaSuccess;
    bool device_only = item.to_place == Place::device && item.from_place == Place::device;
    bool wait = (synchronous && !device_only) || item.to_place == Place::pageable;
    if (item.from_place == Place::pageable) {
        item.staged = std::make_shared<std::vector<char>>(item.from, item.from + bytes);
        if (item.to_place == Place::device) wait = false;
    }
    WorkPtr work;
    cudaError_t error = push(
        stream, call, [item] { item.run(); }, false, &work);
    if (error == cudaSuccess && wait) run_until(work);
    return record(error);
}

cudaError_t fill(void *to, int value, size_t bytes, cudaStream_t handle, bool synchronous,
                 const char *call)
{
    check_not_running(call);
    CUstream_st *stream = stream_of(handle, call);
    SIMT_ENTER("copy", cudaErrorUnknown);
    if (bytes == 0) return cudaSuccess;
    if (!to) return record(cudaErrorInvalidValue);
    if (place_of(to, bytes, "the destination", call) != Place::device)
        fault("%s: the destination is %s", call, describe_address(to));
    if (synchronous) {
        cudaError_t error = forbidden_in_capture();
        if (error != cudaSuccess) return record(error);
    }
    auto run = [=] {
        check_still(to, bytes, Place::device, "the destination", call);
        memset(to, value, bytes);
    };
    return record(push(stream, call, run, false, nullptr));
}

} // namespace
} // namespace simt

using namespace simt;

extern "C" {

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    return copy(to, from, bytes, kind, stream, false, "cudaMemcpyAsync");
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    return copy(to, from, bytes, kind, nullptr, true, "cudaMemcpy");
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    return fill(to, value, bytes, stream, false, "cudaMemsetAsync");
}

cudaError_t cudaMemset(void *to, int value, size_t bytes)
{
    return fill(to, value, bytes, nullptr, true, "cudaMemset");
}
}
