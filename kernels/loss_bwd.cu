/* Backward of the contrastive losses (op.h: ct_clip_loss_bwd_args, ct_siglip_loss_bwd_args):
 * launchers; the tiles are loss_bwd.cuh's.
 *
 * Shapes: image, text (N, D), dimage, dtext (M, D). The pairs of own rows and of own columns are
 * cut into chunks of at most 4096 x 4096; own rows' give dimage, own columns' give dtext, so what
 * is both is computed once. M = N costs 6 N^2 D flops; M < N costs 8 N M D - 2 M^2 D. Workspace: dz
 * of one chunk, and where that is not the whole, 4 M D bytes of sums.
 *
 * Order of all sums: fixed by the shapes. */
#include "loss_batch.cuh"
#include "reduce.cuh"

namespace ctk::loss
{

/* Part of the N rows, or columns: all own or all others', at most CHUNK. */
struct segment {
    int64_t begin, end;
    bool own;
};

/* A zone's segments are as equal as whole tiles allow. */
static int64_t segment_size(int64_t zone)
{
    const int64_t segments = ceil_div(zone, CHUNK);
    return zone ? ceil_div(ceil_div(zone, segments), TILE) * TILE : 0;
}

static segment segment_from(int64_t begin, int64_t first, int64_t rows, int64_t count)
{
    const bool before = begin < first, own = !before && begin < first + rows;
    const int64_t zone_begin = before ? 0
                               : own  ? first
                                      : first + rows,
                  zone_end = before ? first
                             : own  ? first + rows
                                    : count;
    const int64_t end = begin + segment_size(zone_end - zone_begin);
    return {begin, end < zone_end ? end : zone_end, own};
}

struct backward_memory {
    batch b;
    int64_t first, rows;
    int64_t side;                /* of the largest chunk */
    void *dz;                    /* (side, side) */
    float *image_sum, *text_sum; /* (side, D), (M, D); NULL where one chunk is all */
    double *sums;                /* (2, GRADIENT_SLOTS) */
    size_t bytes;
};

template <class Args>
static backward_memory lay_out_backward(const Args *args, float smoothing, bool softmax,
                                        void *workspace)
{
    backward_memory m = {};
    m.b = take_batch(args, smoothing, softmax, workspace, &m.bytes);
    m.first = args->first;
    m.rows = args->dimage.dim[0];
    const int64_t zones[] = {m.first, m.rows, m.b.count - m.first - m.rows};
    for (int64_t zone : zones)
        if (segment_size(zone) > m.side) m.side = segment_size(zone);
    m.dz = take<char>(workspace, &m.bytes,
                      m.side * m.side * (int64_t)ct_dtype_bytes(args->image.dtype));
    if (m.rows < m.b.count || m.rows > CHUNK) {
        m.image_sum = take<float>(workspace, &m.bytes, m.side * m.b.width);
        m.text_sum = take<float>(workspace, &m.bytes, m.rows * m.b.width);
    }
    m.sums = take<double>(workspace, &m.bytes, 2 * GRADIENT_SLOTS);
    return m;
}

/* What chunks have in common. */
template <class T> struct backward_run {
    loss_kind kind;
    operand<T> image, text;
    T *dimage, *dtext;
    const float *row_lse, *col_lse, *loss_scale;
    float share; /* of a pair in the loss */
};

template <class T>
static cudaError_t run_chunk(const backward_run<T> &run, const backward_memory &m, const segment &r,
                             const segment &c, const ctk_launch *l)
{
    const int rows = (int)(r.end - r.begin), columns = (int)(c.end - c.begin);
    T *dz = static_cast<T *>(m.dz);
    const operand<T> image = lines_of(run.image, r.begin, rows),
                     text = lines_of(run.text, c.begin, columns),
                     stored = {dz, ceil_div(rows, TILE) * TILE, ceil_div(columns, TILE) * TILE,
                               m.side};
    const gradient_chunk<T> chunk = {r.begin,     c.begin,     rows,
                                     columns,     dz,          m.side,
                                     run.row_lse, run.col_lse, r.own ? m.sums : nullptr};
    cudaError_t error = launch_gradients(run.kind, m.b.p, image, text, chunk, l);
    if (error != cudaSuccess) return error;
    const int64_t width = m.b.width, own_row = r.begin - m.first, own_column = c.begin - m.first;
    gradient_products<T> g = {};
    g.logit_scale = m.b.p.logit_scale;
    g.loss_scale = run.loss_scale;
    g.share = run.share / DZ_FACTOR<T>;
    g.width = (int)width;
    if (r.own)
        g.image = {stored,
                   text,
                   run.dimage + own_row * width,
                   m.image_sum,
                   rows,
                   columns,
                   c.begin > 0,
                   c.end == m.b.count};
    if (c.own)
        g.text = {stored,
                  image,
                  run.dtext + own_column * width,
                  m.text_sum ? m.text_sum + own_column * width : nullptr,
                  columns,
                  rows,
                  r.begin > 0,
                  r.end == m.b.count};
    return launch_products(g, l);
}

/* dlogit_scale, dlogit_bias += their sums; dlogit_bias may be NULL. */
static __global__ void __launch_bounds__(SUM_BLOCK)
    add_scalars(float *dlogit_scale, float *dlogit_bias, const double *sums,
                const float *loss_scale, double share)
{
    if (loss_scale) share *= (double)loss_scale[0];
    for (int which = 0; which < 2; which++) {
        float *to = which ? dlogit_bias : dlogit_scale;
        double sum = 0.0;
        for (int i = (int)threadIdx.x; i < GRADIENT_SLOTS; i += SUM_BLOCK)
            sum += sums[which * GRADIENT_SLOTS + i];
        sum = block_sum(sum);
        if (threadIdx.x == 0 && to) *to += (float)(sum * share);
    }
}

/* Chunks whose rows or whose columns are this device's, a row of chunks after the other. */
template <class T>
static cudaError_t run_backward(backward_run<T> run, const backward_memory &m, float *dlogit_scale,
                                float *dlogit_bias, const ctk_launch *l)
{
    const int64_t count = m.b.count;
    cudaError_t error = begin(m.b, &run.image, &run.text, l);
    if (error == cudaSuccess)
        error = cudaMemsetAsync(m.sums, 0, 2 * GRADIENT_SLOTS * sizeof(double), l->stream);
    segment r, c;
    for (int64_t row = 0; row < count; row = r.end) {
        r = segment_from(row, m.first, m.rows, count);
        for (int64_t column = 0; column < count; column = c.end) {
            c = segment_from(column, m.first, m.rows, count);
            if (error == cudaSuccess && (r.own || c.own)) error = run_chunk(run, m, r, c, l);
        }
    }
    if (error != cudaSuccess) return error;
    return launch(add_scalars, dim3(1), dim3(SUM_BLOCK), 0, l->stream, dlogit_scale, dlogit_bias,
                  (const double *)m.sums, run.loss_scale, (double)run.share);
}

} // namespace ctk::loss

