/* Injected failures: each kind, the count of calls, and that a lost device can be cleaned up. */
#include "runtime_support.h"

#include <unistd.h>

#include <cstdio>

namespace
{

/* One step with every kind of call, written as code that checks errors: frees what it made. */
int careful_step()
{
    cudaStream_t stream = nullptr;
    cudaEvent_t event = nullptr;
    void *device = nullptr, *pinned = nullptr;
    cudaError_t error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    if (!error) error = cudaEventCreate(&event);
    if (!error) error = cudaMalloc(&device, 64);
    if (!error) error = cudaMallocHost(&pinned, 64);
    if (!error) error = cudaMemcpyAsync(device, pinned, 64, cudaMemcpyHostToDevice, stream);
    if (!error) error = launch(stream, [=] { *(char *)device = 1; });
    if (!error) error = simt::enqueue_library_call(stream, "library", [=] { *(char *)device = 2; });
    if (!error) error = cudaEventRecord(event, stream);
    if (!error) error = cudaStreamSynchronize(stream);
    cudaFreeHost(pinned);
    cudaFree(device);
    if (event) cudaEventDestroy(event);
    if (stream) cudaStreamDestroy(stream);
    if (error == cudaErrorLaunchFailure)
        CHECK(cudaGetLastError() == error && cudaGetLastError() == error); /* it sticks */
    return error == cudaSuccess ? 0 : 10 + (int)(error % 64);
}

int count_calls(const char *kind)
{
    char path[] = "/tmp/simt_count_XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    Environment environment = {{"CT_SIMT_COUNT", path}, {"CT_SIMT_FAIL_KIND", kind}};
    expect_success(environment, careful_step);
    FILE *text = fopen(path, "r");
    int count = -1;
    assert_non_null(text);
    assert_int_equal(fscanf(text, "%d", &count), 1);
    fclose(text);
    unlink(path);
    return count;
}

void every_call_can_fail_and_nothing_leaks(void **)
{
    const std::pair<const char *, int> kinds[] = {{"alloc", 2},  {"copy", 1},    {"launch", 1},
                                                  {"stream", 4}, {"library", 1}, {"any", 9}};
    for (const auto &kind : kinds) {
        assert_int_equal(count_calls(kind.first), kind.second);
        for (int k = 1; k <= kind.second + 1; k++) {
            Ending ending =
                in_child({{"CT_SIMT_FAIL", std::to_string(k)}, {"CT_SIMT_FAIL_KIND", kind.first}},
                         careful_step);
            if (k > kind.second) assert_int_equal(ending.status, 0);
            else if (ending.status < 10 || ending.status == simt::SIMT_FAULT_EXIT)
                fail_msg("%s %d: status %d: %s", kind.first, k, ending.status,
                         ending.errors.c_str());
        }
    }
}

void a_leak_after_a_failure_is_a_fault(void **)
{
    Ending ending = in_child({{"CT_SIMT_FAIL", "2"}, {"CT_SIMT_FAIL_KIND", "alloc"}}, [] {
        void *first, *second;
        OK(cudaMalloc(&first, 8));
        CHECK_CUDA(cudaMalloc(&second, 8), cudaErrorMemoryAllocation);
        return 1;
    });
    assert_int_equal(ending.status, simt::SIMT_FAULT_EXIT);
    assert_true(ending.says("leak: 1 x device allocation"));
}

void unknown_settings_are_refused(void **)
{
    auto touch = [] { return (int)cudaSetDevice(0); };
    Ending ending = in_child({{"CT_SIMT_FAIL_KIND", "copies"}}, touch);
    assert_int_equal(ending.status, simt::SIMT_FAULT_EXIT);
    assert_true(ending.says("\"copies\""));
    ending = in_child({{"CT_SIMT_FAIL", "3x"}}, touch);
    assert_int_equal(ending.status, simt::SIMT_FAULT_EXIT);
    assert_true(ending.says("CT_SIMT_FAIL is \"3x\""));
}

void properties_are_an_h100s(void **)
{
    expect_success({{"CT_SIMT_SMS", "7"}}, [] {
        cudaDeviceProp properties;
        int count, value;
        OK(cudaGetDeviceCount(&count));
        OK(cudaSetDevice(0));
        CHECK_CUDA(cudaSetDevice(1), cudaErrorInvalidDevice);
        OK(cudaGetDeviceProperties(&properties, 0));
        CHECK(count == 1 && properties.major == 9 && properties.multiProcessorCount == 7);
        OK(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
        CHECK(value == 232448);
        OK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&value, (const void *)&count, 256, 50000));
        CHECK(value == 4);
        OK(cudaDeviceReset());
        return 0;
    });
}

} // namespace

int run_injection_tests()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(every_call_can_fail_and_nothing_leaks),
        cmocka_unit_test(a_leak_after_a_failure_is_a_fault),
        cmocka_unit_test(unknown_settings_are_refused),
        cmocka_unit_test(properties_are_an_h100s),
    };
    return cmocka_run_group_tests_name("simt_runtime_injection", tests, nullptr, nullptr);
}
