/* Capture and replay. */
#include "runtime_support.h"

namespace
{

struct Fork {
    cudaStream_t main, side;
    cudaEvent_t forked, joined;
    int *device;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;

    Fork()
    {
        OK(cudaStreamCreateWithFlags(&main, cudaStreamNonBlocking));
        OK(cudaStreamCreateWithFlags(&side, cudaStreamNonBlocking));
        OK(cudaEventCreateWithFlags(&forked, cudaEventDisableTiming));
        OK(cudaEventCreateWithFlags(&joined, cudaEventDisableTiming));
        OK(cudaMalloc((void **)&device, 4 * sizeof(int)));
        OK(cudaMemset(device, 0, 4 * sizeof(int)));
        OK(cudaDeviceSynchronize());
    }

    ~Fork()
    {
        if (executable) OK(cudaGraphExecDestroy(executable));
        if (graph) OK(cudaGraphDestroy(graph));
        OK(cudaFree(device));
        OK(cudaEventDestroy(forked));
        OK(cudaEventDestroy(joined));
        OK(cudaStreamDestroy(main));
        OK(cudaStreamDestroy(side));
    }

    /* device[0] counts; device[1] and [2] follow it on two streams; device[3] is their sum. */
    void work(bool join)
    {
        int *d = device;
        OK(launch(main, [d] { d[0]++; }));
        OK(cudaEventRecord(forked, main));
        OK(cudaStreamWaitEvent(side, forked, 0));
        OK(launch(side, [d] { d[1] = 10 * d[0]; }));
        OK(cudaMemcpyAsync(d + 2, d, sizeof(int), cudaMemcpyDeviceToDevice, main));
        OK(cudaEventRecord(joined, side));
        if (join) OK(cudaStreamWaitEvent(main, joined, 0));
        OK(simt::enqueue_library_call(main, "sum", [d] { d[3] = d[1] + d[2]; }));
    }

