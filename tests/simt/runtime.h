/* What the files of the SIMT device's runtime share (not for the engine; that is simt.h).
 *
 *   runtime_objects.cpp  live handles: use after destruction, leaks at exit
 *   runtime_memory.cpp   device memory and pinned memory
 *   runtime_queue.cpp    work, its dependencies, and who runs next
 *   runtime_stream.cpp   streams and events            runtime_copy.cpp    copies and fills
 *   runtime_graph.cpp    capture and replay            runtime_device.cpp  properties, errors
 *   runtime_observe.cpp  launches announced instead of run (observe.h)
 *
 * Work and time. Nothing runs when it is asked for. A stream is a chain of Work items, each with
 * the items that must end before it; so are events (a marker in the chain of the stream that
 * recorded them) and graph launches (a copy of the captured nodes). When the host waits for an
 * item, that item and what it depends on must run; everything else may run before it or stay
 * behind, and a seeded choice tries both extremes. For a while, of a few items or of hundreds, the
 * device keeps up with the host or does not, and some streams may starve: their work runs when it
 * is waited for only, as if copies went over a slow bus. Code that forgot a dependency therefore
 * sees both orders.
 *
 * Legacy default stream: work in it follows all earlier work of blocking streams, and later work of
 * blocking streams follows it, as in CUDA. The per-thread default stream is not modelled. */
#ifndef CT_TESTS_SIMT_RUNTIME_H
#define CT_TESTS_SIMT_RUNTIME_H

#include "simt.h"

#include <chrono>
#include <memory>
#include <string>
#include <vector>

namespace simt
{

using Action = std::shared_ptr<const std::function<void()>>; /* NULL: a marker that does nothing */

struct Work {
    const char *name;
    Action action;
    bool on_host;        /* a host function: device memory is closed while it runs */
    unsigned stream = 0; /* the number of the one that it was queued on */
    bool done = false;
    size_t unmet = 0;                             /* items of `after` that have not ended */
    std::vector<std::shared_ptr<Work>> after;     /* emptied when done */
    std::vector<std::shared_ptr<Work>> followers; /* emptied when done */
    uint64_t sequence = 0;                        /* order of arrival */
    uint64_t needed_in = 0;                       /* the wait that needs it */
    std::chrono::steady_clock::time_point ended;
};
using WorkPtr = std::shared_ptr<Work>;

struct Capture; /* runtime_graph.cpp: a capture in progress */

} // namespace simt

/* The toolkit's headers declare these and leave them to the library. */
struct CUgraphNode_st {
    const char *name;
    simt::Action action;
    bool on_host;
    std::vector<size_t> after; /* indices of nodes of the same graph */
};

struct CUstream_st {
    unsigned number = 0; /* in order of creation; 0: the default one */
    unsigned flags = 0;
    int priority = 0;
    simt::WorkPtr last; /* NULL or done: idle */
    std::shared_ptr<simt::Capture> capture;
    std::vector<size_t> tail; /* nodes that the next captured node follows */

    bool blocking() const { return !(flags & cudaStreamNonBlocking); }
};

struct CUevent_st {
    unsigned flags = 0;
    simt::WorkPtr marker;                   /* of the last cudaEventRecord; NULL before the first */
    std::shared_ptr<simt::Capture> capture; /* when that was in a capture */
    std::vector<size_t> nodes;
};

