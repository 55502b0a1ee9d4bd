/* What the attention kernels share: the problem, how blocks find their rows, the dropout mask, rows
 * of no sequence, and the launchers of the two families:
 *
 *   attention_fwd_mma.cuh, attention_bwd_*_mma.cuh
 *     tensor cores: bf16 and f16, depths that are multiples of 8
 *   attention_fma.cuh
 *     f32 arithmetic: all dtypes and depths
 *
 * A .cu file instantiates one kernel family for one dtype, so that no file compiles long. Depths go
 * to MAX_DEPTH. A block works on one tile of rows of one head of one sequence. Blocks are numbered
 * so that tiles of a head, then heads of a sequence are neighbours: they share keys and values, and
 * whole rows of qkv (3 H d numbers), in L2. */
#ifndef CT_KERNELS_ATTENTION_CUH
#define CT_KERNELS_ATTENTION_CUH

#include <climits>
#include <type_traits>

#include "kernels.h"
#include "numeric.cuh"

namespace ctk::attention
{

constexpr int MAX_DEPTH = 128, FUSED_BACKWARD_ROWS = 64;
constexpr float LOG2_E = 1.44269504088896341f, LN_2 = 0.693147180559945309f;

/* What both directions have in common; a kernel's parameter. */
struct problem {
    const int32_t *cu_seqlens, *step; /* step is only read with dropout */
    int64_t tokens;
    int sequences, heads, depth, max_seqlen;
    int tiles; /* of a sequence of max_seqlen rows; set for each launch */
    float scale, dropout;
    ct_rng_key key;
    bool causal;
};

template <class T> struct forward {
    T *o;
    float *lse;
    const T *qkv;
};

template <class T> struct backward {
    T *dqkv;
    const T *d_o, *o, *qkv;
    const float *lse;
    float *delta; /* (T, H) scratch: rowsum(dO O), where more than one kernel needs it */
};

/* Defined in attention_fwd_mma.cuh, attention_bwd_*_mma.cuh, attention_fma.cuh. The fused one takes
 * max_seqlen to FUSED_BACKWARD_ROWS. */
template <class T>
cudaError_t forward_mma(const problem &p, const forward<T> &f, cudaStream_t stream);
template <class T>
cudaError_t backward_fused_mma(const problem &p, const backward<T> &b, cudaStream_t stream);
template <class T>
cudaError_t backward_long_mma(const problem &p, const backward<T> &b, cudaStream_t stream);
template <class T>
cudaError_t forward_fma(const problem &p, const forward<T> &f, cudaStream_t stream);
template <class T>
cudaError_t backward_fma(const problem &p, const backward<T> &b, cudaStream_t stream);

/* Row r of a sequence that starts at `first`: x + (first + r) stride, in elements. */
__device__ __forceinline__ int64_t qkv_stride(const problem &p)
{
    return (int64_t)3 * p.heads * p.depth;
}
__device__ __forceinline__ int64_t o_stride(const problem &p)
{
    return (int64_t)p.heads * p.depth;
}

/* The tile of this block: rows begin .. of `length` rows of the sequence from row `first`. */
struct task {
    int64_t first;
    int length, head, begin;
};

/* Whether this block has rows at all; the answer is the same for all its threads. */
__device__ __forceinline__ bool find_task(const problem &p, int tile_rows, task &t)
{
    const int pair = blockIdx.x / p.tiles, sequence = pair / p.heads;
    if (sequence >= p.sequences) return false;
    t.head = pair % p.heads;
    t.begin = (int)(blockIdx.x % p.tiles) * tile_rows;
    t.first = p.cu_seqlens[sequence];
    t.length = (int)(p.cu_seqlens[sequence + 1] - t.first);
    return t.begin < t.length;
}

/* Part 0 (q), 1 (k) or 2 (v) of row 0 of the task's head, in qkv or dqkv. */
template <class T>
__device__ __forceinline__ T *part_of(const problem &p, const task &t, T *qkv, int part)
{
    return qkv + ((t.first * 3 + part) * p.heads + t.head) * p.depth;
}
/* Row 0 of the task's head in o or d_o. */
template <class T> __device__ __forceinline__ T *head_of(const problem &p, const task &t, T *o)
{
    return o + (t.first * p.heads + t.head) * p.depth;
}

/* Rows cu_seqlens[N] .. T-1 of x, `width` numbers each, = 0, shared by all blocks of the grid: they
 * are few, at most what rounding T up adds, and need no launch of their own. */
template <class T>
__device__ __forceinline__ void zero_spare_rows(const problem &p, T *x, int64_t width)
{
    const int64_t begin = p.cu_seqlens[p.sequences] * width, end = p.tokens * width;
    const int64_t threads = (int64_t)gridDim.x * blockDim.x;
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    constexpr int W = vec_width<T>;
    if ((uintptr_t)x % 16 == 0 && width % W == 0) {
        const float zeros[W] = {};
        for (i = begin + i * W; i < end; i += threads * W) store<W>(x + i, zeros);
    } else {
        for (i += begin; i < end; i += threads) x[i] = from_float<T>(0.0f);
    }
}

/* ---- dropout ------------------------------------------------------------------------------- */

/* Bit i: whether the probability of key j + i is kept, for the query in row `row` of the packed
 * batch; j a multiple of 4, so that the four numbers are one block of Philox (op.h's indices). */
__device__ __forceinline__ uint32_t keep_four(const problem &p, ct_rng_key key, int64_t row,
                                              int head, int j)
{
    const ct_philox block =
        ct_philox_block(key, (uint64_t)(row * p.heads + head) * (65536 / 4) + (uint32_t)j / 4);
    uint32_t keep = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) keep |= (ct_rng_to_unit(block.word[i]) >= p.dropout ? 1u : 0u) << i;
    return keep;
}

/* The key of this step. */
__device__ __forceinline__ ct_rng_key step_key(const problem &p)
{
    return p.dropout > 0.0f ? ct_rng_at_step(p.key, p.step[0]) : p.key;
}

/* ---- host ---------------------------------------------------------------------------------- */

/* Launches `kernel` with p.tiles set for tiles of `rows` rows: one block each, and at least one, to
 * write the spare rows. */
template <class Data>
cudaError_t launch_tiles(void (*kernel)(problem, Data), problem p, const Data &data, int rows,
                         int threads, size_t shared_bytes, cudaStream_t stream)
{
    p.tiles = p.max_seqlen > rows ? (int)ceil_div(p.max_seqlen, rows) : 1;
    const int64_t blocks = (int64_t)p.sequences * p.heads * p.tiles;
    if (blocks > INT_MAX) return cudaErrorInvalidValue;
    return launch(kernel, dim3(blocks > 0 ? (unsigned)blocks : 1), dim3((unsigned)threads),
                  shared_bytes, stream, p, data);
}

/* Calls f with the least constant of Depths that is at least `depth`. */
template <int First, int... Rest, class F> cudaError_t with_depth(int depth, F f)
{
    if (depth <= First) return f(std::integral_constant<int, First>());
    if constexpr (sizeof...(Rest) > 0) return with_depth<Rest...>(depth, f);
    return cudaErrorInvalidValue;
}

} // namespace ctk::attention

#endif
