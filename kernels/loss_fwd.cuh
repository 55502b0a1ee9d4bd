/* Forward of the contrastive losses over a band of rows (op.h: ct_clip_loss_fwd_args,
 * ct_siglip_loss_fwd_args): tiles of similarities, and at once what the loss needs of them.
 *
 *   z = exp(logit_scale) image text^T
 *   softmax: for each row and each column of a tile sum_counted exp(z); for rows sum target z
 *   sigmoid: sum_counted log(1 + exp(-y (z + bias)))
 *
 * Shapes: image (band, D), text (N, D). One product serves both directions, and one exponential
 * does: where a warp's 64 x 32 similarities lie within 2^112 of each other, which they do unless
 * the factor is large and a tile has both like and opposite pairs, all are taken relative to one
 * power of two, and no sum can overflow or vanish. Elsewhere they are taken in levels of 2^112,
 * each relative to its own. Sums carry their exponent (loss_sums.cuh).
 *
 * Plan: a block has a row tile and `run` column tiles, one after the other, and keeps its rows'
 * sums in registers; its columns' sums go to memory, one a row tile of the band. Blocks are
 * numbered down the band first: those that run together read the band's rows (4 MiB of bf16 at D =
 * 512) and a few column tiles, all from L2. A tile's end costs two folds of 8 sums by shuffles and
 * one barrier; the other block of the multiprocessor multiplies meanwhile.
 *
 * Bytes: text once a band and image once from memory; from L2 2 x 128 lines a tile. Work: 2 D flops
 * a pair, bound by L2's bandwidth (loss_tile.cuh).
 * Source: Radford et al. 2021, Zhai et al. 2023; the tiling is that of Inf-CL (Cheng et al. 2024)
 * but that rows and columns share a pass. */
#ifndef CT_KERNELS_LOSS_FWD_CUH
#define CT_KERNELS_LOSS_FWD_CUH

#include "loss_sums.cuh"
#include "reduce.cuh"

