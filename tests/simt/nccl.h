/* NCCL's subset on the SIMT device: what its files share. Ranks are processes, each with a SIMT
 * device of its own.
 *
 *   nccl.cpp            the API: checks, groups, non-blocking calls, queueing on streams
 *   nccl_meeting.cpp    unique ids, meeting, ending        nccl_transport.cpp  messages
 *   nccl_round.cpp      what runs when a stream reaches an operation
 *
 * A star of TCP connections around rank 0, which is the process that made the id and listens on the
 * address in it: MASTER_ADDR, or 127.0.0.1. An operation is a round: every rank sends what it is
 * about to do and its data to rank 0, which compares, computes (sums in the order of ranks, in f32
 * or wider, rounded once) and answers. Ranks that do not agree (kind, count, type, captured or not,
 * which captured operation) are a fault that names both, on all ranks; so are a rank that ends its
 * communicator while another one waits, sends without their receives, eager operations that run in
 * another order than they were issued in, buffers that are not device memory, and a use of a
 * communicator whose last call is still in progress.
 *
 * Non-blocking communicators put an operation on its stream at the call or only when they are asked
 * about it, at random: whoever queues more without asking has another order. As in the library,
 * destroying or aborting one waits for recorded graphs that hold its operations; the thread that
 * drives the device would wait for ever, which is a fault.
 *
 * A rank that died, or was aborted, leaves the others waiting until they are aborted; asked, their
 * communicators say ncclRemoteError. An aborted operation leaves NaNs.
 *
 * Groups hold sends and receives only, of one communicator on one stream, and are made by all ranks
 * at the same place.
 *
 * While an operation waits for other ranks, this process's whole device waits, and it runs on only
 * where the host waits for it or queues more. A host that waits for another rank by other means
 * must let its device catch up first: simt_catch_up().
 *
 * Environment: SIMT_NCCL_DELAY_US=n waits up to n microseconds, at random, before each operation
 * and meeting; SIMT_NCCL_TIMEOUT_MS=n (default 120000) makes a longer wait for another rank a
 * fault. */
#ifndef CT_TESTS_SIMT_NCCL_H
#define CT_TESTS_SIMT_NCCL_H

#include <nccl.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace simt
{

enum class Collective : uint32_t { all_reduce, reduce_scatter, all_gather, send, receive };

struct NcclOperation {
    const void *from; /* NULL for receive */
    void *to;         /* NULL for send */
    Collective kind;
    uint32_t type;  /* ncclDataType_t */
    uint64_t count; /* as in the call: of one rank's part for reduce_scatter and all_gather */
    int32_t peer;   /* of send and receive, else -1 */
    uint32_t op;    /* ncclRedOp_t: ncclSum, or ncclAvg of f32 and f64; 0 where there is none */
};

/* What one launch holds: a collective, or a group of sends and receives. */
struct NcclLaunch {
    std::vector<NcclOperation> operations;
    uint64_t captured; /* its number among captured launches, from 1; 0: eager */
    uint64_t issued;   /* its number among eager launches, from 1 */
};

struct NcclDeferred { /* called, not yet on its stream */
    cudaStream_t stream;
    NcclLaunch launch;
    bool capturing;
};

/* Shared by the handle and by queued work, which may outlive it. */
struct NcclState {
    int rank, size, device;
    bool blocking;
    std::vector<int> sockets; /* by rank; -1: none. Rank 0 has all, the others rank 0's */
    int wake[2];              /* a pipe: readable once aborted */
    std::thread meeting;
    std::thread::id driver; /* the thread that drives the device */

    std::atomic<int> result{ncclSuccess}; /* what ncclCommGetAsyncError says */
    std::atomic<bool> aborted{false};
    std::mutex mutex; /* of the following */
    std::condition_variable changed;
    bool running = false; /* a round is under way */
    int recorded = 0;     /* captured launches whose graphs live */

    /* The driver's own. */
    uint64_t issued = 0, ran = 0, captured = 0;
    std::vector<NcclDeferred> deferred;
    unsigned questions = 0; /* that are answered with ncclInProgress before `deferred` is queued */
    bool finalized = false;

    ~NcclState();
};
using NcclStatePtr = std::shared_ptr<NcclState>;

/* ---- messages (nccl_transport.cpp) --------------------------------------------------------- */

enum class Message : uint32_t { hello, welcome, data, fault, dead, bye };
enum class Outcome { ok, closed, aborted };

/* Wait for the peer, at most the time limit (then a fault that says `waiting_for`). */
Outcome send_message(NcclState &state, int socket, Message kind, const void *data, size_t bytes);
Outcome receive_message(NcclState &state, int socket, const char *waiting_for, Message *kind,
                        std::vector<char> *data);
/* Whether the connection was closed without a bye. Does not wait. */
bool has_died(int socket);
uint64_t nccl_timeout_ms();

/* ---- meeting (nccl_meeting.cpp) ------------------------------------------------------------ */

void make_id(ncclUniqueId *id);
/* Runs in a thread of its own; state.result tells. */
void meet(NcclStatePtr state, ncclUniqueId id);
void say_bye(NcclState &state);

/* ---- rounds (nccl_round.cpp) --------------------------------------------------------------- */

void run_launch(NcclState &state, const NcclLaunch &launch);
size_t type_bytes(uint32_t type);
/* "AllReduce of 12 x f32". */
std::string describe(const NcclLaunch &launch);
/* What an operation reads and writes. */
size_t bytes_from(const NcclState &state, const NcclOperation &operation);
size_t bytes_to(const NcclState &state, const NcclOperation &operation);

/* What ncclGetLastError says; from any thread. */
void set_nccl_error(const std::string &text);

} // namespace simt

struct ncclComm {
    simt::NcclStatePtr state;
};

#endif
