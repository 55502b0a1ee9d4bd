/* A stable sort of packed tokens by two keys at once (token ids and positions), with integer work
 * only, so that equal keys stand together in token order.
 *
 * Radix sort from the lowest digit up, 8 bits or fewer a digit; every pass is two kernels:
 *
 *   count_digits  counts[tile][digit] of every tile of 2048 tokens
 *   place_tokens  a token's place = tokens of lower digits + of its digit in earlier tiles
 *                 + of its digit earlier in its tile, by ballots over 32 tokens at a time
 *
 * blockIdx.y is the table (0: ids, 1: positions); both take the same passes. Keys out of [0, limit)
 * are sorted as `limit`, after all others, and so cannot tear a run of equal keys apart.
 *
 * Bytes: a pass reads keys twice and tokens once and writes both, 20 T; every block of place_tokens
 * also reads all T/2048 tiles' counts, a kilobyte each. Small beside the rows that are summed
 * afterwards, up to about a million tokens, where T^2 takes over.
 *
 * Source: stable radix ranking in warps, Merrill & Grimshaw 2011. */
#ifndef CT_KERNELS_TOKEN_SORT_CUH
#define CT_KERNELS_TOKEN_SORT_CUH

#include "numeric.cuh"

namespace ctk
{

constexpr int sort_threads = 256, sort_warps = sort_threads / 32, sort_rounds = 8,
              sort_tile = sort_threads * sort_rounds, sort_digits = 256;
static_assert(sort_threads == sort_digits, "a thread looks after one digit");

struct sort_table {
    const int32_t *key_in, *token_in; /* token_in NULL: token i is i */
    int32_t *key_out, *token_out;
    int32_t *counts; /* (tiles, sort_digits) */
    int32_t limit;
    int shift, bits; /* the digit is (key >> shift) % 2^bits */
};

struct sort_pass {
    sort_table table[2];
    int64_t count;
};

__device__ __forceinline__ int32_t sort_key(const sort_table &table, int64_t i)
{
    const int32_t key = table.key_in[i];
    return key >= 0 && key < table.limit ? key : table.limit;
}

__device__ __forceinline__ int sort_digit(const sort_table &table, int32_t key)
{
    return (key >> table.shift) & ((1 << table.bits) - 1);
}

/* Where a thread's token of a round is: every warp owns 256 tokens in a row. */
__device__ __forceinline__ int64_t sort_index(int round)
{
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    return (int64_t)blockIdx.x * sort_tile + (warp * sort_rounds + round) * 32 + lane;
}

static __global__ void __launch_bounds__(sort_threads) count_digits(sort_pass pass)
{
    CTK_SHARED(int32_t, tally, sort_digits);
    const sort_table table = blockIdx.y == 0 ? pass.table[0] : pass.table[1];
    tally[threadIdx.x] = 0;
    __syncthreads();
    for (int round = 0; round < sort_rounds; round++) {
        const int64_t i = sort_index(round);
        if (i < pass.count) atomicAdd(&tally[sort_digit(table, sort_key(table, i))], 1);
    }
    __syncthreads();
    table.counts[(int64_t)blockIdx.x * sort_digits + threadIdx.x] = tally[threadIdx.x];
}

/* The sum of the x of all threads before this one. */
__device__ __forceinline__ int32_t sum_before(int32_t x)
{
    CTK_SHARED(int32_t, warp_total, sort_warps);
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    int32_t sum = x;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
        const int32_t lower = __shfl_up_sync(0xffffffffu, sum, distance);
        if (lane >= distance) sum += lower;
    }
    if (lane == 31) warp_total[warp] = sum;
    __syncthreads();
    sum -= x;
    for (int w = 0; w < warp; w++) sum += warp_total[w];
    return sum;
}

/* next[warp][digit], a tally of each warp's tokens, becomes the place of the warp's first. */
__device__ __forceinline__ void first_places(const sort_table &table, int32_t *next)
{
    const int digit = (int)threadIdx.x;
    int32_t total = 0, earlier = 0;
#pragma unroll 8
    for (int tile = 0; tile < (int)gridDim.x; tile++) {
        const int32_t count = table.counts[(int64_t)tile * sort_digits + digit];
        total += count;
        if (tile < (int)blockIdx.x) earlier += count;
    }
    int32_t place = sum_before(total) + earlier;
    for (int warp = 0; warp < sort_warps; warp++) {
        const int32_t count = next[warp * sort_digits + digit];
        next[warp * sort_digits + digit] = place;
        place += count;
    }
}