namespace ctk::loss
{

/* A tile's sums of each row by the warps across, of each column by the warps down. */
struct tile_sums {
    power_sum *rows;    /* (WARPS_ACROSS, TILE) */
    power_sum *columns; /* (WARPS_DOWN, TILE) */
    float *targets;     /* (WARPS_ACROSS, TILE) */
};

/* Exponentials are taken relative to a power of two; NaN and what is beyond all reason give some
 * number too, for the exponential to do what it must. */
__device__ __forceinline__ float reference_exponent(float highest)
{
    return fminf(fmaxf(ceilf(highest), -268435456.0f), 268435456.0f);
}

/* Where the warp's part of the row's or of the column's sum goes. */
__device__ __forceinline__ power_sum *row_sum(const tile_sums &sums, const place &at, int r)
{
    return sums.rows + (int)at.warp_across * TILE + at.row(r);
}

__device__ __forceinline__ power_sum *column_sum(const tile_sums &sums, const place &at, int c)
{
    return sums.columns + (int)at.warp_down * TILE + at.column(c);
}

/* Exponentials within 2^112 of each other can share a reference: all are normal numbers, and so are
 * sums of them. */
constexpr float LEVEL = 112.0f;

/* Adds the exponentials of a warp's products from `highest` down, to LEVEL below, or ALL; returns
 * the highest that is left. A NaN is in every level. */
template <bool ALL>
__device__ __forceinline__ float take_level(accumulators &acc, const lane_pairs &pairs,
                                            float factor, float highest, bool is_first,
                                            const tile_sums &sums)
{
    const float lowest = fminf(highest, highest - LEVEL / factor);
    const float reference = reference_exponent(highest * factor);
    const int exponent = __float2int_rz(reference);
    auto put = [&](power_sum *to, float sum) {
        const power_sum level = normal_sum(exponent, sum);
        *to = is_first ? level : joined(*to, level);
    };
    float rows[4] = {}, columns[8] = {}, left = -INFINITY;
#pragma unroll
    for (int r = 0; r < 8; r++) {
        if (r % 4 == 0) rows[0] = rows[1] = rows[2] = rows[3] = 0.0f;
#pragma unroll
        for (int c = 0; c < 8; c++) {
            const float product = result(acc, r, c);
            const bool taken = ALL || (!(product > highest) && !(product < lowest));
            if (!ALL && product < lowest) left = fmaxf(left, product);
            float e = exp2_approx(fmaf(product, factor, -reference));
            e = taken && pairs.counted(r, c) ? e : 0.0f;
            rows[r % 4] += e;
            columns[c] += e;
        }
        if (r % 4 == 3)
            fold_rows(rows, r - 3, pairs.at.lane,
                      [&](int row, float sum) { put(row_sum(sums, pairs.at, row), sum); });
    }
    fold_columns(columns, pairs.at.lane,
                 [&](int c, float sum) { put(column_sum(sums, pairs.at, c), sum); });
    return left;
}

__device__ __forceinline__ void put_sums(accumulators &acc, const lane_pairs &pairs, float factor,
                                         const tile_sums &sums)
{
    float highest = -INFINITY, lowest = INFINITY; /* of all pairs, counted or not */
#pragma unroll
    for (int r = 0; r < 8; r++)
#pragma unroll
        for (int c = 0; c < 8; c++) {
            highest = fmaxf(highest, result(acc, r, c));
            lowest = fminf(lowest, result(acc, r, c));
        }
    highest = warp_max(highest);
    lowest = -warp_max(-lowest);
    if (factor * (highest - lowest) <= LEVEL) {
        take_level<true>(acc, pairs, factor, highest, true, sums);
        return;
    }
    bool is_first = true;
#pragma unroll 1
    do {
        highest = warp_max(take_level<false>(acc, pairs, factor, highest, is_first, sums));
        is_first = false;
    } while (highest > -INFINITY);
}

__device__ __forceinline__ void put_targets(accumulators &acc, const problem &p,
                                            const tile_lines &lines, const lane_pairs &pairs,
                                            float scale, const tile_sums &sums)
{
    float rows[4] = {};
#pragma unroll
    for (int r = 0; r < 8; r++) {
        if (r % 4 == 0) rows[0] = rows[1] = rows[2] = rows[3] = 0.0f;
#pragma unroll
        for (int c = 0; c < 8; c++)
            rows[r % 4] += target_of(p, lines, pairs, r, c) * (scale * result(acc, r, c));
        if (r % 4 == 3)
            fold_rows(rows, r - 3, pairs.at.lane, [&](int row, float sum) {
                sums.targets[(int)pairs.at.warp_across * TILE + pairs.at.row(row)] = sum;
            });
    }
}

/* After a tile: thread t < TILE adds to row t's sums over the block's tiles, thread TILE + c writes
 * column c's. */
__device__ __forceinline__ void take_in(const tile_sums &run, const tile_sums &sums, bool targets,
                                        power_sum *column_sums, int columns)
{
    const int t = opaque((int)threadIdx.x), c = t - TILE;
    if (t < TILE) {
        power_sum sum = run.rows[t];
        float target = run.targets[t];
#pragma unroll
        for (int w = 0; w < WARPS_ACROSS; w++) {
            sum = joined(sum, sums.rows[w * TILE + t]);
            if (targets) target += sums.targets[w * TILE + t];
        }
        run.rows[t] = sum;
        run.targets[t] = target;
    } else if (c < columns) {
        column_sums[c] = joined(sums.columns[c], sums.columns[TILE + c]);
    }
}

/* log(1 + e) for 0 <= e <= 1, relative to itself as exact as an f32 quotient: 2 artanh(e/(2 + e))
 * by its series, of which the first term left out is below 2^-26. No branch, unlike log1pf. */
__device__ __forceinline__ float log_of_one_plus(float e)
{
    const float s = __fdividef(e, 2.0f + e), q = s * s;
    float series = 1.0f / 15.0f;
#pragma unroll
    for (int k = 13; k > 0; k -= 2) series = fmaf(series, q, 1.0f / (float)k);
    return 2.0f * s * series;
}

/* The sum of a thread's log(1 + exp(-y (z + bias))). */
__device__ __forceinline__ float sigmoid_losses(accumulators &acc, const lane_pairs &pairs,
                                                float scale, float bias)
{
    float sum = 0.0f;
#pragma unroll
    for (int r = 0; r < 8; r++) {
#pragma unroll
        for (int c = 0; c < 8; c++) {
            const float a = fmaf(scale, result(acc, r, c), bias), x = pairs.positive(r, c) ? -a : a;
            const float loss = fmaxf(x, 0.0f) + log_of_one_plus(exp2_approx(-LOG2_E * fabsf(x)));
            sum += pairs.counted(r, c) ? loss : 0.0f;
        }
    }
    return sum;
}

__device__ __forceinline__ int tiles_of_run(const forward_band &b, int run)
{
    const int left = b.column_tiles - run * b.run;
    return left < b.run ? left : b.run;
}

template <class T, bool SPLIT, loss_kind KIND>
__global__ void __launch_bounds__(THREADS, blocks_an_sm<SPLIT, KIND>)
    similarity_sums(problem p, operand<T> image, operand<T> text, forward_band b)
{
    CTK_DYNAMIC_SHARED(T, slabs);
    CTK_SHARED(int32_t, ids, 2 * TILE);
    CTK_SHARED(float, weights, 2 * TILE);
    CTK_SHARED(tile_extent, extents, 1);
    CTK_SHARED(power_sum, row_sums, (WARPS_ACROSS + 1) * TILE);
    CTK_SHARED(power_sum, column_sums, WARPS_DOWN * TILE);
    CTK_SHARED(float, targets, (WARPS_ACROSS + 1) * TILE);
    CTK_SHARED(float, losses, THREADS); /* of each thread so far */
    const tile_lines lines = {ids, weights, extents};
    const tile_sums run = {row_sums, nullptr, targets}, /* of the tiles so far */
        sums = {row_sums + TILE, column_sums, targets + TILE};
    const int64_t row = (int64_t)blockIdx.x * TILE; /* in the band */
    const int first_tile = (int)blockIdx.y * b.run;
    tile_sweep<T, SPLIT, true, true> sweep(slabs, image, row, text, (int64_t)first_tile * TILE,
                                           (int)image.columns, tiles_of_run(b, blockIdx.y));
    losses[threadIdx.x] = 0.0f;
    if (KIND == loss_kind::softmax && threadIdx.x < TILE) {
        run.rows[threadIdx.x] = {LOWEST_EXPONENT, 0.0f};
        run.targets[threadIdx.x] = 0.0f;
    }
#pragma unroll 1
    for (int tile = 0; tile < tiles_of_run(b, opaque((int)blockIdx.y)); tile++) {
        const int row_tile = opaque((int)blockIdx.x);
        const int64_t column = ((int64_t)opaque((int)blockIdx.y) * b.run + tile) * TILE;
        note_lines(lines, p, b.row + (int64_t)row_tile * TILE, b.row + b.rows, column, p.count);
        accumulators acc;
        sweep.next(acc);
        const tile_extent extent = *lines.extent;
        const lane_pairs pairs(p, extent, lines);
        const float scale = expf(p.logit_scale[0]);
        if constexpr (KIND == loss_kind::softmax) {
            const bool targets = has_targets(p, extent);
            if (targets) put_targets(acc, p, lines, pairs, scale, sums);
            put_sums(acc, pairs, scale * LOG2_E, sums);
            __syncthreads();
            take_in(run, sums, targets, b.column_sums + opaque((int)blockIdx.x) * p.count + column,
                    extent.columns);
        } else {
            losses[opaque((int)threadIdx.x)] += sigmoid_losses(acc, pairs, scale, p.logit_bias[0]);
            __syncthreads(); /* all are done with this tile's lines */
        }
    }
    if constexpr (KIND == loss_kind::softmax) {
        const int64_t at = blockIdx.y * b.row_stride + row + threadIdx.x;
        if (threadIdx.x < TILE && row + threadIdx.x < b.rows) {
            b.row_sums[at] = run.rows[threadIdx.x];
            b.row_targets[at] = run.targets[threadIdx.x];
        }
    } else {
        const double sum = block_sum((double)losses[threadIdx.x]);
        if (threadIdx.x == 0) b.losses[blockIdx.y * gridDim.x + blockIdx.x] = sum;
    }
}

template <class T>
cudaError_t launch_forward(loss_kind kind, const problem &p, const operand<T> &image,
                           const operand<T> &text, const forward_band &band, const ctk_launch *l)
{
    const dim3 grid((unsigned)band.row_tiles, (unsigned)ceil_div(band.column_tiles, band.run));
    return with_split<T>(l, [&](auto split) {
        constexpr bool SPLIT = decltype(split)::value;
        return launch(kind == loss_kind::softmax ? similarity_sums<T, SPLIT, loss_kind::softmax>
                                                 : similarity_sums<T, SPLIT, loss_kind::sigmoid>,
                      grid, dim3(THREADS), SHARED_BYTES, l->stream, p, image, text, band);
    });
}

} // namespace ctk::loss

#endif
