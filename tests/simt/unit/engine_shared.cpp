#include "engine_tests.h"
#include "numeric.cuh"

namespace
{

/* Rows of 16-bit numbers, neighbours written by different threads. */
__global__ void halves(__half *out)
{
    CTK_SHARED(__half, tile, 64);
    const int i = (int)threadIdx.x;
    tile[i] = __float2half((float)i);
    __syncthreads();
    out[i] = tile[63 - i];
}

__global__ void bytes(unsigned char *out)
{
    CTK_DYNAMIC_SHARED(unsigned char, tile);
    const int i = (int)threadIdx.x;
    tile[i] = (unsigned char)i;
    __syncthreads();
    if (i < 16) reinterpret_cast<uint32_t *>(out)[i] = reinterpret_cast<uint32_t *>(tile)[i];
}

void test_bytes()
{
    unsigned char *to = to_device(std::vector<unsigned char>(64));
    run(bytes, 2, 64, 64, to);
    run(bytes, 1, 64, 64, to);
}

void test_blocks_bytes()
{
    unsigned char *to = to_device(std::vector<unsigned char>(64));
    run(bytes, 1, 64, 64, to);
    const std::vector<unsigned char> out = from_device(to, 64);
    for (int i = 0; i < 64; i++) EXPECT(out[i] == i);
}

template <bool barrier> __global__ void shift(float *out)
{
    CTK_SHARED(float, tile, 256);
    const int i = (int)threadIdx.x;
    tile[i] = (float)i;
    __syncthreads();
    const float x = tile[(i + 1) % 256];
    if (barrier) __syncthreads();
    tile[i] = x; /* without the barrier: before a neighbour has read it */
    out[i] = x;
}

__global__ void same_word(float *out)
{
    CTK_SHARED(float, word, 1);
    word[0] = (float)threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = word[0];
}

__global__ void uninitialised_tail(float *out)
{
    CTK_SHARED(float, tile, 64);
    if (threadIdx.x < 63) tile[threadIdx.x] = 1.0f;
    __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x];
}

/* Written by an earlier block, but memory does not survive a block. */
__global__ void left_by_earlier_block(float *out)
{
    CTK_SHARED(float, tile, 32);
    if (blockIdx.x == 0 || out[32] > 0.0f) tile[threadIdx.x] = 1.0f;
    __syncthreads();
    out[threadIdx.x + 64 * blockIdx.x] = tile[threadIdx.x];
}

__global__ void beyond_array(float *out)
{
    CTK_SHARED(float, tile, 64);
    CTK_SHARED(float, next, 64);
    tile[threadIdx.x] = next[threadIdx.x] = 1.0f;
    __syncthreads();
    if (threadIdx.x == 63) tile[threadIdx.x + 1] = 2.0f;
    out[threadIdx.x] = tile[threadIdx.x];
}

__global__ void beyond_dynamic(float *out)
{
    CTK_DYNAMIC_SHARED(float, tile);
    tile[threadIdx.x] = 1.0f;
    out[threadIdx.x] = tile[threadIdx.x];
}

/* float arrays are aligned to 4 bytes, whatever a compiler happens to do. */
__global__ void misaligned_vector(float *out)
{
    CTK_SHARED(float, tile, 256);
    const float x[4] = {1, 2, 3, 4};
    ctk::store(tile + 4 * threadIdx.x, x);
    out[threadIdx.x] = tile[4 * threadIdx.x];
}

__global__ void aligned_vector(float *out)
{
    using quad = ctk::vec<float, 4>;
    CTK_SHARED(quad, tile, 64);
    tile[threadIdx.x] = quad{{1, 2, 3, 4}};
    out[threadIdx.x] = tile[threadIdx.x].v[0];
}

__global__ void beyond_local(float *out, int count)
{
    float x[4] = {1, 2, 3, 4};
    float sum = 0;
    for (int i = 0; i < count; i++) sum += x[i];
    out[threadIdx.x] = sum;
}

__global__ void count_up(int *out)
{
    CTK_SHARED(int, counter, 1);
    if (threadIdx.x == 0) counter[0] = 0;
    __syncthreads();
    atomicAdd(counter, 2);
    __syncthreads();
    out[threadIdx.x] = counter[0];
}

__global__ void count_unset(int *out)
{
    CTK_SHARED(int, counter, 1);
    out[threadIdx.x] = atomicAdd(counter, 1);
}

__global__ void count_and_read(int *out)
{
    CTK_SHARED(int, counter, 1);
    if (threadIdx.x == 0) counter[0] = 0;
    __syncthreads();
    atomicAdd(counter, 1);
    out[threadIdx.x] = counter[0];
}

void test_count_up()
{
    int *to = to_device(std::vector<int>(100));
    run(count_up, 1, 100, 0, to);
    for (int x : from_device(to, 100)) EXPECT(x == 200);
}

float *floats(size_t count)
{
    return to_device(std::vector<float>(count));
}

} // namespace

const std::vector<Test> shared_tests = {
    {"shared: 16-bit neighbours", [] { run(halves, 3, 64, 0, to_device(std::vector<__half>(64))); },
     "race between blocks", true},
    {"shared: 16-bit neighbours, one block",
     [] { run(halves, 1, 64, 0, to_device(std::vector<__half>(64))); }},
    {"shared: bytes", test_blocks_bytes},
    {"shared: bytes of two blocks", test_bytes, "race between blocks", true},
    {"shared: shift", [] { run(shift<true>, 1, 256, 0, floats(256)); }},
    {"shared: shift without a barrier", [] { run(shift<false>, 1, 256, 0, floats(256)); },
     "race in shared memory", true},
    {"shared: one word from all threads", [] { run(same_word, 1, 64, 0, floats(64)); },
     "race in shared memory: write", true},
    {"shared: uninitialised", [] { run(uninitialised_tail, 1, 64, 0, floats(64)); },
     "uninitialised shared memory", true},
    {"shared: not initialised by this block",
     [] { run(left_by_earlier_block, 2, 32, 0, floats(128)); }, "uninitialised shared memory",
     true},
    {"shared: beyond an array", [] { run(beyond_array, 1, 64, 0, floats(64)); },
     "outside shared memory's arrays", true},
    {"shared: beyond the dynamic size", [] { run(beyond_dynamic, 1, 64, 252, floats(64)); },
     "outside shared memory's arrays", true},
    {"shared: dynamic", [] { run(beyond_dynamic, 1, 64, 256, floats(64)); }},
    {"shared: misaligned vector", [] { run(misaligned_vector, 1, 64, 0, floats(64)); },
     "misaligned access", true},
    {"shared: aligned vector", [] { run(aligned_vector, 1, 64, 0, floats(64)); }},
    {"local: in bounds", [] { run(beyond_local, 1, 32, 0, floats(32), 4); }},
    {"local: out of bounds", [] { run(beyond_local, 1, 32, 0, floats(32), 5); }, "out of bounds",
     true},
    {"shared: atomics", test_count_up},
    {"shared: atomic on an unset word",
     [] { run(count_unset, 1, 32, 0, to_device(std::vector<int>(32))); },
     "uninitialised shared memory", true},
    {"shared: read beside atomics",
     [] { run(count_and_read, 1, 64, 0, to_device(std::vector<int>(64))); },
     "race in shared memory", true},
};
