#include "engine_tests.h"

namespace
{

using ctk::cp_async_16;
using ctk::cp_async_commit;
using ctk::cp_async_wait;

/* Tiles of 32 x 4 numbers through two buffers, as a pipeline does it. */
template <int waiting> __global__ void pipeline(float *out, const float *in, int tiles)
{
    CTK_SHARED(float4, buffer, 2 * 32);
    const int i = (int)threadIdx.x;
    const float4 *from = reinterpret_cast<const float4 *>(in);
    float4 *to = reinterpret_cast<float4 *>(out);
    cp_async_16(&buffer[i], from + i);
    cp_async_commit();
    for (int tile = 0; tile < tiles; tile++) {
        if (tile + 1 < tiles)
            cp_async_16(&buffer[(tile + 1) % 2 * 32 + i], from + (tile + 1) * 32 + i);
        cp_async_commit();
        cp_async_wait<waiting>();
        __syncthreads();
        to[tile * 32 + i] = buffer[tile % 2 * 32 + 31 - i];
        __syncthreads();
    }
}

template <int waiting> void test_pipeline()
{
    std::vector<float> in(7 * 128);
    for (size_t i = 0; i < in.size(); i++) in[i] = (float)i;
    float *to = to_device(std::vector<float>(in.size()));
    run(pipeline<waiting>, 1, 32, 0, to, to_device(in), 7);
    const std::vector<float> out = from_device(to, in.size());
    for (int tile = 0; tile < 7; tile++)
        for (int i = 0; i < 128; i++)
            EXPECT(out[tile * 128 + i] == in[tile * 128 + (31 - i / 4) * 4 + i % 4]);
}

__global__ void partial(float *out, const float *in)
{
    CTK_SHARED(float4, buffer, 32);
    const int i = (int)threadIdx.x;
    cp_async_16(&buffer[i], in, i < 16 ? 4 : 0);
    cp_async_commit();
    cp_async_wait<0>();
    const float4 x = buffer[i];
    out[4 * i] = x.x;
    out[4 * i + 1] = x.y;
    out[4 * i + 2] = x.z;
    out[4 * i + 3] = x.w;
}

void test_partial()
{
    float *to = to_device(std::vector<float>(128, 1.0f));
    run(partial, 1, 32, 0, to, to_device(std::vector<float>{5.0f}));
    const std::vector<float> out = from_device(to, 128);
    for (int i = 0; i < 128; i++) EXPECT(out[i] == (i % 4 == 0 && i < 64 ? 5.0f : 0.0f));
}

__global__ void without_barrier(float4 *out, const float4 *in)
{
    CTK_SHARED(float4, buffer, 32);
    const int i = (int)threadIdx.x;
    cp_async_16(&buffer[i], in + i);
    cp_async_commit();
    cp_async_wait<0>();
    out[i] = buffer[i ^ 1];
}

template <bool commit> __global__ void copy(float4 *out, const float4 *in)
{
    CTK_SHARED(float4, buffer, 32);
    const int i = (int)threadIdx.x;
    cp_async_16(&buffer[i], in + i);
    if (commit) cp_async_commit();
    cp_async_wait<0>();
    out[i] = buffer[i];
}

/* Without the checker, too, what is read too early is NaN and not the right number. */
__global__ void too_early(int *out, const float4 *in)
{
    CTK_SHARED(float4, buffer, 32);
    const int i = (int)threadIdx.x;
    cp_async_16(&buffer[i], in + i);
    cp_async_commit();
    const float x = buffer[i].x;
    cp_async_wait<0>();
    out[i] = x == x;
}

void test_too_early()
{
    int *to = to_device(std::vector<int>(32, 1));
    run(too_early, 1, 32, 0, to, (const float4 *)to_device(std::vector<float4>(32)));
    for (int x : from_device(to, 32)) EXPECT(x == 0);
}

__global__ void overwrite_pending(float4 *out, const float4 *in)
{
    CTK_SHARED(float4, buffer, 32);
    const int i = (int)threadIdx.x;
    cp_async_16(&buffer[i], in + i);
    cp_async_commit();
    buffer[i] = float4();
    cp_async_wait<0>();
    out[i] = buffer[i];
}

__global__ void from_odd_place(float4 *out, const float *in)
{
    CTK_SHARED(float4, buffer, 1);
    cp_async_16(buffer, in + 1);
    cp_async_commit();
    cp_async_wait<0>();
    out[0] = buffer[0];
}

void run_on_quads(void (*kernel)(float4 *, const float4 *), size_t source)
{
    run(kernel, 1, 32, 0, to_device(std::vector<float4>(32)),
        (const float4 *)to_device(std::vector<float4>(source)));
}

} // namespace

const std::vector<Test> async_tests = {
    {"async: pipeline", test_pipeline<1>},
    {"async: pipeline that waits for all", test_pipeline<0>},
    {"async: pipeline that waits too little", test_pipeline<2>,
     "cp.async to it has not been waited", true},
    {"async: partial", test_partial},
    {"async: no barrier", [] { run_on_quads(without_barrier, 32); }, "shared memory", true},
    {"async: no commit", [] { run_on_quads(copy<false>, 32); }, "has not been waited for", true},
#if defined(CT_SIMT_CHECKED)
    {"async: too early", test_too_early, "has not been waited for", true},
#else
    {"async: too early", test_too_early},
#endif
    {"async: overwritten", [] { run_on_quads(overwrite_pending, 32); }, "has not been waited for",
     true},
    {"async: copy", [] { run_on_quads(copy<true>, 32); }},
    {"async: source too short", [] { run_on_quads(copy<true>, 31); }, "outside device memory"},
    {"async: misaligned source",
     [] {
         run(from_odd_place, 1, 1, 0, to_device(std::vector<float4>(1)),
             to_device(std::vector<float>(8)));
     },
     "misaligned source"},
};
