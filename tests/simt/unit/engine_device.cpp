#include "engine_tests.h"
#include "numeric.cuh"

namespace
{

constexpr float table[4] = {1, 2, 4, 8};

__global__ void scale(float *out, const float *in, int count)
{
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < count) out[i] = in[i] * table[i % 4];
}

void test_scale()
{
    const int count = 5000;
    float *to = to_device(std::vector<float>(count));
    run(scale, 20, 256, 0, to, to_device(std::vector<float>(count, 3.0f)), count);
    const std::vector<float> out = from_device(to, count);
    for (int i = 0; i < count; i++) EXPECT(out[i] == 3.0f * table[i % 4]);
}

void test_scale_too_far()
{
    float *to = to_device(std::vector<float>(5000));
    run(scale, 20, 256, 0, to, to_device(std::vector<float>(4999)), 5000);
}

__global__ void half_words(__nv_bfloat16 *out)
{
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    out[i] = __float2bfloat16((float)i);
}

__global__ void same_place(float *out)
{
    out[threadIdx.x] = (float)blockIdx.x;
}

__global__ void read_of_other_block(float *out)
{
    out[blockIdx.x] = 1.0f;
    out[2 + blockIdx.x] = out[1 - blockIdx.x];
}

__global__ void overlap_in_block(float *out)
{
    out[threadIdx.x] = 1.0f;
    out[threadIdx.x + 64] = out[(threadIdx.x + 1) % 64];
}

__global__ void ordered_in_block(float *out)
{
    out[threadIdx.x] = 1.0f;
    __syncthreads();
    out[threadIdx.x + 64] = out[(threadIdx.x + 1) % 64];
}

__global__ void in_place(float *x)
{
    x[threadIdx.x] += 1.0f;
}

/* Two launches on one stream: the second reads what other blocks of the first wrote. */
void test_two_launches()
{
    float *x = to_device(std::vector<float>(64));
    run(in_place, 1, 64, 0, x);
    run(in_place, 1, 64, 0, x);
    for (float y : from_device(x, 64)) EXPECT(y == 2.0f);
}

/* The last block to finish adds what all have written (CUDA's sample threadFenceReduction). */
template <bool fence> __global__ void last_block_adds(float *sum, float *partial, unsigned *counter)
{
    CTK_SHARED(int, last, 1);
    if (threadIdx.x < 4) partial[4 * blockIdx.x + threadIdx.x] = (float)(blockIdx.x + 1);
    if (fence) __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) last[0] = atomicAdd(counter, 1u) == gridDim.x - 1;
    __syncthreads();
    if (!last[0] || threadIdx.x != 0) return;
    float total = 0;
    for (unsigned i = 0; i < 4 * gridDim.x; i++) total += partial[i];
    *sum = total;
    *counter = 0;
}

template <bool fence> void test_last_block()
{
    float *sum = to_device(std::vector<float>(1)), *partial = to_device(std::vector<float>(80));
    unsigned *counter = to_device(std::vector<unsigned>(1));
    for (int i = 0; i < 2; i++) {
        run(last_block_adds<fence>, 20, 64, 0, sum, partial, counter);
        EXPECT(from_device(sum, 1)[0] == 4.0f * 210.0f && from_device(counter, 1)[0] == 0);
    }
}

/* Every block reads it, one changes it. */
__global__ void change_what_others_read(float *x, float *out)
{
    out[blockIdx.x] = x[0];
    if (blockIdx.x == 1) x[0] = 2.0f;
}

__global__ void count(int *counter, unsigned long long *largest)
{
    atomicAdd(counter, 1);
    atomicMax(largest, (unsigned long long)(blockIdx.x * 1000 + threadIdx.x));
}

void test_count()
{
    int *counter = to_device(std::vector<int>(1));
    auto *largest = to_device(std::vector<unsigned long long>(1));
    run(count, 10, 100, 0, counter, largest);
    EXPECT(from_device(counter, 1)[0] == 1000 && from_device(largest, 1)[0] == 9099);
}

__global__ void through_pointer(float *const *where)
{
    **where = 1.0f;
}

__global__ void store_one(float *where)
{
    *where = 1.0f;
}

void test_host_memory()
{
    static float here;
    run(store_one, 1, 1, 0, &here);
}

/* A thread publishes the address of a local variable. */
__global__ void local_of_another(float *out, float **box)
{
    float mine = (float)threadIdx.x;
    if (threadIdx.x == 0) *box = &mine;
    __syncthreads();
    out[threadIdx.x] = **box;
    __syncthreads();
}

__global__ void misaligned(float *out, const float *in)
{
    float x[4];
    ctk::load(x, in + 1);
    out[threadIdx.x] = x[0];
}

float *floats(size_t count)
{
    return to_device(std::vector<float>(count));
}

} // namespace

const std::vector<Test> device_tests = {
    {"device: scale", test_scale},
    {"device: read past the end", test_scale_too_far, "outside device memory", true},
    {"device: 16-bit neighbours of blocks",
     [] { run(half_words, 9, 33, 0, to_device(std::vector<__nv_bfloat16>(9 * 33))); }},
    {"device: two blocks write", [] { run(same_place, 2, 32, 0, floats(32)); },
     "race between blocks: write", true},
    {"device: a block reads another's", [] { run(read_of_other_block, 2, 1, 0, floats(4)); },
     "race between blocks", true},
    {"device: a block changes what others read",
     [] { run(change_what_others_read, 4, 1, 0, floats(1), floats(4)); }, "race between blocks",
     true},
    {"device: threads overlap", [] { run(overlap_in_block, 1, 64, 0, floats(128)); },
     "race in device memory", true},
    {"device: threads in order", [] { run(ordered_in_block, 1, 64, 0, floats(128)); }},
    {"device: two launches", test_two_launches},
    {"device: last block", test_last_block<true>},
    {"device: last block without a fence", test_last_block<false>, "race between blocks", true},
    {"device: atomics", test_count},
    {"device: host memory", test_host_memory, "touched host memory", true},
    {"device: null", [] { run(store_one, 1, 1, 0, (float *)nullptr); }, "touched host memory",
     true},
    {"device: null in memory",
     [] { run(through_pointer, 1, 1, 0, to_device(std::vector<float *>(1))); },
     "touched host memory", true},
    {"device: another thread's local",
     [] { run(local_of_another, 1, 32, 0, floats(32), to_device(std::vector<float *>(1))); },
     "another thread's local memory", true},
    {"device: misaligned vector", [] { run(misaligned, 1, 1, 0, floats(1), floats(8)); },
     "misaligned access", true},
};
