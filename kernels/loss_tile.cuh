/* The contrastive losses' tile engine: 128 x 128 numbers of a product of two matrices a block, on
 * tensor cores, from operands in any of the compute dtypes.
 *
 *   sum[a][b] = terms of line a of one operand times those of line b of the other
 *
 * Precision: bf16 and f16 by m16n8k16, exact products and f32 sums. f32 by m16n8k8 of TF32: either
 * rounded to 10 bits, where the device's mode is tf32, or (SPLIT) as three products of a number's
 * first 11 bits and the 11 after them, which keeps 22 of 24 bits of each operand (3xTF32: Ootomo &
 * Yokota 2022).
 *
 * Plan: 256 threads, 8 warps, 64 x 32 results each: 64 accumulators a thread, which leaves room for
 * two blocks a multiprocessor within 128 registers. An operand's lines arrive in slabs of 64 bytes
 * each (32 terms, or 16 of f32), four slabs deep by cp.async, one barrier a slab: 64 KiB. The
 * stream of slabs does not stop between the tiles of a block: while one tile's results are taken
 * in, the next one's first three slabs are on their way.
 *
 * Where an operand's terms are neighbours in memory (by row) a slab is [line][term], else [term]
 * [line]; ldmatrix transposes 16-bit numbers on the way to registers. 16-byte units of a slab are
 * permuted by exclusive or (unit_of), so that neither the copies nor the fragments' reads meet a
 * bank conflict:
 *   [line][term], rows of 64 bytes   unit ^ line / 2 % 4   8 lines at one unit: 8 groups of banks
 *   [term][line], 16 bits            unit ^ term % 8       8 terms at one unit
 *   [term][line], f32                unit ^ term % 4 * 2   4 terms of 8 lines, 4 bytes a lane
 *
 * Bytes: a tile reads 2 x 128 lines from L2, 64 flops a byte of 16-bit operands. An A100's L2 gives
 * 5.4 TB/s, enough for its 312 TFLOPS; an H100's, at the 7 TB/s measured on the PCIe board, feeds
 * 450 of 990. Next are the reads of shared memory, 96 lines for a warp's 64 x 32 results: they
 * allow an H100 490, an A100 all of its 312 (benchmarks/loss_model.py, a model). A kernel for sm_90
 * alone, with wgmma and tiles shared by a cluster's multicast, would go beyond. */
#ifndef CT_KERNELS_LOSS_TILE_CUH
#define CT_KERNELS_LOSS_TILE_CUH

#include <cstring>

#include "mma.cuh"
#include "numeric.cuh"

