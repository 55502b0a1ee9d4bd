/* What the kernels of the contrastive losses share: the problem, what a pair (i, j) is to the loss,
 * and what each row and column of a tile must know for that.
 *
 *   loss_tile.cuh           the product of a tile
 *   loss_sums.cuh           sums of exponentials that neither overflow nor vanish
 *   loss_fwd.cuh, .cu       forward, both losses: tiles of similarities to sums; its launchers
 *   loss_bwd.cuh, .cu       backward: tiles of similarities to dz, products of dz; its launchers
 *   loss_batch.cuh, .cu     what launchers begin with: checks, photo weights, padded rows
 *   loss.cu                 joining the parts of several devices
 *   loss_{fwd,bwd}_*.cu     one dtype each, so that no file compiles long */
#ifndef CT_KERNELS_LOSS_CUH
#define CT_KERNELS_LOSS_CUH

#include "kernels.h"
#include "loss_tile.cuh"

namespace ctk::loss
{

constexpr float LOG2_E = 1.44269504088896341f, LN_2 = 0.693147180559945309f;

enum class loss_kind { softmax, sigmoid };

/* Blocks a multiprocessor of the similarities' kernels: two, within 128 registers, but for the
 * sigmoid's in split f32, which would spill two to four of them on some architectures. */
template <bool SPLIT, loss_kind KIND>
constexpr int blocks_an_sm = SPLIT &&KIND == loss_kind::sigmoid ? 1 : 2;

/* A kernel's parameter. */
struct problem {
    const float *logit_scale; /* log of the factor */
    const float *logit_bias;  /* sigmoid only */
    const int32_t *photo_ids; /* (N) */
    /* (N), NULL where constant. SHARE (softmax): 1/number of equal photo ids. MASK with label
     * smoothing: 1/counted pairs of the row, or of the column. */
    const float *weights;
    int64_t count; /* N */
    float smoothing;
    float even; /* 2/N: of a pair's share in a row and in a column without weights */
    bool mask, share;
};

/* Lines begin .. begin + count - 1 of an operand in memory by row. */
template <class T>
__host__ __device__ inline operand<T> lines_of(const operand<T> &all, int64_t begin, int64_t count)
{
    return {all.data + begin * all.stride, count, all.columns, all.stride};
}

/* ---- pairs --------------------------------------------------------------------------------- */

/* A tile's extent and its part of the diagonal. */
struct tile_extent {
    int rows, columns; /* inside, 1 .. TILE */
    int diagonal;      /* row - column of the pairs i = j; TILE where there are none */
};

/* What a tile knows of its lines, in shared memory: rows, then columns. */
struct tile_lines {
    int32_t *ids;   /* (2 TILE) */
    float *weights; /* (2 TILE) */
    tile_extent *extent;
};

/* Of rows from `row` and columns from `column` on, up to their ends. Threads 0 .. TILE-1 have a row
 * each, the others a column. */
__device__ __forceinline__ void note_lines(const tile_lines &lines, const problem &p, int64_t row,
                                           int64_t row_end, int64_t column, int64_t column_end)
{
    const int t = opaque((int)threadIdx.x);
    const int64_t index = (t < TILE ? row : column) + t % TILE;
    const bool inside = index < (t < TILE ? row_end : column_end);
    lines.ids[t] = inside ? p.photo_ids[index] : 0;
    if (p.weights) lines.weights[t] = inside ? p.weights[index] : 0.0f;
    if (t > 0) return;
    const int64_t rows = row_end - row, columns = column_end - column, diagonal = column - row;
    *lines.extent = {rows < TILE ? (int)rows : TILE, columns < TILE ? (int)columns : TILE,
                     diagonal > -TILE && diagonal < TILE ? (int)diagonal : TILE};
}

/* What a thread's 8 x 8 pairs are to the loss, two bits a pair. */
class lane_pairs
{
  public:
    __device__ __forceinline__ lane_pairs(const problem &p, const tile_extent &extent,
                                          const tile_lines &lines)
    {
        const bool plain = !p.mask && extent.rows == TILE && extent.columns == TILE;
        counts[0] = counts[1] = plain ? ~0u : 0u;
        positives[0] = positives[1] = 0;
        if (plain && !p.share && extent.diagonal == TILE) return;
        int32_t ids[8];
#pragma unroll
        for (int c = 0; c < 8; c++) ids[c] = lines.ids[TILE + at.column(c)];
#pragma unroll
        for (int r = 0; r < 8; r++) {
            const int row = at.row(r);
            const int32_t id = lines.ids[row];
#pragma unroll
            for (int c = 0; c < 8; c++) {
                const bool inside = row < extent.rows && at.column(c) < extent.columns,
                           same = id == ids[c], diagonal = row - at.column(c) == extent.diagonal;
                if (inside && (diagonal || !(p.mask && same))) counts[r / 4] |= bit(r, c);
                if (inside && (p.share ? same : diagonal)) positives[r / 4] |= bit(r, c);
            }
        }
    }
    /* In the denominators, or in the sum. */
    __device__ __forceinline__ bool counted(int r, int c) const
    {
        return counts[r / 4] & bit(r, c);
    }
    /* The photo is the caption's. Positive pairs are counted. */
    __device__ __forceinline__ bool positive(int r, int c) const
    {
        return positives[r / 4] & bit(r, c);
    }
    const place at;