namespace simt
{

/* ---- live handles (runtime_objects.cpp) ---------------------------------------------------- */

/* `kind` is a static string: "stream", "cuBLASLt handle", ... */
void object_created(const void *handle, const char *kind);
/* A fault when `handle` is no live object of that kind; `call` names the API function. */
void object_check(const void *handle, const char *kind, const char *call);
void object_destroyed(const void *handle, const char *kind, const char *call);
/* A fault when anything is still alive; `when` ends the report: "at exit". */
void check_leaks(const char *when);

/* ---- errors (runtime_device.cpp) ----------------------------------------------------------- */

/* What every call of the runtime API starts with: the sticky error if there is one, else `error`
 * when this call of `kind` is to fail (kind NULL: it cannot), else success. */
cudaError_t enter(const char *kind, cudaError_t error);
/* Remembers an error for cudaGetLastError, and returns it. */
cudaError_t record(cudaError_t error);
/* After a failed launch the device is lost: queued work is dropped, all calls return `error`. */
void lose_device(cudaError_t error);
cudaError_t sticky_error();

#define SIMT_ENTER(kind, error)                                                                    \
    do {                                                                                           \
        cudaError_t simt_error_ = simt::enter(kind, error);                                        \
        if (simt_error_ != cudaSuccess) return simt::record(simt_error_);                          \
    } while (0)

uint64_t environment_number(const char *name, uint64_t otherwise);
void start_exit_checks(); /* once; by the first call of the API */
void write_call_count();  /* CT_SIMT_COUNT */

/* ---- memory (runtime_memory.cpp) ----------------------------------------------------------- */

enum class Place { device, pinned, pageable };

/* Where [address, address + bytes) lies; a fault when it straddles the end of an allocation.
 * `role` and `call` are for the report: "the source of cudaMemcpyAsync". */
Place place_of(const void *address, size_t bytes, const char *role, const char *call);

/* NULL: beyond the device's memory. Fresh memory holds NaN in every format. */
void *device_allocate(size_t bytes);
void device_release(void *address, const char *call);
size_t device_bytes_used();
size_t device_bytes_total();

/* Host code finds device memory closed; work opens it while it runs. Calls do not nest. */
void device_open();
void device_close();

/* ---- queue (runtime_queue.cpp) ------------------------------------------------------------- */

WorkPtr add_work(unsigned stream, const char *name, Action action, bool on_host,
                 const std::vector<WorkPtr> &after);
void run_until(const WorkPtr &work); /* NULL: nothing to wait for */
void run_all();
void run_some(const WorkPtr &work); /* the host asks whether `work`, or NULL, has ended */
void run_meanwhile();               /* the host goes on: now and then the device is faster */
void drop_all();                    /* ends everything without running it */
const char *running_work();         /* name; NULL when the host has control */
/* A fault when called from a host function, where CUDA forbids its API. */
void check_not_running(const char *call);

/* ---- streams (runtime_stream.cpp) ---------------------------------------------------------- */

/* The stream of a handle (NULL and cudaStreamLegacy: the default one); a fault for a dead one. */
CUstream_st *stream_of(cudaStream_t handle, const char *call);
/* Queues behind the stream's work, or captures. *work (optional): NULL when captured. meanwhile:
 * the device may get a turn before the host goes on. */
cudaError_t push(CUstream_st *stream, const char *name, std::function<void()> run, bool on_host,
                 WorkPtr *work, bool meanwhile = true);
/* Queues `action` behind the stream's work without looking at captures. */
WorkPtr push_now(CUstream_st *stream, const char *name, Action action, bool on_host,
                 const WorkPtr &also_after);
const std::vector<CUstream_st *> &all_streams(); /* the default one first */
std::string running_name();                      /* of the work that runs, for reports */

/* ---- observation (runtime_observe.cpp) ----------------------------------------------------- */

/* Whether simt_observe_only is in force: nothing runs, device memory is never touched. */
bool observing();
/* Tells the observer; `grid` is NULL for a call of a library. */
void announce(const char *name, const Grid *grid);

/* ---- capture (runtime_graph.cpp) ----------------------------------------------------------- */

bool is_capturing(const CUstream_st *stream);
cudaError_t capture_node(CUstream_st *stream, CUgraphNode_st node);
cudaError_t capture_record(CUstream_st *stream, CUevent_st *event);
/* `stream` or `event` belongs to a capture. */
cudaError_t capture_wait(CUstream_st *stream, CUevent_st *event);
/* A call that captures forbid: invalidates those in progress, with the error that CUDA returns. */
cudaError_t forbidden_in_capture();
/* The same for a call on one stream: forbidden whatever the capture's mode. */
cudaError_t forbidden_on_stream(CUstream_st *stream);
/* Work for the default stream while a blocking stream is being captured. */
cudaError_t forbidden_on_default_stream();
void leave_capture(CUstream_st *stream); /* the stream is being destroyed */

} // namespace simt

#endif