namespace ctk::loss
{

constexpr int TILE = 128, THREADS = 256, STAGES = 4, SLAB_ROW_BYTES = 64;
constexpr int WARP_ROWS = 64, WARP_COLUMNS = 32, WARPS_DOWN = TILE / WARP_ROWS,
              WARPS_ACROSS = TILE / WARP_COLUMNS;
constexpr int STAGE_BYTES = 2 * TILE * SLAB_ROW_BYTES, SHARED_BYTES = STAGES * STAGE_BYTES;

/* Terms of a slab, numbers of an operand's slab. */
template <class T> constexpr int SLAB = SLAB_ROW_BYTES / (int)sizeof(T);
template <class T> constexpr int SLAB_NUMBERS = TILE *SLAB<T>;

/* A matrix in memory, row-major, `stride` numbers from row to row. Rows start at multiples of 16
 * bytes and `columns` is a multiple of vec_width<T>; beyond either extent numbers are 0. */
template <class T> struct operand {
    const T *data;
    int64_t rows, columns, stride;
};

/* What a warp's lanes hold of its results: [i][j][e] is row 16 i + lane / 4 + e / 2 * 8, column
 * 8 j + lane % 4 * 2 + e % 2 of the warp's part. */
using accumulators = float[WARP_ROWS / 16][WARP_COLUMNS / 8][4];

/* Where a thread's 8 x 8 numbers lie in the tile. Result (r, c) is acc[r / 2][c / 2][r % 2 * 2 + c
 * % 2]. */
struct place {
    unsigned lane, warp_down, warp_across;
    int row0, column0;
    __device__ __forceinline__ place()
    {
        const unsigned thread = (unsigned)opaque((int)threadIdx.x), warp = thread / 32;
        lane = thread % 32;
        warp_down = warp % WARPS_DOWN;
        warp_across = warp / WARPS_DOWN;
        row0 = (int)(warp_down * WARP_ROWS + lane / 4);
        column0 = (int)(warp_across * WARP_COLUMNS + lane % 4 * 2);
    }
    __device__ __forceinline__ int row(int r) const { return row0 + r * 8; }
    __device__ __forceinline__ int column(int c) const { return column0 + c / 2 * 8 + c % 2; }
};

__device__ __forceinline__ float &result(accumulators &acc, int r, int c)
{
    return acc[r / 2][c / 2][r % 2 * 2 + c % 2];
}

__device__ __forceinline__ void clear(accumulators &acc)
{
#pragma unroll
    for (int i = 0; i < WARP_ROWS / 16; i++)
#pragma unroll
        for (int j = 0; j < WARP_COLUMNS / 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) acc[i][j][e] = 0.0f;
}

/* ---- slabs --------------------------------------------------------------------------------- */

/* Where 16-byte unit `unit` of row `row` of a slab is kept. Row: a line, or a term. */
template <class T, bool BY_ROW> __device__ __forceinline__ int unit_of(int row, int unit)
{
    if constexpr (BY_ROW) return unit ^ (row / 2 % 4);
    else if constexpr (sizeof(T) == 4) return unit ^ (row % 4 * 2);
    else return unit ^ (row % 8);
}

/* Numbers of a row of a slab, and the start of a unit. */
template <class T, bool BY_ROW> constexpr int SLAB_ROW = BY_ROW ? SLAB<T> : TILE;
template <class T, bool BY_ROW> __device__ __forceinline__ int unit_start(int row, int unit)
{
    return row * SLAB_ROW<T, BY_ROW> + unit_of<T, BY_ROW>(row, unit) * vec_width<T>;
}

/* A thread's part of an operand's slabs, for a tile's lines. */
template <class T, bool BY_ROW> class slab_source
{
  public:
    __device__ __forceinline__ slab_source(const operand<T> &m, int64_t line)
    {
        const int row = (int)(threadIdx.x / UNITS), column = (int)(threadIdx.x % UNITS) * W;
        start =
            m.data + (BY_ROW ? (line + row) * m.stride + column : row * m.stride + line + column);
        lines_left = (int)((BY_ROW ? m.rows - row : m.columns - column) - line);
    }
    /* Starts the copy of the slab from `term` on. A turn's rows are a whole number of the
     * permutation's periods, so all turns' places differ by a constant. */
    __device__ __forceinline__ void copy(T *slab, const operand<T> &m, int term) const
    {
        constexpr int ROWS = THREADS / UNITS; /* a turn */
        const int own_row = (int)(threadIdx.x / UNITS), unit = (int)(threadIdx.x % UNITS);
        const T *from = start + (BY_ROW ? term : term * m.stride);
        T *to = slab + unit_start<T, BY_ROW>(own_row, unit);
#pragma unroll
        for (int turn = 0; turn < SLAB_NUMBERS<T> / W / THREADS; turn++) {
            const int row = turn * ROWS;
            const bool inside = BY_ROW ? lines_left > row && term + unit * W < (int)m.columns
                                       : lines_left > 0 && term + own_row + row < (int)m.rows;
            cp_async_16(to + row * SLAB_ROW<T, BY_ROW>, from + row * m.stride, inside ? 16 : 0);
        }
    }
    __device__ __forceinline__ void next_tile(const operand<T> &m)
    {
        start += BY_ROW ? TILE * m.stride : TILE;
        lines_left -= TILE;
    }

  private:
    static constexpr int W = vec_width<T>, UNITS = SLAB_ROW<T, BY_ROW> / W; /* of a row */
    const T *start; /* this thread's, of term 0 */
    int lines_left; /* from this thread's own */
};

/* ---- fragments ----------------------------------------------------------------------------- */

/* A slab is two steps of one `mma` each: 16 terms, or 8 of f32, 32 bytes. */
constexpr int STEPS = 2;

/* The second step's units of a slab by row are two further; their permuted places are those of the
 * first step two units further or back, the same way for all of a lane's lines. */
template <class T>
__device__ __forceinline__ const T *by_row_place(const T *slab, int row, int unit, int step)
{
    const int first = unit_start<T, true>(row, unit), second = first ^ (2 * vec_width<T>);
    return slab + first + (step ? second - first : 0);
}

/* Where an f32 of a slab [term][line] is kept: its line ^ term % 4 * 8, whose parts are told apart
 * so that 4 of a lane's addresses serve all. warp_line is a multiple of 32. */
__device__ __forceinline__ int f32_place(int warp_line, int offset, int term)
{
    const int lane = (int)(threadIdx.x % 32);
    return (term + lane % 4) * TILE + warp_line + offset / 32 * 32 + (offset % 32 ^ lane % 4 * 8) +
           lane / 4;
}

/* The left operand of 16 lines from warp_line + offset. By row, f32 come as 16-bit numbers do: a
 * lane's 32 bits are one number instead of two. */
template <class T, bool BY_ROW>
__device__ __forceinline__ void read_left(uint32_t (&a)[4], const T *slab, int warp_line,
                                          int offset, int step)
{
    const int lane = (int)(threadIdx.x % 32), line = warp_line + offset;
    if constexpr (BY_ROW) {
        ldmatrix_x4(a,
                    by_row_place(slab, warp_line + lane % 16, lane / 16, step) + offset * SLAB<T>);
    } else if constexpr (sizeof(T) == 2) {
        const int term = 16 * step + lane % 8 + lane / 16 * 8;
        ldmatrix_x4_trans(a, slab + unit_start<T, false>(term, line / 8 + lane / 8 % 2));
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++)
            a[i] = __float_as_uint(
                slab[f32_place(warp_line, offset + i % 2 * 8, 8 * step + i / 2 * 4)]);
    }
}

