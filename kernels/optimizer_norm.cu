/* The L2 norm of all gradients, and the clip coefficient and the loss scale that follow from it
 * (op.h: ct_grad_norm_args, ct_grad_stats_args).
 *
 *   grad_norm:  norm = sqrt(sum of grad^2 over all segments), in f64
 *   grad_stats: norm = sqrt(sum of norms^2)/loss_scale, in f64; one warp
 *
 * Bytes: every gradient is read once, 4 bytes a number, and 8 bytes a chunk of 16384 numbers are
 * written and read; bound by memory. In f64 a number costs a conversion and a multiply-add, which
 * cards with few f64 units (one for 64 f32 units) do in about the time in which its 4 bytes arrive.
 * Plan: one block a chunk, each thread four f64 sums (one for each place in a group of four
 * numbers), then a tree over the block; the last kernel is one block that adds the chunks' sums.
 * The order depends on the segments' sizes alone. Nothing is read back: the step stays recordable.
 * Source: torch.nn.utils.clip_grad_norm_; loss scaling, Micikevicius et al. 2018. */
#include "kernels.h"
#include "reduce.cuh"
#include "segments.cuh"

namespace ctk
{

constexpr int norm_threads = 256, finish_threads = 1024, stats_threads = 32, norm_segments = 200;

struct norm_table {
    const float *grad[norm_segments];
    int64_t count[norm_segments];
    int32_t first_chunk[norm_segments];
    int32_t segments;
    double *sums; /* of this launch's chunks */
};
static_assert(sizeof(norm_table) <= 4096, "a kernel's parameters hold 4 KiB");

/* Numbers 4 i to 4 i + 3, however the segment is aligned: the sums' order must not depend on it. */
__device__ __forceinline__ void load_quad(float (&x)[4], const float *from, bool aligned)
{
    if (aligned) {
        load<4>(x, from);
    } else {
#pragma unroll
        for (int u = 0; u < 4; u++) x[u] = from[u];
    }
}

__global__ void __launch_bounds__(norm_threads) sum_squares(norm_table table)
{
    const int chunk = (int)blockIdx.x;
    const int s = find_segment(chunk, table.segments, [&](int k) { return table.first_chunk[k]; });
    const int64_t begin = (int64_t)(chunk - table.first_chunk[s]) * chunk_elements;
    const int64_t left = table.count[s] - begin;
    const int count = left < chunk_elements ? (int)left : chunk_elements, quads = count / 4;
    const float *grad = table.grad[s] + begin;
    const bool aligned = is_aligned(grad, 16);

    double sum[4] = {0.0, 0.0, 0.0, 0.0};
#pragma unroll 4
    for (int quad = (int)threadIdx.x; quad < quads; quad += norm_threads) {
        float x[4];
        load_quad(x, grad + 4 * quad, aligned);
#pragma unroll
        for (int u = 0; u < 4; u++) sum[u] += (double)x[u] * (double)x[u];
    }
    const int last = 4 * quads + (int)threadIdx.x;
    if (last < count) sum[0] += (double)grad[last] * (double)grad[last];
    const double total = block_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
    if (threadIdx.x == 0) table.sums[chunk] = total;
}

/* What follows from the norms, whose squares' sum is given; loss_scale may be NULL. */
__device__ void set_stats(float *stats, float *loss_scale, double sum, float max_norm,
                          int growth_interval)
{
    const float scale = loss_scale ? loss_scale[0] : 1.0f;
    const float norm = (float)(sqrt(sum) / (double)scale);
    const float clip = max_norm > 0.0f ? max_norm / (norm + 1e-6f) : 1.0f;
    const bool finite = isfinite(norm);
    stats[0] = norm;
    stats[1] = (clip < 1.0f ? clip : 1.0f) / scale;
    stats[2] = finite ? 0.0f : 1.0f;
    if (!loss_scale) return;
    const float steps = loss_scale[1] + 1.0f;
    if (!finite) {
        loss_scale[0] = 0.5f * scale;
        loss_scale[1] = 0.0f;
    } else if (steps >= (float)growth_interval) {
        loss_scale[0] = fminf(2.0f * scale, 0x1p24f);
        loss_scale[1] = 0.0f;
    } else {
        loss_scale[1] = steps;
    }
}

__global__ void __launch_bounds__(finish_threads)
    finish_norm(float *norm, const double *sums, int64_t count)
{
    double sum = 0.0;
#pragma unroll 4
    for (int64_t i = threadIdx.x; i < count; i += finish_threads) sum += sums[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *norm = (float)sqrt(sum);
}

__global__ void __launch_bounds__(stats_threads)
    norm_stats(float *stats, float *loss_scale, const float *norms, int64_t count, float max_norm,
               int growth_interval)
{
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < count; i += stats_threads)
        sum += (double)norms[i] * (double)norms[i];
    sum = warp_sum(sum);
    if (threadIdx.x == 0) set_stats(stats, loss_scale, sum, max_norm, growth_interval);
}

static cudaError_t launch_sums(norm_table *table, int64_t *chunks, const ctk_launch *l)
{
    const cudaError_t error =
        launch(sum_squares, dim3((unsigned)*chunks), dim3(norm_threads), 0, l->stream, *table);
    table->sums += *chunks;
    table->segments = 0;
    *chunks = 0;
    return error;
}

} // namespace ctk

extern "C" size_t ctk_grad_norm_workspace(const ct_grad_norm_args *args, int sm_count)
{
    (void)sm_count;
    int64_t chunks = 0;
    for (int s = 0; s < args->segment_count; s++)
        chunks += ctk::chunk_count(ct_tensor_count(&args->segments[s].grad));
    return (size_t)chunks * sizeof(double);
}

extern "C" cudaError_t ctk_grad_norm(const ct_grad_norm_args *args, const ctk_launch *l)
{
    ctk::norm_table table = {};
    int64_t chunks = 0;
    double *sums = (double *)l->workspace;
    table.sums = sums;
    for (int s = 0; s < args->segment_count; s++) {
        const ct_tensor *grad = &args->segments[s].grad;
        const int64_t more = ctk::chunk_count(ct_tensor_count(grad));
        if (more == 0) continue;
        if (table.segments == ctk::norm_segments || chunks + more > INT32_MAX) {
            cudaError_t error = ctk::launch_sums(&table, &chunks, l);
            if (error != cudaSuccess) return error;
        }
        table.grad[table.segments] = (const float *)grad->data;
        table.count[table.segments] = ct_tensor_count(grad);
        table.first_chunk[table.segments++] = (int32_t)chunks;
        chunks += more;
    }
    cudaError_t error = ctk::launch_sums(&table, &chunks, l);
    if (error != cudaSuccess) return error;
    return ctk::launch(ctk::finish_norm, dim3(1), dim3(ctk::finish_threads), 0, l->stream,
                       ct_f32(&args->norm), sums, (int64_t)(table.sums - sums));
}

extern "C" cudaError_t ctk_grad_stats(const ct_grad_stats_args *args, const ctk_launch *l)
{
    return ctk::launch(ctk::norm_stats, dim3(1), dim3(ctk::stats_threads), 0, l->stream,
                       ct_f32(&args->stats), (float *)args->loss_scale.data, ct_f32(&args->norms),
                       ct_tensor_count(&args->norms), args->max_norm, args->growth_interval);
}
