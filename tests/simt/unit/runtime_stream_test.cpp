/* Deferred execution: forgotten dependencies are seen under some seed, kept ones never. */
#include "runtime_support.h"

#include <algorithm>

namespace
{

constexpr int SEEDS = 24;

/* How many seeds end with status 0. */
int seeds_that_pass(const std::function<int()> &body)
{
    int passed = 0;
    for (int seed = 1; seed <= SEEDS; seed++) {
        Ending ending = in_child({{"CT_SIMT_SEED", std::to_string(seed)}}, body);
        if (ending.status > 1) fail_msg("status %d: %s", ending.status, ending.errors.c_str());
        passed += ending.status == 0;
    }
    return passed;
}

struct Streams {
    cudaStream_t copy, compute;
    cudaEvent_t event;
    int *device, *pinned;

    Streams()
    {
        OK(cudaStreamCreateWithFlags(&copy, cudaStreamNonBlocking));
        OK(cudaStreamCreateWithFlags(&compute, cudaStreamNonBlocking));
        OK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
        OK(cudaMalloc((void **)&device, 2 * sizeof(int)));
        OK(cudaMallocHost((void **)&pinned, 2 * sizeof(int)));
    }

    ~Streams()
    {
        OK(cudaFree(device));
        OK(cudaFreeHost(pinned));
        OK(cudaEventDestroy(event));
        OK(cudaStreamDestroy(copy));
        OK(cudaStreamDestroy(compute));
    }
};

/* An upload on one stream, its use on another. */
int upload_and_use(bool wait)
{
    Streams s;
    int seen = 0;
    s.pinned[0] = 41;
    int *device = s.device;
    OK(cudaMemcpyAsync(device, s.pinned, sizeof(int), cudaMemcpyHostToDevice, s.copy));
    OK(cudaEventRecord(s.event, s.copy));
    if (wait) OK(cudaStreamWaitEvent(s.compute, s.event, 0));
    OK(launch(s.compute, [device] { device[1] = device[0] + 1; }));
    OK(cudaMemcpyAsync(&seen, device + 1, sizeof seen, cudaMemcpyDeviceToHost, s.compute));
    return seen == 42 ? 0 : 1;
}

/* The next upload overwrites what the last one's user may not have read yet. */
int overwrite_after_use(bool wait)
{
    Streams s;
    int seen = 0;
    int *device = s.device;
    OK(cudaMemsetAsync(device, 0, sizeof(int), s.compute));
    OK(cudaStreamSynchronize(s.compute));
    OK(launch(s.compute, [device] { device[1] = device[0] + 7; }));
    OK(cudaEventRecord(s.event, s.compute));
    if (wait) OK(cudaStreamWaitEvent(s.copy, s.event, 0));
    OK(cudaMemsetAsync(device, 1, sizeof(int), s.copy));
    OK(cudaMemcpyAsync(&seen, device + 1, sizeof seen, cudaMemcpyDeviceToHost, s.compute));
    return seen == 7 ? 0 : 1;
}

/* A pinned buffer is written again while its copy may be pending. */
int reuse_pinned(bool wait)
{
    Streams s;
    int seen = 0;
    s.pinned[0] = 5;
    OK(cudaMemcpyAsync(s.device, s.pinned, sizeof(int), cudaMemcpyHostToDevice, s.copy));
    OK(cudaEventRecord(s.event, s.copy));
    if (wait) OK(cudaEventSynchronize(s.event));
    s.pinned[0] = 6;
    OK(cudaMemcpyAsync(&seen, s.device, sizeof seen, cudaMemcpyDeviceToHost, s.copy));
    return seen == 5 ? 0 : 1;
}

/* A result in pinned memory is read without waiting. */
int read_pinned(bool wait)
{
    Streams s;
    s.pinned[0] = 0;
    OK(cudaMemsetAsync(s.device, 1, sizeof(int), s.copy));
    OK(cudaMemcpyAsync(s.pinned, s.device, sizeof(int), cudaMemcpyDeviceToHost, s.copy));
    if (wait) OK(cudaStreamSynchronize(s.copy));
    return s.pinned[0] == 0x01010101 ? 0 : 1;
}

/* Uploads next to a stream with a long queue, whose host asks how far it is now and then. A copy
 * stream that were behind for a moment only would have caught up by its turn. */
int upload_to_a_busy_stream(bool wait)
{
    constexpr int UPLOADS = 20, QUESTIONS = 5;
    Streams s;
    int *device, *pinned, seen[UPLOADS];
    cudaEvent_t used;
    OK(cudaMalloc((void **)&device, 2 * UPLOADS * sizeof(int)));
    OK(cudaMallocHost((void **)&pinned, UPLOADS * sizeof(int)));
    OK(cudaEventCreateWithFlags(&used, cudaEventDisableTiming));
    for (int k = 0; k < UPLOADS; k++) {
        pinned[k] = k;
        OK(cudaMemcpyAsync(device + k, pinned + k, sizeof(int), cudaMemcpyHostToDevice, s.copy));
        OK(cudaEventRecord(s.event, s.copy));
        if (wait) OK(cudaStreamWaitEvent(s.compute, s.event, 0));
        OK(launch(s.compute, [=] { device[UPLOADS + k] = device[k]; }));
        OK(cudaEventRecord(used, s.compute));
        for (int i = 0; i < QUESTIONS; i++) {
            for (int work = 0; work < 3; work++) OK(launch(s.compute, [] {}));
            cudaError_t state = cudaEventQuery(used);
            CHECK(state == cudaSuccess || state == cudaErrorNotReady);
        }
    }
    OK(cudaMemcpyAsync(seen, device + UPLOADS, sizeof seen, cudaMemcpyDeviceToHost, s.compute));
    OK(cudaDeviceSynchronize());
    OK(cudaFree(device));
    OK(cudaFreeHost(pinned));
    OK(cudaEventDestroy(used));
    for (int k = 0; k < UPLOADS; k++)
        if (seen[k] != k) return 1;
    return 0;
}

void a_starving_stream_is_seen(void **)
{
    assert_true(seeds_that_pass([] { return upload_to_a_busy_stream(false); }) < SEEDS / 6);
    assert_int_equal(seeds_that_pass([] { return upload_to_a_busy_stream(true); }), SEEDS);
}

void missing_dependencies_are_seen(void **)
{
    for (auto body : {upload_and_use, overwrite_after_use, reuse_pinned, read_pinned}) {
        /* A third of the waits at least try either extreme. */
        assert_true(seeds_that_pass([body] { return body(false); }) < SEEDS * 3 / 4);
        assert_int_equal(seeds_that_pass([body] { return body(true); }), SEEDS);
    }
}

void an_event_is_the_last_record_and_unrecorded_ones_are_complete(void **)
{
    expect_success({}, [] {
        Streams s;
        OK(cudaEventQuery(s.event));
        OK(cudaEventSynchronize(s.event));
        OK(cudaStreamWaitEvent(s.compute, s.event, 0));
        int *device = s.device;
        OK(cudaMemsetAsync(device, 0, 2 * sizeof(int), s.copy));
        OK(cudaEventRecord(s.event, s.copy));
        OK(launch(s.copy, [device] { device[0] = 3; }));
        OK(cudaEventRecord(s.event, s.copy));
        OK(cudaStreamWaitEvent(s.compute, s.event, 0));
        OK(launch(s.compute, [device] { device[1] = device[0] * 2; }));
        int seen = 0;
        OK(cudaMemcpyAsync(&seen, device + 1, sizeof seen, cudaMemcpyDeviceToHost, s.compute));
        return seen == 6 ? 0 : 1;
    });
}

void the_default_stream_orders_blocking_streams(void **)
{
    auto body = [] {
        cudaStream_t stream;
        int *device, seen = 0;
        OK(cudaStreamCreate(&stream));
        OK(cudaMalloc((void **)&device, sizeof(int)));
        OK(cudaMemset(device, 0, sizeof(int)));
        OK(launch(stream, [device] { *device += 2; }));
        OK(launch(nullptr, [device] { *device *= 10; }));
        OK(launch(stream, [device] { *device += 1; }));
        OK(cudaMemcpy(&seen, device, sizeof seen, cudaMemcpyDeviceToHost));
        OK(cudaFree(device));
        OK(cudaStreamDestroy(stream));
        return seen == 21 ? 0 : 1;
    };
    assert_int_equal(seeds_that_pass(body), SEEDS);
}

void pageable_sources_are_read_at_the_call(void **)
{
    assert_int_equal(
        seeds_that_pass([] {
            Streams s;
            int value = 9, seen = 0;
            OK(cudaMemcpyAsync(s.device, &value, sizeof value, cudaMemcpyHostToDevice, s.copy));
            value = 10;
            OK(cudaMemcpyAsync(&seen, s.device, sizeof seen, cudaMemcpyDeviceToHost, s.copy));
            return seen == 9 ? 0 : 1;
        }),
        SEEDS);
}

void polling_ends_and_times_are_ordered(void **)
{
    expect_success({}, [] {
        cudaStream_t stream;
        cudaEvent_t start, end;
        int *device;
        float ms = -1;
        OK(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, -1));
        OK(cudaEventCreate(&start));
        OK(cudaEventCreate(&end));
        OK(cudaMalloc((void **)&device, sizeof(int)));
        OK(cudaEventRecord(start, stream));
        for (int i = 0; i < 3000; i++) OK(launch(stream, [device] { *device = 1; }));
        OK(cudaEventRecord(end, stream));
        CHECK_CUDA(cudaEventElapsedTime(&ms, start, end), cudaErrorNotReady);
        CHECK_CUDA(cudaGetLastError(), cudaErrorNotReady);
        while (cudaStreamQuery(stream) == cudaErrorNotReady) {
        }
        OK(cudaEventQuery(end));
        OK(cudaEventElapsedTime(&ms, start, end));
        CHECK(ms >= 0);
        OK(cudaFree(device));
        OK(cudaEventDestroy(start));
        OK(cudaEventDestroy(end));
        OK(cudaStreamDestroy(stream));
        return 0;
    });
}

