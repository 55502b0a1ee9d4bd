/* Tests of the SIMT device's engine. Each runs in a process of its own, under several seeds. One
 * that names a fault must end with that fault under every seed: what the checker finds does not
 * depend on the order in which threads happen to run. */
#ifndef CT_TESTS_SIMT_UNIT_ENGINE_TESTS_H
#define CT_TESTS_SIMT_UNIT_ENGINE_TESTS_H

#include <vector>

#include "device.cuh"
#include "mma.cuh"
#include "simt/simt.h"

struct Test {
    const char *name;
    void (*run)();
    const char *fault = nullptr; /* words of the report; NULL: must pass */
    bool by_checker = false;     /* found by the checker of memory accesses alone */
};

extern const std::vector<Test> barrier_tests, warp_tests, shared_tests, device_tests, mma_tests,
    async_tests, launch_tests;

[[noreturn]] void test_failed(const char *file, int line, const char *expression);

#define EXPECT(expression)                                                                         \
    do {                                                                                           \
        if (!(expression)) test_failed(__FILE__, __LINE__, #expression);                           \
    } while (0)

template <class T> T *to_device(const std::vector<T> &values)
{
    void *memory = nullptr;
    EXPECT(cudaMalloc(&memory, values.size() * sizeof(T)) == cudaSuccess);
    EXPECT(cudaMemcpy(memory, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice) ==
           cudaSuccess);
    return static_cast<T *>(memory);
}

template <class T> std::vector<T> from_device(const T *memory, size_t count)
{
    std::vector<T> values(count);
    EXPECT(cudaMemcpy(values.data(), memory, count * sizeof(T), cudaMemcpyDeviceToHost) ==
           cudaSuccess);
    return values;
}

/* Launches, waits, and expects success. */
template <class... P, class... A>
void run(void (*kernel)(P...), unsigned blocks, unsigned threads, size_t shared_bytes,
         A... arguments)
{
    EXPECT(ctk::launch(kernel, dim3(blocks), dim3(threads), shared_bytes, nullptr, arguments...) ==
           cudaSuccess);
    EXPECT(cudaDeviceSynchronize() == cudaSuccess);
}

#endif
