/* What the SIMT device's NCCL says of callers at fault: each fault with the ranks that commit it.
 */
#include <nccl.h>

#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "ranks.h"
#include "runtime_support.h"

namespace
{

constexpr size_t COUNT = 256;

/* A rank with blocking or non-blocking calls, two streams and two buffers. */
struct Rank {
    int rank, size;
    ncclComm_t comm;
    cudaStream_t stream, other;
    cudaEvent_t event;
    float *a, *b; /* size * COUNT */

    Rank(int rank, int size, bool blocking = true) : rank(rank), size(size)
    {
        ncclUniqueId id;
        OK(cudaSetDevice(rank));
        if (rank == 0) CHECK(ncclGetUniqueId(&id) == ncclSuccess);
        ranks_broadcast(rank, &id, sizeof id);
        ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
        config.blocking = blocking;
        ncclResult_t result = ncclCommInitRankConfig(&comm, size, id, rank, &config);
        CHECK(result == ncclSuccess || (!blocking && result == ncclInProgress));
        CHECK(settle() == ncclSuccess);
        OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
        OK(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
        OK(cudaEventCreate(&event));
        OK(cudaMalloc((void **)&a, (size_t)size * COUNT * sizeof *a));
        OK(cudaMalloc((void **)&b, (size_t)size * COUNT * sizeof *b));
    }

    ncclResult_t settle() const
    {
        ncclResult_t result;
        do {
            usleep(100);
            CHECK(ncclCommGetAsyncError(comm, &result) == ncclSuccess);
        } while (result == ncclInProgress);
        return result;
    }

    ncclResult_t reduce(size_t count = COUNT, ncclDataType_t type = ncclFloat32) const
    {
        return ncclAllReduce(a, a, count, type, ncclSum, comm, stream);
    }

    ncclResult_t gather() const { return ncclAllGather(a, b, COUNT, ncclFloat32, comm, stream); }

    /* Only the ranks that are right get here. */
    int end()
    {
        OK(cudaStreamSynchronize(stream));
        OK(cudaStreamSynchronize(other));
        CHECK(ncclCommDestroy(comm) == ncclSuccess);
        return release();
    }

    int release()
    {
        OK(cudaFree(a));
        OK(cudaFree(b));
        OK(cudaEventDestroy(event));
        OK(cudaStreamDestroy(stream));
        OK(cudaStreamDestroy(other));
        return 0;
    }
};

void expect(const char *text, ranks_body *body, int size = 2)
{
    const ranks_options options = {size, 1, 0, 3000};
    ranks_expect_fault(&options, text, body, nullptr);
}

/* Dies, once the others have left the meeting. */
[[noreturn]] void leave_soon()
{
    usleep(300000);
    _exit(0);
}

void correct_callers_pass(void **)
{
    for (unsigned seed = 1; seed <= 6; seed++) {
        const ranks_options options = {3, seed, 200, 0};
        auto body = [](int rank, int size, const void *) {
            Rank r(rank, size, rank % 2 == 0);
            for (int repeat = 0; repeat < 4; repeat++) {
                (void)r.reduce();
                CHECK(r.settle() == ncclSuccess);
                OK(cudaEventRecord(r.event, r.stream));
                OK(cudaStreamWaitEvent(r.other, r.event, 0));
                (void)ncclReduceScatter(r.b, r.b + (size_t)rank * COUNT, COUNT, ncclFloat32,
                                        ncclSum, r.comm, r.other);
                CHECK(r.settle() == ncclSuccess);
                OK(cudaEventRecord(r.event, r.other));
                OK(cudaStreamWaitEvent(r.stream, r.event, 0));
            }
            return r.end();
        };
        ranks_expect_success(&options, body, nullptr);
    }
}

void ranks_that_differ_are_faults(void **)
{
    expect("rank 0 is at AllReduce of 256 x f32, rank 1 at AllGather of 256 x f32",
           [](int rank, int size, const void *) { /* a swapped order */
                                                  Rank r(rank, size);
                                                  (void)(rank ? r.gather() : r.reduce());
                                                  (void)(rank ? r.reduce() : r.gather());
                                                  return r.end();
           });
    expect(
        "rank 0 is at AllReduce of 256 x f32, rank 2 at AllReduce of 255 x f32",
        [](int rank, int size, const void *) {
            Rank r(rank, size);
            (void)r.reduce(rank == 2 ? COUNT - 1 : COUNT);
            return r.end();
        },
        3);
    expect("AllReduce of 256 x f32, rank 1 at AllReduce of 256 x i32",
           [](int rank, int size, const void *) {
               Rank r(rank, size);
               (void)r.reduce(COUNT, rank ? ncclInt32 : ncclFloat32);
               return r.end();
           });
    expect(
        "rank 1 at AllReduce of 256 x f32 (captured launch 1)",
        [](int rank, int size,
           const void *) { /* recorded on one rank only */
                           Rank r(rank, size);
                           cudaGraph_t graph;
                           cudaGraphExec_t executable;
                           if (rank == 1)
                               OK(cudaStreamBeginCapture(r.stream, cudaStreamCaptureModeRelaxed));
                           (void)r.reduce();
                           if (rank == 1) {
                               OK(cudaStreamEndCapture(r.stream, &graph));
                               OK(cudaGraphInstantiate(&executable, graph, 0));
                               OK(cudaGraphLaunch(executable, r.stream));
                           }
                           return r.end();
        });
}

void ranks_that_leave_one_out_are_faults(void **)
{
    expect("rank 1 at AllGather", [](int rank, int size, const void *) {
        Rank r(rank, size);
        if (rank == 0) (void)r.reduce();
        (void)r.gather();
        return r.end();
    });
    for (int skips = 0; skips < 2; skips++) {
        static int skipping;
        skipping = skips;
        expect(skips ? "rank 1 has ended its communicator while rank 0 is at AllReduce"
                     : "rank 0 has ended its communicator while rank 1 is at AllReduce",
               [](int rank, int size, const void *) {
                   Rank r(rank, size);
                   if (rank != skipping) (void)r.reduce();
                   return r.end();
               });
    }
    expect("process ended during AllReduce", [](int rank, int size, const void *) {
        Rank r(rank, size);
        if (rank == 1) leave_soon();
        (void)r.reduce();
        return r.end();
    });
}

void sends_without_receives_are_faults(void **)
{
    expect("rank 0 sends rank 1: Send of 256 x f32 with rank 1, which expects: nothing",
           [](int rank, int size, const void *) {
               Rank r(rank, size);
               (void)ncclGroupStart();
               (void)ncclSend(r.a, COUNT, ncclFloat32, 1 - rank, r.comm, r.stream);
               if (rank == 0) (void)ncclRecv(r.b, COUNT, ncclFloat32, 1, r.comm, r.stream);
               (void)ncclGroupEnd();
               return r.end();
           });
    expect("Send of 256 x f32 with rank 1, which expects: Recv of 128 x f32 with rank 0",
           [](int rank, int size, const void *) {
               Rank r(rank, size);
               (void)ncclGroupStart();
               (void)ncclSend(r.a, COUNT, ncclFloat32, 1 - rank, r.comm, r.stream);
               (void)ncclRecv(r.b, rank ? COUNT / 2 : COUNT, ncclFloat32, 1 - rank, r.comm,
                              r.stream);
               (void)ncclGroupEnd();
               return r.end();
           });
}

/* Under some seed: the streams' orders are chosen. */
void a_missing_wait_between_streams_is_seen(void **)
{
    int seen = 0;
    for (unsigned seed = 1; seed <= 12; seed++) {
        const ranks_options options = {2, seed, 0, 3000};
        ranks_ending endings[RANKS_MOST];
        auto body = [](int rank, int size, const void *) {
            Rank r(rank, size);
            (void)r.reduce();
            (void)ncclAllGather(r.b + (size_t)rank * COUNT, r.b, COUNT, ncclFloat32, r.comm,
                                r.other);
            OK(cudaStreamSynchronize(r.other));
            return r.end();
        };
        ranks_run(&options, body, nullptr, endings);
        bool found = false;
        for (const ranks_ending &ending : {endings[0], endings[1]})
            found |= strstr(ending.errors, "nothing orders them") != nullptr;
        seen += found;
    }
    assert_true(seen >= 3);
}

void misused_communicators_are_faults(void **)
{
    expect("last call is still in progress", [](int rank, int size, const void *) {
        Rank r(rank, size, false);
        for (int i = 0; i < 20; i++) (void)r.reduce();
        return r.end();
    });
    expect("NCCL communicator", [](int rank, int size, const void *) { /* a leak */
                                                                       Rank r(rank, size);
                                                                       return r.release();
    });
    expect("is not a live NCCL communicator", [](int rank, int size, const void *) {
        Rank r(rank, size);
        CHECK(ncclCommAbort(r.comm) == ncclSuccess);
        (void)r.reduce();
        return r.release();
    });
    expect("recorded graphs hold 1 operations", [](int rank, int size, const void *) {
        Rank r(rank, size);
        cudaGraph_t graph;
        OK(cudaStreamBeginCapture(r.stream, cudaStreamCaptureModeRelaxed));
        (void)r.reduce();
        OK(cudaStreamEndCapture(r.stream, &graph));
        return r.end();
    });
    expect("the source is", [](int rank, int size, const void *) {
        Rank r(rank, size);
        static float host[COUNT];
        (void)ncclAllGather(host, r.b, COUNT, ncclFloat32, r.comm, r.stream);
        return r.end();
    });
    expect("overlap other than in place", [](int rank, int size, const void *) {
        Rank r(rank, size);
        (void)ncclAllGather(r.b + 1, r.b, COUNT, ncclFloat32, r.comm, r.stream);
        return r.end();
    });
}

/* A rank that asks learns of a death without waiting for anything. */
void a_death_is_a_remote_error(void **)
{
    const ranks_options options = {2, 1, 0, 5000};
    auto body = [](int rank, int size, const void *) {
        Rank r(rank, size);
        if (rank == 1) leave_soon();
        ncclResult_t result = ncclSuccess;
        for (int i = 0; i < 5000 && result == ncclSuccess; i++) {
            usleep(1000);
            CHECK(ncclCommGetAsyncError(r.comm, &result) == ncclSuccess);
        }
        CHECK(result == ncclRemoteError);
        CHECK(strstr(ncclGetLastError(r.comm), "has ended"));
        CHECK(ncclCommAbort(r.comm) == ncclSuccess);
        return r.release();
    };
    ranks_expect_success(&options, body, nullptr);
}

} // namespace

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(correct_callers_pass),
        cmocka_unit_test(ranks_that_differ_are_faults),
        cmocka_unit_test(ranks_that_leave_one_out_are_faults),
        cmocka_unit_test(sends_without_receives_are_faults),
        cmocka_unit_test(a_missing_wait_between_streams_is_seen),
        cmocka_unit_test(misused_communicators_are_faults),
        cmocka_unit_test(a_death_is_a_remote_error),
    };
    return cmocka_run_group_tests_name("simt_nccl_faults", tests, nullptr, nullptr);
}
