/* Gradient of the symmetric contrastive loss (op.h: ct_clip_loss_bwd_args).
 *
 *   dz[i][j] = (exp(z - row_lse[i]) + exp(z - col_lse[j]) - 2 target[i][j]) loss_scale/(2 N)
 *   dimage = exp(logit_scale) dz text;  dtext = exp(logit_scale) dz^T image
 *   dlogit_scale += sum of dz z
 *
 * Shapes: image, text, dimage, dtext (N, D). Of dz only a band of at most 1024 rows is in memory at
 * a time, in f32. Workspace: 4 KiB N for the band, and 4 N D bytes where there is more than one.
 *
 * Work: 6 N^2 D flops on the f32 units, from any format, and bound by them.
 *
 * Plan: a band is three launches. First the similarities once more and dz of them, one block a tile
 * of 64 x 64, which also leaves the tile's sum of dz z; then one block that adds those sums in f64;
 * then one grid for both products of the band: first dimage's blocks (few and long: N terms), then
 * dtext's (many and short: a band's terms), so that neither leaves multiprocessors idle. dtext
 * grows from band to band in f32 in the workspace and is rounded once. With SHARE a first kernel
 * counts each photo's captions.
 *
 * Limit: a plain version, without tensor cores. Source: Radford et al. 2021. */
#include "kernels.h"
#include "loss.cuh"
#include "reduce.cuh"
#include "workspace.cuh"