/* The right operand of 16 lines, as two of 8. */
template <class T, bool BY_ROW>
__device__ __forceinline__ void read_right(uint32_t (&b)[2][2], const T *slab, int warp_line,
                                           int offset, int step)
{
    const int lane = (int)(threadIdx.x % 32), line = warp_line + offset;
    if constexpr (sizeof(T) == 4 && !BY_ROW) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            b[i / 2][i % 2] = __float_as_uint(
                slab[f32_place(warp_line, offset + i / 2 * 8, 8 * step + i % 2 * 4)]);
    } else {
        uint32_t four[4];
        if constexpr (BY_ROW) {
            const int row = warp_line + lane % 8 + lane / 16 * 8;
            ldmatrix_x4(four, by_row_place(slab, row, lane / 8 % 2, step) + offset * SLAB<T>);
        } else {
            const int term = 16 * step + lane % 16;
            ldmatrix_x4_trans(four, slab + unit_start<T, false>(term, line / 8 + lane / 16));
        }
#pragma unroll
        for (int i = 0; i < 4; i++) b[i / 2][i % 2] = four[i];
    }
}

/* x[i] = the first 11 bits of the f32 in x[i]; rest[i] the 11 after them. */
template <int N> __device__ __forceinline__ void split(uint32_t (&x)[N], uint32_t (&rest)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++) {
        const float whole = __uint_as_float(x[i]);
        x[i] = tf32(whole);
        rest[i] = tf32(whole - __uint_as_float(x[i]));
    }
}

template <class T, bool SPLIT>
__device__ __forceinline__ void
multiply_fragments(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&a_rest)[4],
                   const uint32_t (&b)[2], const uint32_t (&b_rest)[2])
{
    if constexpr (sizeof(T) == 2) {
        mma_m16n8k16<T>(d, a, b);
    } else {
        if constexpr (SPLIT) {
            mma_m16n8k8_tf32(d, a_rest, b);
            mma_m16n8k8_tf32(d, a, b_rest);
        }
        mma_m16n8k8_tf32(d, a, b);
    }
}

/* acc += the product of two slabs. */
template <class T, bool SPLIT, bool A_BY_ROW, bool B_BY_ROW>
__device__ __forceinline__ void multiply_slabs(accumulators &acc, const T *a_slab, const T *b_slab)
{
    const unsigned warp = threadIdx.x / 32;
    const int row = (int)(warp % WARPS_DOWN) * WARP_ROWS,
              column = (int)(warp / WARPS_DOWN) * WARP_COLUMNS;
#pragma unroll(SPLIT ? 1 : STEPS)
    for (int step = 0; step < STEPS; step++) {
        uint32_t b[WARP_COLUMNS / 8][2], b_rest[WARP_COLUMNS / 8][2] = {};
#pragma unroll
        for (int j = 0; j < WARP_COLUMNS / 8; j += 2) {
            uint32_t pair[2][2];
            read_right<T, B_BY_ROW>(pair, b_slab, column, 8 * j, step);
#pragma unroll
            for (int n = 0; n < 4; n++) b[j + n / 2][n % 2] = pair[n / 2][n % 2];
        }
        if constexpr (sizeof(T) == 4) {
#pragma unroll
            for (int j = 0; j < WARP_COLUMNS / 8; j++) split(b[j], b_rest[j]);
        }
#pragma unroll
        for (int i = 0; i < WARP_ROWS / 16; i++) {
            uint32_t a[4], a_rest[4] = {};
            read_left<T, A_BY_ROW>(a, a_slab, row, 16 * i, step);
            if constexpr (sizeof(T) == 4) split(a, a_rest);
#pragma unroll
            for (int j = 0; j < WARP_COLUMNS / 8; j++)
                multiply_fragments<T, SPLIT>(acc[i][j], a, a_rest, b[j], b_rest[j]);
        }
    }
}

/* ---- a block's tiles ----------------------------------------------------------------------- */

/* The products of lines a_line .. of `a` with those of `b` from b_line on, one tile after the
 * other. All threads come to every function. */
