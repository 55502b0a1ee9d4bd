/* Forward of the contrastive losses (op.h: ct_clip_loss_fwd_args, ct_siglip_loss_fwd_args):
 * launchers, and the kernels around the tiles of loss_fwd.cuh.
 *
 * Shapes: image, text (N, D), of which M rows are this device's; the N x N similarities are never
 * stored. Plan: bands of at most 32 row tiles; after each its rows end, and the columns' sums so
 * far take in one sum a row tile. Workspace, largest part: 256 N bytes of columns' sums, as much at
 * most of rows', and padded copies of image and text where rows are not multiples of 16 bytes.
 *
 * Order of all sums: fixed by M, N, D and the number of multiprocessors. */
#include "loss_batch.cuh"
#include "loss_sums.cuh"
#include "reduce.cuh"

namespace ctk::loss
{

constexpr int BAND_TILES = CTK_LOSS_SPAN, LONGEST_RUN = 16;

struct band_sums {
    const power_sum *rows, *columns; /* forward_band's row_sums, column_sums */
    const float *targets;
    power_sum *columns_so_far; /* (N) */
    float *row_lse, *col_lse, *target;
    int64_t count, row_count, row_stride;
    int runs, row_tiles;
    bool is_first, is_last;
};

/* After a band: blockIdx.y 0: its rows end; 1: all columns take its sums in, and end with it. */
static __global__ void __launch_bounds__(SMALL_BLOCK) end_band(band_sums b)
{
    const int64_t k = (int64_t)blockIdx.x * SMALL_BLOCK + threadIdx.x;
    power_sum sum = {LOWEST_EXPONENT, 0.0f};
    if (blockIdx.y == 0 && k < b.row_count) {
        float target = 0.0f;
#pragma unroll 4
        for (int run = 0; run < b.runs; run++) {
            sum = joined(sum, b.rows[run * b.row_stride + k]);
            target += b.targets[run * b.row_stride + k];
        }
        b.row_lse[k] = log_of(sum);
        b.target[k] = target;
    } else if (blockIdx.y == 1 && k < b.count) {
        if (!b.is_first) sum = b.columns_so_far[k];
#pragma unroll 4
        for (int tile = 0; tile < b.row_tiles; tile++)
            sum = joined(sum, b.columns[tile * b.count + k]);
        if (b.is_last) b.col_lse[k] = log_of(sum);
        else b.columns_so_far[k] = sum;
    }
}

static __global__ void __launch_bounds__(SUM_BLOCK)
    mean_losses(float *loss, const double *losses, int64_t parts, int64_t count)
{
    double sum = 0.0;
#pragma unroll 4
    for (int64_t i = threadIdx.x; i < parts; i += SUM_BLOCK) sum += losses[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *loss = (float)(sum / (double)count);
}

struct forward_memory {
    batch b;
    forward_band band; /* of most rows */
    power_sum *columns_so_far;
    int64_t bands, blocks; /* blocks of one band of most rows */
    size_t bytes;
};

/* A block takes as many column tiles as leave the grid four times what runs at once, so that a
 * last, half-empty turn costs little. */
template <class Args>
static forward_memory lay_out_forward(const Args *args, int64_t rows, float smoothing, bool softmax,
                                      int sm_count, void *workspace)
{
    forward_memory m = {};
    m.b = take_batch(args, smoothing, softmax, workspace, &m.bytes);
    const int64_t count = m.b.count, tiles = ceil_div(rows, TILE);
    m.band.row_tiles = tiles < BAND_TILES ? (int)tiles : BAND_TILES;
    m.band.column_tiles = (int)ceil_div(count, TILE);
    m.band.row_stride = (int64_t)m.band.row_tiles * TILE;
    m.bands = ceil_div(tiles, BAND_TILES);
    const int64_t turns = (int64_t)m.band.row_tiles * m.band.column_tiles / (8 * (int64_t)sm_count);
    m.band.run = turns < 1 ? 1 : turns < LONGEST_RUN ? (int)turns : LONGEST_RUN;
    const int64_t runs = ceil_div(m.band.column_tiles, m.band.run);
    m.blocks = runs * m.band.row_tiles;
    if (softmax) {
        m.band.row_sums = take<power_sum>(workspace, &m.bytes, runs * m.band.row_stride);
        m.band.row_targets = take<float>(workspace, &m.bytes, runs * m.band.row_stride);
        m.band.column_sums = take<power_sum>(workspace, &m.bytes, m.band.row_tiles * count);
        m.columns_so_far = take<power_sum>(workspace, &m.bytes, count);
    } else {
        m.band.losses = take<double>(workspace, &m.bytes, m.bands * m.blocks);
    }
    return m;
}

static cudaError_t launch_end_band(const ct_clip_loss_fwd_args *args, const forward_memory &m,
                                   const forward_band &band, int64_t done, cudaStream_t stream)
{
    const int64_t rows = args->row_lse.dim[0], most = band.rows > m.b.count ? band.rows : m.b.count;
    const band_sums sums = {band.row_sums,
                            band.column_sums,
                            band.row_targets,
                            m.columns_so_far,
                            ct_f32(&args->row_lse) + done,
                            ct_f32(&args->col_lse),
                            ct_f32(&args->target) + done,
                            m.b.count,
                            band.rows,
                            band.row_stride,
                            (int)ceil_div(band.column_tiles, band.run),
                            band.row_tiles,
                            done == 0,
                            done + band.rows == rows};
    return launch(end_band, dim3((unsigned)ceil_div(most, SMALL_BLOCK), 2), dim3(SMALL_BLOCK), 0,
                  stream, sums);
}

/* after(band, rows before it) follows each band. */
template <class T, class F>
static cudaError_t run_forward(loss_kind kind, const forward_memory &m, int64_t first, int64_t rows,
                               const ctk_launch *l, F after)
{
    operand<T> image, text;
    cudaError_t error = begin(m.b, &image, &text, l);
    forward_band band = m.band;
    for (int64_t done = 0; done < rows && error == cudaSuccess; done += band.rows) {
        band.row = first + done;
        band.rows = rows - done < m.band.row_stride ? rows - done : m.band.row_stride;
        band.row_tiles = (int)ceil_div(band.rows, TILE);
        error = launch_forward(kind, m.b.p, lines_of(image, band.row, band.rows), text, band, l);
        if (error == cudaSuccess) error = after(band, done);
        if (band.losses) band.losses += m.blocks;
    }
    return error;
}

} // namespace ctk::loss

using namespace ctk::loss;

extern "C" size_t ctk_clip_loss_fwd_workspace(const ct_clip_loss_fwd_args *args, int sm_count)
{
    return lay_out_forward(args, args->row_lse.dim[0], args->label_smoothing, true, sm_count,
                           nullptr)
        .bytes;
}

extern "C" cudaError_t ctk_clip_loss_fwd(const ct_clip_loss_fwd_args *args, const ctk_launch *l)
{
    const int64_t rows = args->row_lse.dim[0];
    const forward_memory m =
        lay_out_forward(args, rows, args->label_smoothing, true, l->sm_count, l->workspace);
    if (!is_valid(m.b, args->first, rows)) return cudaErrorInvalidValue;
    return ctk::with_type(args->image.dtype, [&](auto zero) {
        return run_forward<decltype(zero)>(loss_kind::softmax, m, args->first, rows, l,
                                           [&](const forward_band &band, int64_t done) {
                                               return launch_end_band(args, m, band, done,
                                                                      l->stream);
                                           });
    });
}

extern "C" size_t ctk_siglip_loss_fwd_workspace(const ct_siglip_loss_fwd_args *args, int sm_count)
{
    return lay_out_forward(args, args->rows, 0.0f, false, sm_count, nullptr).bytes;
}

extern "C" cudaError_t ctk_siglip_loss_fwd(const ct_siglip_loss_fwd_args *args, const ctk_launch *l)
{
    forward_memory m = lay_out_forward(args, args->rows, 0.0f, false, l->sm_count, l->workspace);
    if (!is_valid(m.b, args->first, args->rows)) return cudaErrorInvalidValue;
    m.b.p.logit_bias = ct_f32(&args->logit_bias);
    int64_t parts = 0;
    cudaError_t error = ctk::with_type(args->image.dtype, [&](auto zero) {
        return run_forward<decltype(zero)>(
            loss_kind::sigmoid, m, args->first, args->rows, l,
            [&](const forward_band &band, int64_t) {
                parts = band.losses - m.band.losses +
                        band.row_tiles * ctk::ceil_div(band.column_tiles, band.run);
                return cudaSuccess;
            });
    });
    if (error != cudaSuccess) return error;
    return ctk::launch(mean_losses, dim3(1), dim3(SUM_BLOCK), 0, l->stream, ct_f32(&args->loss),
                       (const double *)m.band.losses, parts, m.b.count);
}