namespace ctk
{

constexpr int backward_band_tiles = 16, backward_band = backward_band_tiles * loss_tile;

struct backward_memory {
    float *dz;        /* (band, stride), zero where there is no pair */
    int64_t stride;   /* N rounded up to whole tiles */
    float *dtext;     /* (N, D) so far; NULL when one band is all */
    float *captions;  /* (N) captions of row i's photo; NULL unless they share the target */
    double *products; /* (band tiles, tiles across) sums of dz z */
    double *product;  /* (1) of the bands so far */
    size_t bytes;
};

struct statistics {
    const float *row_lse, *col_lse;
    const float *loss_scale; /* NULL: 1 */
};

/* captions[i] = how many rows have row i's photo. A block looks at all ids, 256 at a time. */
static __global__ void __launch_bounds__(loss_threads)
    count_captions(float *captions, const int32_t *photo_ids, int64_t count)
{
    CTK_SHARED(int32_t, ids, loss_threads);
    const int64_t i = (int64_t)blockIdx.x * loss_threads + threadIdx.x;
    const int32_t own = i < count ? photo_ids[i] : 0;
    int same = 0;
    for (int64_t begin = 0; begin < count; begin += loss_threads) {
        const int64_t left = count - begin;
        const int here = left < loss_threads ? (int)left : loss_threads;
        if ((int)threadIdx.x < here) ids[threadIdx.x] = photo_ids[begin + threadIdx.x];
        __syncthreads();
        for (int k = 0; k < here; k++) same += ids[k] == own;
        __syncthreads();
    }
    if (i < count) captions[i] = (float)same;
}

/* blockIdx: tile across, tile down within the band that starts at row `first`. */
template <class T>
__global__ void __launch_bounds__(loss_threads, 3)
    gradient_tiles(similarities<T> s, statistics saved, backward_memory m, int64_t first)
{
    CTK_SHARED(quad, a_slab, loss_slab_quads);
    CTK_SHARED(quad, b_slab, loss_slab_quads);
    const int64_t down = (int64_t)blockIdx.y * loss_tile + threadIdx.x / 16 * 4; /* in the band */
    const int64_t column = (int64_t)blockIdx.x * loss_tile;
    const int64_t own_row = first + down, own_column = column + threadIdx.x % 16 * 4;
    float z[4][4];
    multiply_tile<true, true>(z, s.image, first + (int64_t)blockIdx.y * loss_tile, s.text, column,
                              s.image.columns, a_slab, b_slab);

    const float scale = expf(s.logit_scale[0]);
    const float factor = 0.5f / (float)s.count * (saved.loss_scale ? saved.loss_scale[0] : 1.0f);
    float product = 0.0f;
#pragma unroll
    for (int r = 0; r < 4; r++) {
        const int64_t i = own_row + r;
        const bool row_inside = i < s.count;
        const int32_t row_id = row_inside ? s.photo_ids[i] : 0;
        const float row_lse = row_inside ? saved.row_lse[i] : 0.0f;
        const float share = 2.0f * factor / (row_inside && m.captions ? m.captions[i] : 1.0f);
        float dz[4];
#pragma unroll
        for (int c = 0; c < 4; c++) {
            const int64_t j = own_column + c;
            const bool inside = row_inside && j < s.count;
            const pair_role role =
                role_of(s.same_image, inside, i == j, inside && s.photo_ids[j] == row_id);
            dz[c] = 0.0f;
            if (!role.counted) continue;
            const float similarity = scale * z[r][c];
            dz[c] = factor * (expf(similarity - row_lse) + expf(similarity - saved.col_lse[j]));
            if (role.positive) dz[c] -= share;
            product += dz[c] * similarity;
        }
        store<4>(m.dz + (down + r) * m.stride + own_column, dz);
    }
    const double total = block_sum((double)product);
    if (threadIdx.x == 0) m.products[(int64_t)blockIdx.y * gridDim.x + blockIdx.x] = total;
}

/* Takes a band's sums of dz z on, and adds the whole to dlogit_scale after the last. */
static __global__ void __launch_bounds__(loss_threads)
    take_products_on(float *dlogit_scale, backward_memory m, int64_t count, bool is_first,
                     bool is_last)
{
    double sum = 0.0;
#pragma unroll 4
    for (int64_t i = threadIdx.x; i < count; i += loss_threads) sum += m.products[i];
    sum = block_sum(sum);
    if (threadIdx.x != 0) return;
    if (!is_first) sum += *m.product;
    if (is_last) *dlogit_scale += (float)sum;
    else *m.product = sum;
}

/* Rows row .. row + 63 of `to` (rows, columns), columns `column` ..: factor sum, plus `before`
 * where there is any; rounded to `to`, or kept in `sum_to` where that is given. */
template <class T>
__device__ __forceinline__ void put_tile(T *to, float *sum_to, const float *before,
                                         const float (&sum)[4][4], float factor, int64_t row,
                                         int64_t rows, int64_t column, int64_t columns)
{
    row += threadIdx.x / 16 * 4;
    column += threadIdx.x % 16 * 4;
    const bool whole = columns % 4 == 0; /* then four columns are inside or outside together */
#pragma unroll
    for (int r = 0; r < 4; r++) {
        if (row + r >= rows || column >= columns) break;
        const int64_t at = (row + r) * columns + column;
        float x[4];
#pragma unroll
        for (int c = 0; c < 4; c++) {
            x[c] = factor * sum[r][c];
            if (before && column + c < columns) x[c] += before[at + c];
        }
        if (whole && sum_to) store<4>(sum_to + at, x);
        else if (whole) store<4>(to + at, x);
        else
            for (int c = 0; c < 4 && column + c < columns; c++) {
                if (sum_to) sum_to[at + c] = x[c];
                else to[at + c] = from_float<T>(x[c]);
            }
    }
}

/* blockIdx: tile of the width; tile of the band's rows of dimage, then of all rows of dtext. */
template <class T>
__global__ void __launch_bounds__(loss_threads, 3)
    gradient_products(T *dimage, T *dtext, similarities<T> s, backward_memory m, int64_t first,
                      int64_t rows)
{
    CTK_SHARED(quad, a_slab, loss_slab_quads);
    CTK_SHARED(quad, b_slab, loss_slab_quads);
    const int64_t band_tiles = (rows + loss_tile - 1) / loss_tile, width = s.image.columns;
    const matrix<float> dz = {m.dz, band_tiles * loss_tile, m.stride, m.stride, true};
    const int64_t column = (int64_t)blockIdx.x * loss_tile;
    const float scale = expf(s.logit_scale[0]);
    float sum[4][4];
    if (blockIdx.y < band_tiles) {
        const int64_t row = (int64_t)blockIdx.y * loss_tile;
        multiply_tile<true, false>(sum, dz, row, s.text, column, s.count, a_slab, b_slab);
        put_tile<T>(dimage + first * width, nullptr, nullptr, sum, scale, row, rows, column, width);
    } else {
        const int64_t row = ((int64_t)blockIdx.y - band_tiles) * loss_tile;
        matrix<T> image = s.image;
        image.data += first * image.stride;
        image.rows = rows;
        multiply_tile<false, false>(sum, dz, row, image, column, rows, a_slab, b_slab);
        put_tile(dtext, first + rows < s.count ? m.dtext : nullptr, first > 0 ? m.dtext : nullptr,
                 sum, scale, row, s.count, column, width);
    }
}

static backward_memory lay_out_backward(const ct_clip_loss_bwd_args *args, void *workspace)
{
    backward_memory m = {};
    const int64_t count = args->image.dim[0], width = args->image.dim[1];
    const int64_t tiles = ceil_div(count, loss_tile);
    const int64_t band_tiles = tiles < backward_band_tiles ? tiles : backward_band_tiles;
    m.stride = tiles * loss_tile;
    m.dz = take<float>(workspace, &m.bytes, band_tiles * loss_tile * m.stride);
    if (count > backward_band) m.dtext = take<float>(workspace, &m.bytes, count * width);
    if (args->same_image == CT_SAME_IMAGE_SHARE)
        m.captions = take<float>(workspace, &m.bytes, count);
    m.products = take<double>(workspace, &m.bytes, band_tiles * tiles);
    m.product = take<double>(workspace, &m.bytes, 1);
    return m;
}

template <class T>
static cudaError_t launch_band(const ct_clip_loss_bwd_args *args, const similarities<T> &s,
                               const backward_memory &m, int64_t first, cudaStream_t stream)
{
    const statistics saved = {(const float *)args->row_lse.data, (const float *)args->col_lse.data,
                              (const float *)args->loss_scale.data};
    const int64_t rows = s.count - first < backward_band ? s.count - first : backward_band;
    const int64_t band_tiles = ceil_div(rows, loss_tile), tiles = ceil_div(s.count, loss_tile);
    cudaError_t error = launch(gradient_tiles<T>, dim3((unsigned)tiles, (unsigned)band_tiles),
                               dim3(loss_threads), 0, stream, s, saved, m, first);
    if (error != cudaSuccess) return error;
    error = launch(take_products_on, dim3(1), dim3(loss_threads), 0, stream,
                   (float *)args->dlogit_scale.data, m, band_tiles * tiles, first == 0,
                   first + rows == s.count);
    if (error != cudaSuccess) return error;
    const dim3 grid((unsigned)ceil_div(s.image.columns, loss_tile), (unsigned)(band_tiles + tiles));
    return launch(gradient_products<T>, grid, dim3(loss_threads), 0, stream, (T *)args->dimage.data,
                  (T *)args->dtext.data, s, m, first, rows);
}

template <class T>
static cudaError_t launch_backward(const ct_clip_loss_bwd_args *args, const ctk_launch *l)
{
    const similarities<T> s = similarities_of<T>(args);
    const backward_memory m = lay_out_backward(args, l->workspace);
    cudaError_t error = cudaSuccess;
    if (m.captions)
        error = launch(count_captions, dim3((unsigned)ceil_div(s.count, loss_threads)),
                       dim3(loss_threads), 0, l->stream, m.captions, s.photo_ids, s.count);
    for (int64_t first = 0; first < s.count && error == cudaSuccess; first += backward_band)
        error = launch_band(args, s, m, first, l->stream);
    return error;
}

} // namespace ctk

extern "C" size_t ctk_clip_loss_bwd_workspace(const ct_clip_loss_bwd_args *args, int sm_count)
{
    (void)sm_count;
    return ctk::lay_out_backward(args, nullptr).bytes;
}

extern "C" cudaError_t ctk_clip_loss_bwd(const ct_clip_loss_bwd_args *args, const ctk_launch *l)
{
    return ctk::with_type(args->image.dtype,
                          [&](auto type) { return ctk::launch_backward<decltype(type)>(args, l); });
}