    int result()
    {
        int seen = 0;
        OK(cudaMemcpyAsync(&seen, device + 3, sizeof seen, cudaMemcpyDeviceToHost, main));
        return seen;
    }
};

void replay_equals_the_work_itself(void **)
{
    for (int seed = 1; seed <= 12; seed++)
        expect_success({{"CT_SIMT_SEED", std::to_string(seed)}}, [] {
            Fork plain;
            for (int step = 1; step <= 5; step++) {
                plain.work(true);
                CHECK(plain.result() == 11 * step);
            }
            Fork captured;
            OK(cudaStreamBeginCapture(captured.main, cudaStreamCaptureModeGlobal));
            captured.work(true);
            cudaStreamCaptureStatus status;
            OK(cudaStreamIsCapturing(captured.side, &status));
            CHECK(status == cudaStreamCaptureStatusActive);
            OK(cudaStreamEndCapture(captured.main, &captured.graph));
            OK(cudaStreamIsCapturing(captured.side, &status));
            CHECK(status == cudaStreamCaptureStatusNone);
            size_t nodes;
            OK(cudaGraphGetNodes(captured.graph, nullptr, &nodes));
            CHECK(nodes == 4);
            CHECK(captured.result() == 0); /* a capture runs nothing */
            OK(cudaGraphInstantiate(&captured.executable, captured.graph, 0));
            for (int step = 1; step <= 5; step++) {
                OK(cudaGraphLaunch(captured.executable, captured.main));
                if (step % 2) CHECK(captured.result() == 11 * step);
            }
            return 0;
        });
}

/* Every outcome of a capture that is not allowed, and that the stream works again afterwards. */
void expect_failed_capture(cudaError_t at_call, cudaError_t at_end,
                           const std::function<cudaError_t(Fork &)> &call)
{
    expect_success({}, [&] {
        Fork s;
        OK(cudaStreamBeginCapture(s.main, cudaStreamCaptureModeGlobal));
        CHECK_CUDA(call(s), at_call);
        CHECK_CUDA(cudaStreamEndCapture(s.main, &s.graph), at_end);
        CHECK(!s.graph);
        s.work(true);
        CHECK(s.result() == 11);
        return 0;
    });
}

void forbidden_calls_invalidate_a_capture(void **)
{
    const std::function<cudaError_t(Fork &)> unsupported[] = {
        [](Fork &s) { return cudaStreamSynchronize(s.main); },
        [](Fork &s) { return cudaStreamSynchronize(s.side); },
        [](Fork &) { return cudaDeviceSynchronize(); },
        [](Fork &s) { return cudaFree(s.device); },
        [](Fork &) {
            void *memory;
            return cudaMalloc(&memory, 16);
        },
        [](Fork &s) {
            int value = 1;
            return cudaMemcpyAsync(s.device, &value, 4, cudaMemcpyHostToDevice, s.main);
        },
        [](Fork &s) { return cudaEventQuery(s.forked); },
    };
    for (const auto &call : unsupported)
        expect_failed_capture(cudaErrorStreamCaptureUnsupported, cudaErrorStreamCaptureInvalidated,
                              call);
}

void captures_end_joined_and_isolated(void **)
{
    expect_failed_capture(cudaSuccess, cudaErrorStreamCaptureUnjoined, [](Fork &s) {
        s.work(false);
        return cudaSuccess;
    });
    expect_failed_capture(cudaErrorStreamCaptureIsolation, cudaErrorStreamCaptureInvalidated,
                          [](Fork &s) {
                              OK(cudaEventRecord(s.forked, s.side)); /* not captured */
                              return cudaStreamWaitEvent(s.main, s.forked, 0);
                          });
    expect_success({}, [] {
        Fork s;
        cudaGraph_t none;
        OK(cudaStreamBeginCapture(s.main, cudaStreamCaptureModeRelaxed));
        OK(cudaEventRecord(s.forked, s.main));
        OK(cudaStreamWaitEvent(s.side, s.forked, 0));
        CHECK_CUDA(cudaEventSynchronize(s.forked), cudaErrorCapturedEvent);
        CHECK_CUDA(cudaStreamEndCapture(s.side, &none), cudaErrorStreamCaptureUnmatched);
        CHECK_CUDA(cudaStreamEndCapture(s.main, &none), cudaErrorStreamCaptureInvalidated);
        CHECK_CUDA(cudaStreamEndCapture(s.main, &none), cudaErrorIllegalState);
        return 0;
    });
    expect_success({}, [] {
        cudaStream_t blocking;
        cudaGraph_t none;
        OK(cudaStreamCreate(&blocking));
        OK(cudaStreamBeginCapture(blocking, cudaStreamCaptureModeRelaxed));
        CHECK_CUDA(launch(nullptr, [] {}), cudaErrorStreamCaptureImplicit);
        CHECK_CUDA(cudaStreamEndCapture(blocking, &none), cudaErrorStreamCaptureInvalidated);
        OK(cudaStreamDestroy(blocking));
        return 0;
    });
}

/* Two nodes without a dependency run in either order. */
void graphs_have_only_captured_dependencies(void **)
{
    int passed = 0;
    for (int seed = 1; seed <= 24; seed++) {
        Ending ending = in_child({{"CT_SIMT_SEED", std::to_string(seed)}}, [] {
            Fork s;
            int *d = s.device;
            OK(cudaStreamBeginCapture(s.main, cudaStreamCaptureModeThreadLocal));
            OK(cudaEventRecord(s.forked, s.main));
            OK(cudaStreamWaitEvent(s.side, s.forked, 0));
            OK(launch(s.main, [d] { d[0] = 5; }));
            OK(launch(s.side, [d] { d[3] = d[0]; }));
            OK(cudaEventRecord(s.joined, s.side));
            OK(cudaStreamWaitEvent(s.main, s.joined, 0));
            OK(cudaStreamEndCapture(s.main, &s.graph));
            OK(cudaGraphInstantiateWithFlags(&s.executable, s.graph, 0));
            OK(cudaGraphLaunch(s.executable, s.main));
            return s.result() == 5 ? 0 : 1;
        });
        assert_in_range(ending.status, 0, 1);
        passed += ending.status == 0;
    }
    assert_in_range(passed, 1, 23);
}

} // namespace

int run_graph_tests()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(replay_equals_the_work_itself),
        cmocka_unit_test(forbidden_calls_invalidate_a_capture),
        cmocka_unit_test(captures_end_joined_and_isolated),
        cmocka_unit_test(graphs_have_only_captured_dependencies),
    };
    return cmocka_run_group_tests_name("simt_runtime_graph", tests, nullptr, nullptr);
}
