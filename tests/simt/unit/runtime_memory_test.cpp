/* Device memory: who may touch it and when, copies' ranges and kinds, limits, leaks. */
#include "runtime_support.h"

#include <cstring>

namespace
{

#if defined(__SANITIZE_ADDRESS__)
constexpr bool under_asan = true;
#else
constexpr bool under_asan = false;
#endif

char *allocate(size_t bytes)
{
    char *memory;
    OK(cudaMalloc((void **)&memory, bytes));
    return memory;
}

void the_host_cannot_touch_device_memory(void **)
{
    expect_fault("host code touched device memory", [] {
        volatile char *memory = allocate(100);
        memory[3] = 1;
        return 0;
    });
    expect_fault("device allocation of 100 bytes at +3", [] {
        volatile char *memory = allocate(100);
        return (int)memory[3];
    });
    expect_fault("freed device allocation of 64 bytes", [] {
        volatile char *memory = allocate(64);
        OK(cudaFree((void *)memory));
        return (int)memory[0];
    });
}

void kernels_cannot_leave_an_allocation(void **)
{
    const size_t sizes[] = {256, 4096, 100000};
    for (size_t bytes : sizes) {
        /* Past the slack of at most 255 bytes nothing is mapped; nor is the page before. */
        for (ptrdiff_t at : {(ptrdiff_t)bytes + 255, (ptrdiff_t)-4096}) {
            Ending ending = in_child({}, [=] {
                char *memory = allocate(bytes);
                OK(launch(nullptr, [=] { memory[at] = 1; }));
                OK(cudaDeviceSynchronize());
                return 0;
            });
            if (!under_asan)
                assert_true(ending.says("SIMT fault:") && ending.says("device allocation of"));
            assert_int_not_equal(ending.status, 0);
        }
    }
    expect_success({}, [] {
        char *memory = allocate(1000);
        CHECK((uintptr_t)memory % 256 == 0);
        CHECK(simt::is_device_memory(memory, 1000));
        CHECK(simt::is_device_memory(memory + 999, 1));
        CHECK(!simt::is_device_memory(memory + 999, 2));
        CHECK(!simt::is_device_memory(memory - 1, 1));
        OK(cudaFree(memory));
        CHECK(!simt::is_device_memory(memory, 1));
        CHECK(simt::in_device_range(memory));
        return 0;
    });
    if (under_asan) {
        Ending ending = in_child({}, [] { /* the slack itself */
                                          char *memory = allocate(100);
                                          OK(launch(nullptr, [=] { memory[100] = 1; }));
                                          OK(cudaDeviceSynchronize());
                                          return 0;
        });
        assert_true(ending.says("AddressSanitizer"));
    }
}

void fresh_memory_is_nan(void **)
{
    expect_success({}, [] {
        float *memory = (float *)allocate(8 * sizeof(float)), seen[8];
        OK(cudaMemcpy(seen, memory, sizeof seen, cudaMemcpyDeviceToHost));
        for (float value : seen) CHECK(value != value);
        OK(cudaFree(memory));
        return 0;
    });
}

void copies_are_checked(void **)
{
    expect_fault("cudaMemcpyDeviceToHost, but the destination is", [] {
        char *memory = allocate(8);
        cudaMemcpyAsync(memory, memory + 4, 4, cudaMemcpyDeviceToHost, nullptr);
        return 0;
    });
    expect_fault("cudaMemcpyHostToDevice, but the source is", [] {
        char *memory = allocate(8);
        cudaMemcpy(memory, memory + 4, 4, cudaMemcpyHostToDevice);
        return 0;
    });
    expect_fault("cudaMemcpyHostToHost, but the destination is", [] {
        char *memory = allocate(8), host[4] = "";
        cudaMemcpy(memory, host, 4, cudaMemcpyHostToHost);
        return 0;
    });
    expect_fault("9 bytes from the source are not within a live allocation", [] {
        char *memory = allocate(8), host[16];
        cudaMemcpy(host, memory, 9, cudaMemcpyDeviceToHost);
        return 0;
    });
    expect_fault("leave their allocation: ", [] {
        char *memory = allocate(64), *pinned;
        OK(cudaMallocHost((void **)&pinned, 32));
        cudaMemcpyAsync(memory, pinned + 16, 17, cudaMemcpyHostToDevice, nullptr);
        return 0;
    });
    expect_fault("source and destination overlap", [] {
        char *memory = allocate(64);
        cudaMemcpyAsync(memory, memory + 16, 17, cudaMemcpyDeviceToDevice, nullptr);
        return 0;
    });
    expect_fault("cudaMemset: the destination is", [] {
        char host[4];
        cudaMemset(host, 0, 4);
        return 0;
    });
    expect_success({}, [] {
        char *memory = allocate(8), seen[4];
        OK(cudaMemcpy(memory, "abc", 4, cudaMemcpyDefault));
        OK(cudaMemcpyAsync(memory + 4, memory, 4, cudaMemcpyDefault, nullptr));
        OK(cudaMemcpy(seen, memory + 4, 4, cudaMemcpyDefault));
        CHECK(strcmp(seen, "abc") == 0);
        OK(cudaFree(memory));
        return 0;
    });
}

void memory_is_limited_and_given_back(void **)
{
    expect_success({{"CT_SIMT_MEMORY_MIB", "2"}}, [] {
        size_t free_bytes, total;
        char *memory = allocate(1 << 20);
        void *more;
        OK(cudaMemGetInfo(&free_bytes, &total));
        CHECK(total == 2 << 20 && free_bytes == 1 << 20);
        CHECK_CUDA(cudaMalloc(&more, (1 << 20) + 1), cudaErrorMemoryAllocation);
        CHECK(!more);
        CHECK_CUDA(cudaPeekAtLastError(), cudaErrorMemoryAllocation);
        CHECK_CUDA(cudaGetLastError(), cudaErrorMemoryAllocation);
        OK(cudaGetLastError());
        OK(cudaFree(memory));
        OK(cudaMallocAsync(&more, 2 << 20, nullptr));
        OK(cudaFreeAsync(more, nullptr));
        OK(cudaMallocAsync(&more, 2 << 20, nullptr)); /* waits for the free */
        OK(cudaFreeAsync(more, nullptr));
        OK(cudaDeviceSynchronize());
        OK(cudaMalloc(&more, 0));
        CHECK(!more);
        return 0;
    });
}

void pinned_memory_is_known(void **)
{
    expect_success({}, [] {
        char *pinned, host[64];
        cudaPointerAttributes attributes;
        OK(cudaHostAlloc((void **)&pinned, 64, cudaHostAllocPortable));
        OK(cudaPointerGetAttributes(&attributes, pinned + 63));
        CHECK(attributes.type == cudaMemoryTypeHost);
        OK(cudaPointerGetAttributes(&attributes, host));
        CHECK(attributes.type == cudaMemoryTypeUnregistered);
        OK(cudaHostRegister(host, sizeof host, cudaHostRegisterDefault));
        CHECK_CUDA(cudaHostRegister(host + 8, 8, 0), cudaErrorHostMemoryAlreadyRegistered);
        OK(cudaPointerGetAttributes(&attributes, host));
        CHECK(attributes.type == cudaMemoryTypeHost);
        OK(cudaHostUnregister(host));
        OK(cudaFreeHost(pinned));
        return 0;
    });
}

void leaks_and_double_frees_are_faults(void **)
{
    expect_fault("leak: 1 x device allocation", [] { return !allocate(10); });
    expect_fault("leak: 1 x event", [] {
        cudaEvent_t event;
        return (int)cudaEventCreate(&event);
    });
    expect_fault("leak: 2 x stream", [] {
        cudaStream_t stream;
        return (int)(cudaStreamCreate(&stream) + cudaStreamCreate(&stream));
    });
    expect_fault("leak: 1 x pinned allocation", [] {
        static void *pinned;
        return (int)cudaMallocHost(&pinned, 10);
    });
    expect_fault("cudaFree: not a live allocation", [] {
        char *memory = allocate(10);
        OK(cudaFree(memory));
        return (int)cudaFree(memory);
    });
    expect_fault("cudaFree: ", [] {
        char *memory = allocate(10);
        return (int)cudaFree(memory + 1);
    });
}

} // namespace

int run_memory_tests()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(the_host_cannot_touch_device_memory),
        cmocka_unit_test(kernels_cannot_leave_an_allocation),
        cmocka_unit_test(fresh_memory_is_nan),
        cmocka_unit_test(copies_are_checked),
        cmocka_unit_test(memory_is_limited_and_given_back),
        cmocka_unit_test(pinned_memory_is_known),
        cmocka_unit_test(leaks_and_double_frees_are_faults),
    };
    return cmocka_run_group_tests_name("simt_runtime_memory", tests, nullptr, nullptr);
}