template <class T, bool SPLIT, bool A_BY_ROW, bool B_BY_ROW> class tile_sweep
{
  public:
    /* Starts the first slabs of `tiles` tiles of `terms` terms. */
    __device__ __forceinline__ tile_sweep(T *shared, const operand<T> &a, int64_t a_line,
                                          const operand<T> &b, int64_t b_line, int terms, int tiles)
        : a(a), b(b), shared(shared), terms(terms), tiles(tiles), a_source(a, a_line),
          b_source(b, b_line)
    {
#pragma unroll
        for (int i = 0; i < STAGES - 1; i++) copy_next();
    }

    /* acc = the next tile's product. Holds barriers. */
    __device__ __forceinline__ void next(accumulators &acc)
    {
        clear(acc);
#pragma unroll 1
        for (int done = 0; done < terms; done += SLAB<T>) {
            cp_async_wait<STAGES - 2>();
            __syncthreads(); /* this slab is there, and all are done with the one before */
            const T *slabs = stage(copied + 1);
            copy_next();
            multiply_slabs<T, SPLIT, A_BY_ROW, B_BY_ROW>(acc, slabs, slabs + SLAB_NUMBERS<T>);
        }
    }

  private:
    __device__ __forceinline__ T *stage(int slab) const
    {
        return shared + (unsigned)slab % STAGES * (2 * SLAB_NUMBERS<T>);
    }

    /* One group a call, empty when there is nothing left, so that waiting may count groups: the
     * slab to multiply is always the one STAGES - 1 before. */
    __device__ __forceinline__ void copy_next()
    {
        if (tiles > 0) {
            T *slabs = stage(copied);
            a_source.copy(slabs, a, term);
            b_source.copy(slabs + SLAB_NUMBERS<T>, b, term);
            term += SLAB<T>;
            if (term >= terms) {
                term = 0;
                b_source.next_tile(b);
                tiles--;
            }
        }
        copied = (int)((unsigned)(copied + 1) % STAGES);
        cp_async_commit();
    }

    const operand<T> &a, &b;
    T *const shared;
    const int terms;
    int tiles;                /* not yet copied as a whole */
    int copied = 0, term = 0; /* stage and first term of the next slab to copy */
    slab_source<T, A_BY_ROW> a_source;
    slab_source<T, B_BY_ROW> b_source;
};

/* ---- results ------------------------------------------------------------------------------- */

template <class T> __device__ __forceinline__ uint32_t packed(float low, float high)
{
    const T numbers[2] = {from_float<T>(low), from_float<T>(high)};
    uint32_t bits;
    memcpy(&bits, numbers, sizeof bits);
    return bits;
}

/* A warp writes each of its rows 32 bytes at a time, the sectors that memory is written in: lanes
 * exchange halves of 16-bit numbers for that. */
template <class T>
__device__ __forceinline__ void store_row(T *to, int columns, accumulators &acc, int r,
                                          const place &at, bool inside)
{
    if constexpr (sizeof(T) == 4) {
#pragma unroll
        for (int c = 0; c < 8; c += 2) {
            const float pair[2] = {result(acc, r, c), result(acc, r, c + 1)};
            if (inside && at.column(c) < columns) store<2>(to + at.column(c), pair);
        }
    } else {
        const int odd = (int)(at.lane % 2);
#pragma unroll
        for (int c = 0; c < 8; c += 4) {
            const uint32_t first = packed<T>(result(acc, r, c), result(acc, r, c + 1)),
                           second = packed<T>(result(acc, r, c + 2), result(acc, r, c + 3));
            const uint32_t other = __shfl_xor_sync(0xffffffffu, odd ? first : second, 1);
            const vec<uint32_t, 2> four = {odd ? other : first, odd ? second : other};
            const int column = at.column(c) + odd * (8 - 2);
            if (inside && column < columns)
                *reinterpret_cast<vec<uint32_t, 2> *>(to + column) = four;
        }
    }
}

/* Rows 0 .. rows-1, columns 0 .. columns-1 of the tile at `to`. `by_fours`: stride and columns are
 * multiples of 4 and `to` is aligned to as many. All lanes must come. */
template <class T>
__device__ __forceinline__ void store_results(T *to, int64_t stride, int rows, int columns,
                                              accumulators &acc, bool by_fours)
{
    const place at;
#pragma unroll
    for (int r = 0; r < 8; r++) {
        const bool inside = at.row(r) < rows;
        T *row = to + at.row(r) * stride;
        if (by_fours) {
            store_row(row, columns, acc, r, at, inside);
        } else {
#pragma unroll
            for (int c = 0; c < 8; c++)
                if (inside && at.column(c) < columns)
                    row[at.column(c)] = from_float<T>(result(acc, r, c));
        }
    }
}

} // namespace ctk::loss

#endif
