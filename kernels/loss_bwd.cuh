/* Backward of the contrastive losses over a rectangle of pairs (op.h: ct_clip_loss_bwd_args,
 * ct_siglip_loss_bwd_args): the similarities once more, their gradients dz, and dz's products.
 *
 *   z = exp(logit_scale) image text^T
 *   softmax: dz[i][j] = exp(z - row_lse[i]) + exp(z - col_lse[j]) - row_target - col_target
 *   sigmoid: dz[i][j] = -y sigmoid(-y (z + bias))
 *   dimage = f dz text;  dtext = f dz^T image;  f = exp(logit_scale) loss_scale share
 *   dlogit_scale, dlogit_bias: sums of dz z and of dz, in f64 from tile to tile
 *
 * Shapes: a chunk of at most 4096 x 4096 pairs; dz of it is stored in the compute dtype (f16: times
 * 2^14), 33 MB of 16-bit numbers, which stay in the L2 of an H100 (50 MB) and mostly in that of an
 * A100 (40 MB). The gradients' sums go from chunk to chunk in f32.
 *
 * Why chunks: fused into one kernel, each of the two products would need an accumulator of a whole
 * D columns, or the similarities a third time. Stored for a band of rows by all N columns, dz would
 * leave L2 and dtext be read and written once a band; at N = 262144 a band small enough for L2 has
 * 32 rows, for which dtext's traffic (8 N D bytes) is 15 times the products' time. A square chunk
 * has 6 * 4096^2 D flops, 0.13 ms of an H100 at 400 TFLOPS and D = 512, for 17 MB of dtext's sums
 * in f32, 5 us of its memory, much of it behind the products.
 *
 *   N        chunks   flops (D 512)   H100 at 400, A100 at 200 TFLOPS   bytes of sums
 *   4096          1   0.05 T          0.13 ms, 0.26 ms                  none
 *   32768        64   3.3 T           8.2 ms, 16 ms                     1.1 GB
 *   262144     4096   211 T           0.53 s, 1.1 s                     70 GB
 *
 * One exponential a pair serves both softmax terms where the numbers allow: relative to the warp's
 * maximum M, exp(z - M) (exp(M - row_lse) + exp(M - col_lse)).
 *
 * Plan: a tile of dz a block, down the chunk first; then both products in one grid, dimage's tiles
 * before dtext's, so that at D = 512 the 256 blocks fill 132 multiprocessors once. On an A100's
 * 108 the last 40 of them come after the others: the products take 3 turns for the work of 2.4. A
 * narrower D leaves multiprocessors idle too. That is the known limit, with the tile's own
 * (loss_tile.cuh). Source: Radford et al. 2021, Zhai et al. 2023, Inf-CL (Cheng et al. 2024). */
#ifndef CT_KERNELS_LOSS_BWD_CUH
#define CT_KERNELS_LOSS_BWD_CUH

#include "loss.cuh"
#include "reduce.cuh"

