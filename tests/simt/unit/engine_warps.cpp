#include "engine_tests.h"
#include "reduce.cuh"

namespace
{

template <class T> __global__ void shuffles(T *out, int width)
{
    const int lane = (int)threadIdx.x % 32;
    const T x = (T)(lane * 3 + 1);
    T *to = out + 4 * threadIdx.x;
    to[0] = __shfl_sync(0xffffffffu, x, lane * 5 + 2, width);
    to[1] = __shfl_up_sync(0xffffffffu, x, 3, width);
    to[2] = __shfl_down_sync(0xffffffffu, x, 5, width);
    to[3] = __shfl_xor_sync(0xffffffffu, x, 6, width);
}

template <class T> void expect_shuffles(int width)
{
    T *to = to_device(std::vector<T>(4 * 64));
    run(shuffles<T>, 1, 64, 0, to, width);
    const std::vector<T> out = from_device(to, 4 * 64);
    for (int i = 0; i < 64; i++) {
        const int lane = i % 32, first = lane / width * width, last = first + width - 1;
        const int sources[4] = {first + (lane * 5 + 2) % width, lane - 3 >= first ? lane - 3 : lane,
                                lane + 5 <= last ? lane + 5 : lane,
                                (lane ^ 6) <= last ? lane ^ 6 : lane};
        for (int k = 0; k < 4; k++) EXPECT(out[4 * i + k] == (T)(sources[k] * 3 + 1));
    }
}

void test_shuffles()
{
    for (int width : {32, 16, 8}) {
        expect_shuffles<int>(width);
        expect_shuffles<unsigned>(width);
        expect_shuffles<float>(width);
        expect_shuffles<double>(width);
        expect_shuffles<unsigned long long>(width);
    }
}

__global__ void votes(unsigned *out)
{
    const unsigned lane = threadIdx.x % 32;
    unsigned *to = out + 6 * threadIdx.x;
    to[0] = __ballot_sync(0xffffffffu, lane % 3 == 0);
    to[1] = (unsigned)__any_sync(0xffffffffu, lane == 7);
    to[2] = (unsigned)__all_sync(0xffffffffu, lane != 7);
    to[3] = __match_any_sync(0xffffffffu, lane / 8);
    to[4] = __reduce_max_sync(0xffffffffu, lane);
    to[5] = lane < 8 ? __ballot_sync(0xffu, 1) : __ballot_sync(0xffffff00u, lane & 1);
}

void test_votes()
{
    unsigned *to = to_device(std::vector<unsigned>(6 * 32));
    run(votes, 1, 32, 0, to);
    const std::vector<unsigned> out = from_device(to, 6 * 32);
    for (unsigned lane = 0; lane < 32; lane++) {
        const unsigned *x = &out[6 * lane];
        EXPECT(x[0] == 0x49249249u && x[1] == 1 && x[2] == 0 && x[3] == 0xffu << (lane / 8 * 8));
        EXPECT(x[4] == 31 && x[5] == (lane < 8 ? 0xffu : 0xaaaaaa00u));
    }
}

/* Lanes exchange through shared memory: with __syncwarp, or at fault without. */
template <bool barrier> __global__ void exchange(int *out)
{
    CTK_SHARED(int, tile, 64);
    const int i = (int)threadIdx.x;
    for (int round = 0; round < 3; round++) {
        tile[i] = i + round;
        if (barrier) __syncwarp();
        out[i] = tile[i ^ 1];
        if (barrier) __syncwarp();
    }
}

/* Pairs of lanes, each pair with a mask of its own. */
__global__ void exchange_in_pairs(int *out)
{
    CTK_SHARED(int, tile, 32);
    const int i = (int)threadIdx.x;
    const unsigned pair = 3u << (i & ~1);
    tile[i] = i;
    __syncwarp(pair);
    out[i] = tile[i ^ 1];
    __syncwarp(pair);
    tile[i ^ 1] = 0;
}

__global__ void exchange_beyond_pair(int *out)
{
    CTK_SHARED(int, tile, 32);
    const int i = (int)threadIdx.x;
    tile[i] = i;
    __syncwarp(3u << (i & ~1));
    out[i] = tile[i ^ 2];
}

/* A shuffle orders no memory accesses. */
__global__ void exchange_over_shuffle(int *out)
{
    CTK_SHARED(int, tile, 32);
    const int i = (int)threadIdx.x;
    tile[i] = __shfl_sync(0xffffffffu, i, 0);
    out[i] = __shfl_sync(0xffffffffu, 1, 0) + tile[i ^ 1];
}

/* All lanes read a word again after the barrier that ordered the others' reads, then one writes. */
__global__ void read_twice(int *out)
{
    CTK_SHARED(int, word, 1);
    const int i = (int)threadIdx.x;
    if (i == 0) word[0] = 5;
    __syncwarp();
    int x = word[0];
    __syncwarp();
    if (i == 3) word[0] = word[0] + 1;
    out[i] = x;
}

__global__ void exited_lane(float *out)
{
    if (threadIdx.x == 5) return;
    out[threadIdx.x] = ctk::warp_sum(1.0f);
}

__global__ void lane_elsewhere(int *out)
{
    int x = 0;
    if (threadIdx.x == 5) x = (int)__ballot_sync(0xffffffffu, 1);
    else x = __shfl_sync(0xffffffffu, 1, 0);
    out[threadIdx.x] = x;
}

__global__ void unnamed_lane(int *out)
{
    out[threadIdx.x] = __shfl_sync(0xffffu, 1, 0);
}

__global__ void undefined_source(int *out)
{
    if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(0xffffu, (int)threadIdx.x, 16);
}

int *words(size_t count)
{
    return to_device(std::vector<int>(count));
}

void test_exchange_in_pairs()
{
    int *to = words(32);
    run(exchange_in_pairs, 1, 32, 0, to);
    const std::vector<int> out = from_device(to, 32);
    for (int i = 0; i < 32; i++) EXPECT(out[i] == (i ^ 1));
}

} // namespace

const std::vector<Test> warp_tests = {
    {"warp: shuffles", test_shuffles},
    {"warp: votes", test_votes},
    {"warp: exchange", [] { run(exchange<true>, 1, 64, 0, words(64)); }},
    {"warp: exchange without a barrier", [] { run(exchange<false>, 1, 64, 0, words(64)); },
     "shared memory: ", true},
    {"warp: exchange in pairs", test_exchange_in_pairs},
    {"warp: exchange beyond the mask", [] { run(exchange_beyond_pair, 1, 32, 0, words(32)); },
     "shared memory: ", true},
    {"warp: exchange over a shuffle", [] { run(exchange_over_shuffle, 1, 32, 0, words(32)); },
     "race in shared memory", true},
    {"warp: write after ordered reads", [] { run(read_twice, 1, 32, 0, words(32)); }},
    {"warp: exited lane", [] { run(exited_lane, 1, 32, 0, to_device(std::vector<float>(32))); },
     "waits for lane 5, which has exited"},
    {"warp: lane elsewhere", [] { run(lane_elsewhere, 1, 32, 0, words(32)); }, "divergent threads"},
    {"warp: lane not in its mask", [] { run(unnamed_lane, 1, 32, 0, words(32)); },
     "does not name the calling lane"},
    {"warp: source takes no part", [] { run(undefined_source, 1, 32, 0, words(32)); },
     "its value is undefined"},
};