using namespace ctk::loss;

extern "C" size_t ctk_clip_loss_bwd_workspace(const ct_clip_loss_bwd_args *args, int sm_count)
{
    (void)sm_count;
    return lay_out_backward(args, args->label_smoothing, true, nullptr).bytes;
}

extern "C" cudaError_t ctk_clip_loss_bwd(const ct_clip_loss_bwd_args *args, const ctk_launch *l)
{
    const backward_memory m = lay_out_backward(args, args->label_smoothing, true, l->workspace);
    if (!is_valid(m.b, m.first, m.rows)) return cudaErrorInvalidValue;
    return ctk::with_type(args->image.dtype, [&](auto zero) {
        using T = decltype(zero);
        const backward_run<T> run = {loss_kind::softmax,
                                     {},
                                     {},
                                     (T *)args->dimage.data,
                                     (T *)args->dtext.data,
                                     ct_f32(&args->row_lse),
                                     ct_f32(&args->col_lse),
                                     ct_f32(&args->loss_scale),
                                     0.5f / (float)m.b.count};
        return run_backward(run, m, ct_f32(&args->dlogit_scale), nullptr, l);
    });
}

extern "C" size_t ctk_siglip_loss_bwd_workspace(const ct_siglip_loss_bwd_args *args, int sm_count)
{
    (void)sm_count;
    return lay_out_backward(args, 0.0f, false, nullptr).bytes;
}

extern "C" cudaError_t ctk_siglip_loss_bwd(const ct_siglip_loss_bwd_args *args, const ctk_launch *l)
{
    backward_memory m = lay_out_backward(args, 0.0f, false, l->workspace);
    if (!is_valid(m.b, m.first, m.rows)) return cudaErrorInvalidValue;
    m.b.p.logit_bias = ct_f32(&args->logit_bias);
    return ctk::with_type(args->image.dtype, [&](auto zero) {
        using T = decltype(zero);
        const backward_run<T> run = {
            loss_kind::sigmoid,     {},      {},      (T *)args->dimage.data,
            (T *)args->dtext.data,  nullptr, nullptr, ct_f32(&args->loss_scale),
            1.0f / (float)m.b.count};
        return run_backward(run, m, ct_f32(&args->dlogit_scale), ct_f32(&args->dlogit_bias), l);
    });
}