static __global__ void __launch_bounds__(sort_threads) place_tokens(sort_pass pass)
{
    CTK_SHARED(int32_t, next, sort_warps * sort_digits);
    const sort_table table = blockIdx.y == 0 ? pass.table[0] : pass.table[1];
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    for (int w = 0; w < sort_warps; w++) next[w * sort_digits + threadIdx.x] = 0;
    __syncthreads();
    int32_t key[sort_rounds];
#pragma unroll
    for (int round = 0; round < sort_rounds; round++) {
        const int64_t i = sort_index(round);
        key[round] = i < pass.count ? sort_key(table, i) : 0;
        if (i < pass.count) atomicAdd(&next[warp * sort_digits + sort_digit(table, key[round])], 1);
    }
    __syncthreads();
    first_places(table, next);
    __syncthreads();
#pragma unroll
    for (int round = 0; round < sort_rounds; round++) {
        const int64_t i = sort_index(round);
        const bool valid = i < pass.count;
        const int digit = sort_digit(table, key[round]);
        uint32_t equal = __ballot_sync(0xffffffffu, valid);
        for (int bit = 0; bit < table.bits; bit++) {
            const uint32_t set = __ballot_sync(0xffffffffu, digit >> bit & 1);
            equal &= digit >> bit & 1 ? set : ~set;
        }
        const int rank = __popc(equal & ((1u << lane) - 1));
        int32_t *const place = &next[warp * sort_digits + digit];
        const int32_t first = *place;
        __syncwarp();
        if (valid && rank == 0) *place = first + __popc(equal);
        __syncwarp();
        if (!valid) continue;
        table.key_out[first + rank] = key[round];
        table.token_out[first + rank] = table.token_in ? table.token_in[i] : (int32_t)i;
    }
}

/* ---- host side: what is sorted, and where ---------------------------------------------------- */

inline int64_t sort_tiles(int64_t tokens)
{
    return ceil_div(tokens, sort_tile);
}

/* Bits of the numbers 0 to limit. */
inline int sort_bits(int64_t limit)
{
    int bits = 1;
    while (limit >> bits) bits++;
    return bits;
}

/* Tokens in the order of a key: the result, and room for the passes before. */
struct sorted_tokens {
    int32_t *key, *token;             /* (T) */
    int32_t *other_key, *other_token; /* (T) */
    int32_t *counts;                  /* (tiles, sort_digits) */
};

/* sorted[k] = tokens 0 .. count - 1 by keys[k], values 0 to limits[k] - 1. */
static inline cudaError_t sort_tokens(const sorted_tokens *sorted, const int32_t *const *keys,
                                      const int64_t *limits, int64_t count, cudaStream_t stream)
{
    int passes = 1, bits[2];
    for (int k = 0; k < 2; k++) {
        const int needed = (sort_bits(limits[k]) + 7) / 8;
        passes = needed > passes ? needed : passes;
    }
    for (int k = 0; k < 2; k++) bits[k] = (sort_bits(limits[k]) + passes - 1) / passes;
    const dim3 grid((unsigned)sort_tiles(count), 2);
    for (int p = 0; p < passes; p++) {
        sort_pass pass = {};
        pass.count = count;
        const bool to_result = (passes - 1 - p) % 2 == 0; /* the last pass ends there */
        for (int k = 0; k < 2; k++) {
            const sorted_tokens &s = sorted[k];
            sort_table &t = pass.table[k];
            t.key_in = p == 0 ? keys[k] : to_result ? s.other_key : s.key;
            t.token_in = p == 0 ? nullptr : to_result ? s.other_token : s.token;
            t.key_out = to_result ? s.key : s.other_key;
            t.token_out = to_result ? s.token : s.other_token;
            t.counts = s.counts;
            t.limit = (int32_t)limits[k];
            t.bits = bits[k];
            t.shift = p * bits[k];
        }
        cudaError_t error = launch(count_digits, grid, dim3(sort_threads), 0, stream, pass);
        if (error != cudaSuccess) return error;
        error = launch(place_tokens, grid, dim3(sort_threads), 0, stream, pass);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}

} // namespace ctk

#endif
