#include "engine_tests.h"
#include "reduce.cuh"

namespace
{

__global__ void reverse(int *out, const int *in)
{
    CTK_SHARED(int, tile, 256);
    const int i = (int)threadIdx.x, n = (int)blockDim.x;
    tile[i] = in[blockIdx.x * n + i];
    __syncthreads();
    out[blockIdx.x * n + i] = tile[n - 1 - i];
}

void test_reverse()
{
    std::vector<int> in(96 * 5);
    for (size_t i = 0; i < in.size(); i++) in[i] = (int)i;
    int *from = to_device(in), *to = to_device(std::vector<int>(in.size()));
    run(reverse, 5, 96, 0, to, from);
    const std::vector<int> out = from_device(to, in.size());
    for (int b = 0; b < 5; b++)
        for (int i = 0; i < 96; i++) EXPECT(out[b * 96 + i] == b * 96 + 95 - i);
}

__global__ void sum_twice(float *out, const float *in)
{
    const float x = in[threadIdx.x];
    const float sum = ctk::block_sum(x);
    const float squares = ctk::block_sum(x * x);
    out[2 * threadIdx.x] = sum;
    out[2 * threadIdx.x + 1] = squares;
}

void test_block_sum()
{
    std::vector<float> in(128);
    float sum = 0, squares = 0;
    for (int i = 0; i < 128; i++) {
        in[i] = (float)(i % 7);
        sum += in[i];
        squares += in[i] * in[i];
    }
    float *to = to_device(std::vector<float>(256));
    run(sum_twice, 1, 128, 0, to, to_device(in));
    const std::vector<float> out = from_device(to, 256);
    for (int i = 0; i < 128; i++) EXPECT(out[2 * i] == sum && out[2 * i + 1] == squares);
}

__global__ void vote(int *out)
{
    const int odd = threadIdx.x % 2;
    const int count = __syncthreads_count(odd);
    const int all = __syncthreads_and(odd);
    const int any = __syncthreads_or(odd);
    out[threadIdx.x] = count * 4 + (all != 0) * 2 + (any != 0);
}

void test_vote()
{
    int *to = to_device(std::vector<int>(50));
    run(vote, 1, 50, 0, to);
    for (int x : from_device(to, 50)) EXPECT(x == 25 * 4 + 1);
}

/* Threads that have exited are not waited for. */
__global__ void leave_early(int *out)
{
    CTK_SHARED(int, tile, 64);
    if (threadIdx.x >= 40) return;
    tile[threadIdx.x] = (int)threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = tile[39 - threadIdx.x];
}

void test_leave_early()
{
    int *to = to_device(std::vector<int>(40));
    run(leave_early, 1, 64, 0, to);
    EXPECT(from_device(to, 40)[0] == 39);
}

__global__ void store_own(int *out)
{
    out[blockIdx.x * blockDim.x + threadIdx.x] = (int)threadIdx.x;
}

void test_no_barrier()
{
    int *to = to_device(std::vector<int>(70 * 1024));
    run(store_own, 70, 1024, 0, to);
    const std::vector<int> out = from_device(to, 70 * 1024);
    for (size_t i = 0; i < out.size(); i++) EXPECT(out[i] == (int)(i % 1024));
}

__global__ void barriers_at_two_places(int)
{
    if (threadIdx.x < 32) __syncthreads();
    else __syncthreads();
}

__global__ void barrier_against_warp(int)
{
    if (threadIdx.x < 16) __syncthreads();
    __syncwarp();
}

__global__ void barrier_against_other_reduction(int)
{
    if (threadIdx.x < 16) __syncthreads_or(1);
    else __syncthreads_and(1);
}

} // namespace

const std::vector<Test> barrier_tests = {
    {"barrier: reverse", test_reverse},
    {"barrier: block_sum twice", test_block_sum},
    {"barrier: votes", test_vote},
    {"barrier: exited threads", test_leave_early},
    {"barrier: none", test_no_barrier},
    {"barrier: two places", [] { run(barriers_at_two_places, 1, 64, 0, 0); }, "divergent barrier"},
    {"barrier: against a warp operation", [] { run(barrier_against_warp, 1, 32, 0, 0); },
     "divergent threads: __syncwarp"},
    {"barrier: two kinds", [] { run(barrier_against_other_reduction, 1, 32, 0, 0); },
     "divergent barrier: __syncthreads_"},
};
