#include "engine_tests.h"

namespace
{

struct Big {
    double numbers[400];
};

__global__ void from_big(double *out, Big big, char small, int64_t shift)
{
    big.numbers[0] += (double)threadIdx.x; /* each thread's own copy */
    out[threadIdx.x] = big.numbers[0] + big.numbers[399] + small + (double)shift;
}

void test_arguments()
{
    double *to = to_device(std::vector<double>(32));
    Big big = {};
    big.numbers[0] = 1000;
    big.numbers[399] = 200;
    EXPECT(ctk::launch(from_big, dim3(1), dim3(32), 0, nullptr, to, big, 'a', 3) == cudaSuccess);
    big.numbers[0] = 0; /* the launch has its copy */
    EXPECT(cudaDeviceSynchronize() == cudaSuccess);
    const std::vector<double> out = from_device(to, 32);
    for (int i = 0; i < 32; i++) EXPECT(out[i] == 1203.0 + 'a' + i);
}

__global__ void index(int *out)
{
    const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] += 1;
}

void test_indices()
{
    const size_t count = 2 * 3 * 4 * 5 * 6 * 7;
    int *to = to_device(std::vector<int>(count));
    EXPECT(ctk::launch(index, dim3(2, 3, 4), dim3(5, 6, 7), 0, nullptr, to) == cudaSuccess);
    EXPECT(cudaDeviceSynchronize() == cudaSuccess);
    for (int x : from_device(to, count)) EXPECT(x == 1);
}

__global__ void fill_shared(float *out, int rows)
{
    CTK_SHARED(float, fixed, 1024);
    CTK_DYNAMIC_SHARED(float, tile);
    fixed[threadIdx.x] = 1.0f;
    for (int i = 0; i < rows; i++) tile[i * 32 + threadIdx.x] = fixed[threadIdx.x];
    out[threadIdx.x] = tile[(rows - 1) * 32 + threadIdx.x];
}

cudaError_t try_launch(dim3 grid, dim3 block, size_t shared_bytes)
{
    float *to = to_device(std::vector<float>(32));
    return ctk::launch(fill_shared, grid, block, shared_bytes, nullptr, to, 1);
}

void test_limits()
{
    EXPECT(try_launch(dim3(1), dim3(1025), 128) == cudaErrorInvalidConfiguration);
    EXPECT(try_launch(dim3(1), dim3(0), 128) == cudaErrorInvalidConfiguration);
    EXPECT(try_launch(dim3(1), dim3(1, 1, 65), 128) == cudaErrorInvalidConfiguration);
    EXPECT(try_launch(dim3(1, 65536), dim3(32), 128) == cudaErrorInvalidConfiguration);
    EXPECT(try_launch(dim3(0, 65536), dim3(32), 128) == cudaSuccess);
    EXPECT(try_launch(dim3(1), dim3(32), 227 * 1024 + 1) == cudaErrorInvalidValue);
}

void launch_with_shared(size_t bytes)
{
    run(fill_shared, 2, 32, bytes, to_device(std::vector<float>(32)), 1);
}

__global__ void too_much_static(float *out)
{
    CTK_SHARED(float, tile, 12 * 1024 + 1);
    tile[threadIdx.x] = 1.0f;
    out[threadIdx.x] = tile[threadIdx.x];
}

__global__ void stop(int x)
{
    if (x) __trap();
}

/* Frames of several KiB, and recursion: stacks hold them. */
__device__ int deep(int n)
{
    volatile char frame[512];
    frame[n % 512] = (char)n;
    return n ? deep(n - 1) + frame[n % 512] - (char)n + 1 : 0;
}

__global__ void recurse(int *out)
{
    out[threadIdx.x] = deep(50);
}

void test_recursion()
{
    int *to = to_device(std::vector<int>(64));
    run(recurse, 1, 64, 0, to);
    for (int x : from_device(to, 64)) EXPECT(x == 50);
}

} // namespace

const std::vector<Test> launch_tests = {
    {"launch: arguments", test_arguments},
    {"launch: indices", test_indices},
    {"launch: limits", test_limits},
    {"launch: most shared memory",
     [] { run(fill_shared, 1, 32, (227 - 4) * 1024, to_device(std::vector<float>(32)), 1); }},
    {"launch: too much shared memory", [] { launch_with_shared((227 - 4) * 1024 + 1); },
     "bytes of static and"},
    {"launch: too much static shared memory",
     [] { run(too_much_static, 1, 32, 0, to_device(std::vector<float>(32))); }, "at most 49152"},
    {"launch: trap", [] { run(stop, 1, 32, 0, 1); }, "__trap at"},
    {"launch: no trap", [] { run(stop, 1, 32, 0, 0); }},
    {"launch: recursion", test_recursion},
};