  private:
    static __device__ __forceinline__ uint32_t bit(int r, int c)
    {
        return 1u << (r % 4 * 8 + c);
    }
    uint32_t counts[2], positives[2];
};

/* Whether any target of the tile is not 0. */
__device__ __forceinline__ bool has_targets(const problem &p, const tile_extent &extent)
{
    return p.share || p.smoothing > 0.0f || extent.diagonal < TILE;
}

/* The mean of row_target and col_target (op.h) of a pair. */
__device__ __forceinline__ float target_of(const problem &p, const tile_lines &lines,
                                           const lane_pairs &pairs, int r, int c)
{
    const float *row = lines.weights + pairs.at.row(r);
    float target = 0.0f;
    if (pairs.positive(r, c)) target = (1.0f - p.smoothing) * (p.share ? *row : 1.0f);
    if (p.smoothing > 0.0f && pairs.counted(r, c)) {
        const float both = p.mask ? *row + lines.weights[TILE + pairs.at.column(c)] : p.even;
        target += 0.5f * p.smoothing * both;
    }
    return target;
}

/* ---- what launchers ask of the files of one dtype -------------------------------------------- */

struct power_sum; /* loss_sums.cuh */

/* Forward over a band of rows: where its sums go. */
struct forward_band {
    int64_t row, rows; /* index of the first; image's lines begin there */
    int row_tiles, column_tiles;
    int run;                /* column tiles that a block takes */
    power_sum *row_sums;    /* (runs, row_stride) */
    float *row_targets;     /* (runs, row_stride) sums of target z */
    power_sum *column_sums; /* (row tiles, N) */
    double *losses;         /* (blocks), sigmoid only */
    int64_t row_stride;
};

/* Backward over a rectangle of pairs. */
template <class T> struct gradient_chunk {
    int64_t row, column; /* indices of the first; image's and text's lines begin there */
    int rows, columns;
    T *dz; /* whole tiles, zero where there is no pair; times DZ_FACTOR<T> */
    int64_t stride;
    const float *row_lse, *col_lse; /* (N), softmax only */
    double *sums;                   /* (2, GRADIENT_SLOTS) += sums of dz z and of dz; may be NULL */
};

constexpr int CHUNK = 4096, GRADIENT_SLOTS = (CHUNK / TILE) * (CHUNK / TILE);

/* A power of two that keeps dz, 2 at most, among f16's normal numbers down to 3.7e-9. */
template <class T> constexpr float DZ_FACTOR = std::is_same_v<T, __half> ? 16384.0f : 1.0f;

/* One side's product: sum = [sum +] dz other; when last, to = factor sum. */
template <class T> struct gradient_product {
    operand<T> dz, other;
    T *to;
    float *sum; /* (rows, width); may be NULL when there is but one product */
    int rows, terms;
    bool add, last;
};

template <class T> struct gradient_products {
    gradient_product<T> image, text; /* rows 0: none */
    const float *logit_scale;
    const float *loss_scale; /* NULL: 1 */
    float share;             /* of a pair in the loss, over DZ_FACTOR<T> */
    int width;
};

template <class T>
cudaError_t launch_forward(loss_kind kind, const problem &p, const operand<T> &image,
                           const operand<T> &text, const forward_band &band,
                           const ctk_launch *launch);
template <class T>
cudaError_t launch_gradients(loss_kind kind, const problem &p, const operand<T> &image,
                             const operand<T> &text, const gradient_chunk<T> &chunk,
                             const ctk_launch *launch);
template <class T>
cudaError_t launch_products(const gradient_products<T> &products, const ctk_launch *launch);

/* Calls f with whether f32 operands are split: 16-bit ones never are. */
template <class T, class F> cudaError_t with_split(const ctk_launch *launch, F f)
{
    if constexpr (sizeof(T) == 4)
        if (!launch->tf32) return f(std::true_type());
    return f(std::false_type());
}

} // namespace ctk::loss

#endif