void host_functions_run_in_order_and_may_not_call_cuda(void **)
{
    expect_success({}, [] {
        Streams s;
        static int seen;
        int *pinned = s.pinned;
        OK(cudaMemsetAsync(s.device, 2, sizeof(int), s.copy));
        OK(cudaMemcpyAsync(pinned, s.device, sizeof(int), cudaMemcpyDeviceToHost, s.copy));
        OK(cudaLaunchHostFunc(
            s.copy, [](void *data) { seen = *(int *)data; }, pinned));
        OK(cudaStreamSynchronize(s.copy));
        return seen == 0x02020202 ? 0 : 1;
    });
    expect_fault("cudaDeviceSynchronize called from host function", [] {
        Streams s;
        OK(cudaLaunchHostFunc(
            s.copy, [](void *) { cudaDeviceSynchronize(); }, nullptr));
        OK(cudaDeviceSynchronize());
        return 0;
    });
}

void dead_handles_are_faults(void **)
{
    expect_fault("is not a live stream", [] {
        cudaStream_t stream;
        OK(cudaStreamCreate(&stream));
        OK(cudaStreamDestroy(stream));
        cudaStreamSynchronize(stream);
        return 0;
    });
    expect_fault("expected \"event\"", [] {
        cudaStream_t stream;
        OK(cudaStreamCreate(&stream));
        cudaEventQuery((cudaEvent_t)stream);
        return 0;
    });
}

} // namespace

int run_stream_tests()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(missing_dependencies_are_seen),
        cmocka_unit_test(a_starving_stream_is_seen),
        cmocka_unit_test(an_event_is_the_last_record_and_unrecorded_ones_are_complete),
        cmocka_unit_test(the_default_stream_orders_blocking_streams),
        cmocka_unit_test(pageable_sources_are_read_at_the_call),
        cmocka_unit_test(polling_ends_and_times_are_ordered),
        cmocka_unit_test(host_functions_run_in_order_and_may_not_call_cuda),
        cmocka_unit_test(dead_handles_are_faults),
    };
    return cmocka_run_group_tests_name("simt_runtime_stream", tests, nullptr, nullptr);
}