namespace ctk::loss
{

/* What a tile's gradients add to those of logit_scale and logit_bias. */
struct scalar_sums {
    float dz_z = 0.0f; /* z not yet times the factor */
    float dz = 0.0f;
};

/* acc = dz of the softmax loss. lse: of rows, then columns, in units of log 2; infinity outside. */
template <bool ONE_EXPONENTIAL>
__device__ __forceinline__ void softmax_gradients(accumulators &acc, const problem &p,
                                                  const tile_lines &lines, const lane_pairs &pairs,
                                                  bool targets, const float *lse, float factor,
                                                  float reference, scalar_sums &sums)
{
    float columns[8];
#pragma unroll
    for (int c = 0; c < 8; c++) {
        columns[c] = lse[TILE + pairs.at.column(c)];
        if (ONE_EXPONENTIAL) columns[c] = exp2_approx(reference - columns[c]);
    }
#pragma unroll
    for (int r = 0; r < 8; r++) {
        float row = lse[pairs.at.row(r)];
        if (ONE_EXPONENTIAL) row = exp2_approx(reference - row);
#pragma unroll
        for (int c = 0; c < 8; c++) {
            const float product = result(acc, r, c);
            float dz = ONE_EXPONENTIAL
                           ? exp2_approx(fmaf(product, factor, -reference)) * (row + columns[c])
                           : exp2_approx(fmaf(product, factor, -row)) +
                                 exp2_approx(fmaf(product, factor, -columns[c]));
            if (targets) dz -= 2.0f * target_of(p, lines, pairs, r, c);
            dz = pairs.counted(r, c) ? dz : 0.0f;
            sums.dz_z += dz * product;
            result(acc, r, c) = dz;
        }
    }
}

/* Whether all of the warp's exponents, relative to its maximum, are within f32's range. */
__device__ __forceinline__ bool one_exponential_does(accumulators &acc, const place &at,
                                                     const float *lse, float factor,
                                                     float &reference)
{
    float highest = -INFINITY, lowest = INFINITY, lowest_lse = INFINITY;
#pragma unroll
    for (int r = 0; r < 8; r++) {
        lowest_lse = fminf(lowest_lse, fminf(lse[at.row(r)], lse[TILE + at.column(r)]));
#pragma unroll
        for (int c = 0; c < 8; c++) {
            highest = fmaxf(highest, result(acc, r, c));
            lowest = fminf(lowest, result(acc, r, c));
        }
    }
    highest = warp_max(highest);
    reference = highest * factor;
    return __all_sync(0xffffffffu,
                      factor * (highest - lowest) <= 115.0f && reference - lowest_lse <= 120.0f);
}

__device__ __forceinline__ void sigmoid_gradients(accumulators &acc, const lane_pairs &pairs,
                                                  float scale, float bias, scalar_sums &sums)
{
#pragma unroll
    for (int r = 0; r < 8; r++) {
#pragma unroll
        for (int c = 0; c < 8; c++) {
            const float product = result(acc, r, c), a = fmaf(scale, product, bias);
            /* -y sigmoid(-y a): the quotient is as exact near 0 as near 1 */
            const bool positive = pairs.positive(r, c);
            const float e = exp2_approx(positive ? LOG2_E * a : -LOG2_E * a),
                        size = __fdividef(1.0f, 1.0f + e);
            const float dz = !pairs.counted(r, c) ? 0.0f : positive ? -size : size;
            sums.dz_z += dz * product;
            sums.dz += dz;
            result(acc, r, c) = dz;
        }
    }
}

__device__ __forceinline__ void note_lse(float *lse, const float *row_lse, const float *col_lse,
                                         int64_t row, int64_t row_end, int64_t column,
                                         int64_t column_end)
{
    const int t = (int)threadIdx.x;
    const int64_t index = (t < TILE ? row : column) + t % TILE;
    const bool inside = index < (t < TILE ? row_end : column_end);
    lse[t] = inside ? (t < TILE ? row_lse : col_lse)[index] * LOG2_E : INFINITY;
}

template <class T, bool SPLIT, loss_kind KIND>
__global__ void __launch_bounds__(THREADS, blocks_an_sm<SPLIT, KIND>)
    similarity_gradients(problem p, operand<T> image, operand<T> text, gradient_chunk<T> chunk)
{
    CTK_DYNAMIC_SHARED(T, slabs);
    CTK_SHARED(int32_t, ids, 2 * TILE);
    CTK_SHARED(float, weights, 2 * TILE);
    CTK_SHARED(float, lse, 2 * TILE);
    CTK_SHARED(tile_extent, extents, 1);
    const tile_lines lines = {ids, weights, extents};
    const int64_t row = (int64_t)blockIdx.x * TILE, column = (int64_t)blockIdx.y * TILE;
    tile_sweep<T, SPLIT, true, true> sweep(slabs, image, row, text, column, (int)image.columns, 1);
    note_lines(lines, p, chunk.row + row, chunk.row + chunk.rows, chunk.column + column,
               chunk.column + chunk.columns);
    if (KIND == loss_kind::softmax)
        note_lse(lse, chunk.row_lse, chunk.col_lse, chunk.row + row, chunk.row + chunk.rows,
                 chunk.column + column, chunk.column + chunk.columns);
    accumulators acc;
    sweep.next(acc);
    const float scale = expf(p.logit_scale[0]);
    const tile_extent extent = *lines.extent;
    const lane_pairs pairs(p, extent, lines);
    scalar_sums sums;
    if constexpr (KIND == loss_kind::softmax) {
        float reference;
        const bool targets = has_targets(p, extent);
        const float factor = scale * LOG2_E;
        if (one_exponential_does(acc, pairs.at, lse, factor, reference))
            softmax_gradients<true>(acc, p, lines, pairs, targets, lse, factor, reference, sums);
        else softmax_gradients<false>(acc, p, lines, pairs, targets, lse, factor, reference, sums);
    } else {
        sigmoid_gradients(acc, pairs, scale, p.logit_bias[0], sums);
    }
    if (chunk.sums) {
        const double dz_z = block_sum((double)sums.dz_z * (double)scale);
        const double dz = KIND == loss_kind::sigmoid ? block_sum((double)sums.dz) : 0.0;
        if (threadIdx.x == 0) {
            double *sums_so_far = chunk.sums + blockIdx.y * gridDim.x + blockIdx.x;
            sums_so_far[0] += dz_z;
            sums_so_far[GRADIENT_SLOTS] += dz;
        }
    }
    if (DZ_FACTOR<T> != 1.0f) {
#pragma unroll
        for (int r = 0; r < 8; r++)
#pragma unroll
            for (int c = 0; c < 8; c++) result(acc, r, c) *= DZ_FACTOR<T>;
    }
    T *dz_tile = chunk.dz + (int64_t)opaque((int)blockIdx.x) * TILE * chunk.stride +
                 (int64_t)opaque((int)blockIdx.y) * TILE;
    store_results(dz_tile, chunk.stride, TILE, TILE, acc, true);
}

/* ---- products ------------------------------------------------------------------------------ */

template <class T, bool SPLIT, bool DZ_BY_ROW>
__device__ __forceinline__ void gradient_tile(T *slabs, const gradient_products<T> &g,
                                              const gradient_product<T> &side, int tile)
{
    const int across = (g.width + TILE - 1) / TILE;
    tile_sweep<T, SPLIT, DZ_BY_ROW, false> sweep(slabs, side.dz, (int64_t)(tile / across) * TILE,
                                                 side.other, tile % across * TILE, side.terms, 1);
    accumulators acc;
    sweep.next(acc);
    tile = opaque(tile);
    const int64_t row = (int64_t)(tile / across) * TILE;
    const int column = tile % across * TILE;
    const int rows = side.rows - (int)row, columns = g.width - column;
    const bool by_fours = g.width % 4 == 0;
    const int64_t start = row * g.width + column;
    if (side.add) {
        const place at;
#pragma unroll
        for (int r = 0; r < 8; r++)
#pragma unroll
            for (int c = 0; c < 8; c++)
                if (at.row(r) < rows && at.column(c) < columns)
                    result(acc, r, c) +=
                        side.sum[start + (int64_t)at.row(r) * g.width + at.column(c)];
    }
    if (side.last) {
        const float factor =
            expf(g.logit_scale[0]) * g.share * (g.loss_scale ? g.loss_scale[0] : 1.0f);
#pragma unroll
        for (int r = 0; r < 8; r++)
#pragma unroll
            for (int c = 0; c < 8; c++) result(acc, r, c) *= factor;
        store_results(side.to + start, g.width, rows, columns, acc, by_fours);
    } else {
        store_results(side.sum + start, g.width, rows, columns, acc, by_fours);
    }
}

/* Blocks: image's tiles, each row of them along the width, then text's. */
template <class T, bool SPLIT>
__global__ void __launch_bounds__(THREADS, 2)
    gradient_tiles(gradient_products<T> g, int image_tiles)
{
    CTK_DYNAMIC_SHARED(T, slabs);
    const int tile = (int)blockIdx.x;
    if (tile < image_tiles) gradient_tile<T, SPLIT, true>(slabs, g, g.image, tile);
    else gradient_tile<T, SPLIT, false>(slabs, g, g.text, tile - image_tiles);
}

/* ---- host ---------------------------------------------------------------------------------- */

template <class T>
cudaError_t launch_gradients(loss_kind kind, const problem &p, const operand<T> &image,
                             const operand<T> &text, const gradient_chunk<T> &chunk,
                             const ctk_launch *l)
{
    const dim3 grid((unsigned)ceil_div(chunk.rows, TILE), (unsigned)ceil_div(chunk.columns, TILE));
    return with_split<T>(l, [&](auto split) {
        constexpr bool SPLIT = decltype(split)::value;
        return launch(kind == loss_kind::softmax
                          ? similarity_gradients<T, SPLIT, loss_kind::softmax>
                          : similarity_gradients<T, SPLIT, loss_kind::sigmoid>,
                      grid, dim3(THREADS), SHARED_BYTES, l->stream, p, image, text, chunk);
    });
}

template <class T>
cudaError_t launch_products(const gradient_products<T> &products, const ctk_launch *l)
{
    const int64_t across = ceil_div(products.width, TILE),
                  image_tiles = ceil_div(products.image.rows, TILE) * across,
                  text_tiles = ceil_div(products.text.rows, TILE) * across;
    const dim3 grid((unsigned)(image_tiles + text_tiles));
    return with_split<T>(l, [&](auto split) {
        return launch(gradient_tiles<T, decltype(split)::value>, grid, dim3(THREADS), SHARED_BYTES,
                      l->stream, products, (int)image_tiles);
    });
}

} // namespace ctk::loss

#endif
