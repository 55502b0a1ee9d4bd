/* Batch normalisation with the residual's addition and the ReLU (Ioffe & Szegedy 2015):
 *   y = relu(gamma (x - mean) rstd + beta + residual), statistics over N, H, W.
 *
 * Shapes  x, y, residual (N, H, W, C) = R rows of C, compute dtype; all else (C) f32.
 * Bytes   training: x read twice, y written, residual read: 3 or 4 R C sizeof(T); evaluation, or
 *         statistics given: 2 or 3. Bound by memory.
 * Plan    1. statistics: sums of d and d^2, d = x - (row 0 of x), one pass, two stages of
 *            columns.cuh. The shift keeps the digits that a mean large next to the deviation would
 *            cost ("shifted data", Chan, Golub & LeVeque, The American Statistician 37, 1983), and
 *            being the same for every thread it lets plain sums be added. f32 within a thread, four
 *            rows pairwise, f64 from there on.
 *         2. one small launch: mean, rstd, running statistics.
 *         Over several ranks 2. is two launches, with the ranks' exchange between them: own mean
 *         and variance (batchnorm_moments; or batchnorm_moments_of_sums where the convolution that
 *         made x has summed it), and a thread a channel that joins those of all ranks
 *         (batchnorm_merge; op.h has the formula).
 *         3. normalise: the same tiles with a channel's constants in registers, swept backwards, so
 *            that what pass 1 read last is still in the second-level cache.
 * Limit   C not a multiple of the vector width is read element by element. */
#include "columns.cuh"
#include "kernels.h"

namespace
{

using namespace ctk;

constexpr int statistics_unroll = 4, normalize_unroll = 2;

template <class T, int VEC>
__global__ void __launch_bounds__(column_threads, column_residency)
    batchnorm_moments(double *partial, const T *__restrict__ x, column_plan plan)
{
    const column_place<VEC> place(plan);
    float shift[VEC] = {}, sum[2][VEC] = {};
    if (place.active) load(shift, x + place.column);
    visit_rows<statistics_unroll>(plan, place, false, [&](auto count, int64_t at) {
        constexpr int rows = decltype(count)::value;
        float d[rows][VEC];
#pragma unroll
        for (int r = 0; r < rows; r++) load(d[r], x + at + r * place.step * plan.columns);
#pragma unroll
        for (int c = 0; c < VEC; c++) {
#pragma unroll
            for (int r = 0; r < rows; r++) d[r][c] -= shift[c];
            if constexpr (rows == 1) {
                sum[0][c] += d[0][c];
                sum[1][c] += d[0][c] * d[0][c];
            } else {
                sum[0][c] += (d[0][c] + d[1][c]) + (d[2][c] + d[3][c]);
                sum[1][c] += (d[0][c] * d[0][c] + d[1][c] * d[1][c]) +
                             (d[2][c] * d[2][c] + d[3][c] * d[3][c]);
            }
        }
    });
    store_partials(partial, sum, plan, place);
}

struct moments {
    double mean, variance;
};

/* Of channel c, whose sums of d and d^2 are given; share: 1/R. */
template <class T>
__device__ __forceinline__ moments moments_of(const double (&total)[2], const T *x, int64_t c,
                                              double share)
{
    const double offset = total[0] * share;
    const double spread = total[1] * share - offset * offset;
    return {(double)to_float(x[c]) + offset, spread < 0 ? 0 : spread /* NaN stays */};
}

struct statistics_target {
    float *mean, *rstd, *running_mean, *running_var;
    double unbias, eps,
        momentum; /* unbias: n/(n - 1) of the batch's n rows, or 1 for a single row */
};

__device__ __forceinline__ void set_statistics(const statistics_target &to, int64_t c, moments m)
{
    const double eps = to.eps, momentum = to.momentum, variance = m.variance;
    to.mean[c] = (float)m.mean;
    to.rstd[c] = (float)(1 / sqrt(variance + eps));
    to.running_mean[c] = (float)((1 - momentum) * (double)to.running_mean[c] + momentum * m.mean);
    to.running_var[c] =
        (float)((1 - momentum) * (double)to.running_var[c] + momentum * (variance * to.unbias));
}

template <class T>
__global__ void __launch_bounds__(column_threads)
    batchnorm_statistics(statistics_target to, const double *partial, const T *x, int slices,
                         int64_t channels, double share)
{
    double total[2];
    total_partials(total, partial, slices, channels);
    const int64_t c = (int64_t)blockIdx.x * total_columns + threadIdx.x;
    if (threadIdx.x >= total_columns || c >= channels) return;
    set_statistics(to, c, moments_of(total, x, c, share));
}

template <class T>
__global__ void __launch_bounds__(column_threads)
    batchnorm_own_moments(float *means, float *variances, const double *partial, const T *x,
                          int slices, int64_t channels, double share)
{
    double total[2];
    total_partials(total, partial, slices, channels);
    const int64_t c = (int64_t)blockIdx.x * total_columns + threadIdx.x;
    if (threadIdx.x >= total_columns || c >= channels) return;
    const moments m = moments_of(total, x, c, share);
    means[c] = (float)m.mean;
    variances[c] = (float)m.variance;
}

/* From sums (2, channels) of x and of x^2. */
__global__ void __launch_bounds__(column_threads)
    batchnorm_moments_of_sums(float *means, float *variances, const float *sums, int64_t channels,
                              double share)
{
    const int64_t c = (int64_t)blockIdx.x * column_threads + threadIdx.x;
    if (c >= channels) return;
    const double mean = (double)sums[c] * share;
    const double spread = (double)sums[channels + c] * share - mean * mean;
    means[c] = (float)mean;
    variances[c] = (float)(spread < 0 ? 0 : spread) /* NaN stays */;
}

/* parts (ranks, 2, channels). */
__global__ void __launch_bounds__(column_threads)
    batchnorm_merge_moments(statistics_target to, const float *parts, int64_t ranks,
                            int64_t channels)
{
    const int64_t c = (int64_t)blockIdx.x * column_threads + threadIdx.x;
    if (c >= channels) return;
    const double share = 1 / (double)ranks;
    moments m = {0, 0};
    for (int64_t r = 0; r < ranks; r++) m.mean += (double)parts[2 * r * channels + c] * share;
    for (int64_t r = 0; r < ranks; r++) {
        const double apart = (double)parts[2 * r * channels + c] - m.mean;
        m.variance += ((double)parts[(2 * r + 1) * channels + c] + apart * apart) * share;
    }
    set_statistics(to, c, m);
}

/* `spread` is the variance that rstd is computed from when running, else rstd. */
struct normalize_constants {
    const float *mean, *spread, *gamma, *beta;
    float eps;
    bool running, relu;
};

template <class T, int VEC, bool RESIDUAL>
__global__ void __launch_bounds__(column_threads, column_residency)
    batchnorm_normalize(T *__restrict__ y, const T *__restrict__ x, const T *__restrict__ residual,
                        normalize_constants p, column_plan plan)
{
    const column_place<VEC> place(plan);
    float mean[VEC] = {}, scale[VEC] = {}, beta[VEC] = {};
    if (place.active) {
        float spread[VEC];
        load(spread, p.spread + place.column);
        load(scale, p.gamma + place.column);
#pragma unroll
        for (int c = 0; c < VEC; c++)
            scale[c] *= p.running ? 1.0f / sqrtf(spread[c] + p.eps) : spread[c];
        load(mean, p.mean + place.column);
        load(beta, p.beta + place.column);
        if constexpr (fold_mean<T>) {
#pragma unroll
            for (int c = 0; c < VEC; c++) {
                beta[c] -= mean[c] * scale[c];
                mean[c] = 0;
            }
        }
    }
    visit_rows<normalize_unroll>(plan, place, true, [&](auto count, int64_t at) {
        constexpr int rows = decltype(count)::value;
        const int64_t step = place.step * plan.columns;
        float v[rows][VEC];
        [[maybe_unused]] float r[rows][VEC];
#pragma unroll
        for (int i = 0; i < rows; i++) load(v[i], x + at + i * step);
        if constexpr (RESIDUAL) {
#pragma unroll
            for (int i = 0; i < rows; i++) load(r[i], residual + at + i * step);
        }
#pragma unroll
        for (int i = 0; i < rows; i++) {
#pragma unroll
            for (int c = 0; c < VEC; c++) {
                float z = fmaf(v[i][c] - mean[c], scale[c], beta[c]);
                if constexpr (RESIDUAL) z += r[i][c];
                v[i][c] = p.relu && z < 0.0f ? 0.0f : z;
            }
            store(y + at + i * step, v[i]);
        }
    });
}

int64_t rows_of(const ct_tensor *x)
{
    return x->dim[0] * x->dim[1] * x->dim[2];
}

template <class T> column_plan plan_of(const ct_tensor *x, int unroll, int sm_count)
{
    const int vec = x->dim[3] % vec_width<T> == 0 ? vec_width<T> : 1;
    return plan_columns(rows_of(x), x->dim[3], vec, unroll, sm_count);
}

double unbias_of(int64_t rows)
{
    return rows > 1 ? (double)rows / (double)(rows - 1) : 1.0;
}

/* Pass 1: the partial sums in the workspace; *plan is what they were made by. */
template <class T>
cudaError_t sum_moments(const ct_tensor *x, const ctk_launch *launch, column_plan *plan)
{
    constexpr int W = vec_width<T>;
    *plan = plan_of<T>(x, statistics_unroll, launch->sm_count);
    auto kernel = plan->columns % W == 0 ? batchnorm_moments<T, W> : batchnorm_moments<T, 1>;
    return ctk::launch(kernel, column_grid(*plan), dim3(column_threads), 0, launch->stream,
                       (double *)launch->workspace, (const T *)x->data, *plan);
}

size_t moments_workspace(const ct_tensor *x, int sm_count)
{
    size_t bytes = 0;
    (void)with_type(x->dtype, [&](auto type) {
        const column_plan plan = plan_of<decltype(type)>(x, statistics_unroll, sm_count);
        bytes = 2 * (size_t)plan.slices * (size_t)plan.columns * sizeof(double);
        return cudaSuccess;
    });
    return bytes;
}

template <class T>
cudaError_t statistics(const ct_batchnorm_fwd_args *args, const ctk_launch *launch)
{
    column_plan plan;
    cudaError_t error = sum_moments<T>(&args->x, launch, &plan);
    if (error != cudaSuccess) return error;
    const statistics_target to = {ct_f32(&args->mean),         ct_f32(&args->rstd),
                                  ct_f32(&args->running_mean), ct_f32(&args->running_var),
                                  unbias_of(plan.rows),        (double)args->eps,
                                  (double)args->momentum};
    return ctk::launch(batchnorm_statistics<T>, total_grid(plan.columns), dim3(column_threads), 0,
                       launch->stream, to, (const double *)launch->workspace,
                       (const T *)args->x.data, plan.slices, plan.columns, 1 / (double)plan.rows);
}

} // namespace

extern "C" size_t ctk_batchnorm_fwd_workspace(const ct_batchnorm_fwd_args *args, int sm_count)
{
    if (args->statistics != CT_BATCHNORM_BATCH) return 0;
    return moments_workspace(&args->x, sm_count);
}

extern "C" cudaError_t ctk_batchnorm_fwd(const ct_batchnorm_fwd_args *args,
                                         const ctk_launch *launch)
{
    if (ct_tensor_count(&args->x) == 0) return cudaSuccess;
    return with_type(args->x.dtype, [&](auto type) {
        using T = decltype(type);
        constexpr int W = vec_width<T>;
        if (args->statistics == CT_BATCHNORM_BATCH) {
            cudaError_t error = statistics<T>(args, launch);
            if (error != cudaSuccess) return error;
        }
        const bool running = args->statistics == CT_BATCHNORM_RUNNING;
        const normalize_constants constants = {ct_f32(running ? &args->running_mean : &args->mean),
                                               ct_f32(running ? &args->running_var : &args->rstd),
                                               ct_f32(&args->gamma),
                                               ct_f32(&args->beta),
                                               args->eps,
                                               running,
                                               args->relu};
        const column_plan plan = plan_of<T>(&args->x, normalize_unroll, launch->sm_count);
        const bool wide = plan.columns % W == 0;
        auto kernel = wide ? batchnorm_normalize<T, W, false> : batchnorm_normalize<T, 1, false>;
        const T *residual = nullptr;
        if (ct_tensor_present(&args->residual)) {
            kernel = wide ? batchnorm_normalize<T, W, true> : batchnorm_normalize<T, 1, true>;
            residual = (const T *)args->residual.data;
        }
        return ctk::launch(kernel, column_grid(plan), dim3(column_threads), 0, launch->stream,
                           (T *)args->y.data, (const T *)args->x.data, residual, constants, plan);
    });
}

extern "C" size_t ctk_batchnorm_moments_workspace(const ct_batchnorm_moments_args *args,
                                                  int sm_count)
{
    return moments_workspace(&args->x, sm_count);
}

extern "C" cudaError_t ctk_batchnorm_moments(const ct_batchnorm_moments_args *args,
                                             const ctk_launch *launch)
{
    if (ct_tensor_count(&args->x) == 0) return cudaSuccess;
    return with_type(args->x.dtype, [&](auto type) {
        using T = decltype(type);
        column_plan plan;
        cudaError_t error = sum_moments<T>(&args->x, launch, &plan);
        if (error != cudaSuccess) return error;
        float *means = ct_f32(&args->moments);
        return ctk::launch(batchnorm_own_moments<T>, total_grid(plan.columns), dim3(column_threads),
                           0, launch->stream, means, means + plan.columns,
                           (const double *)launch->workspace, (const T *)args->x.data, plan.slices,
                           plan.columns, 1 / (double)plan.rows);
    });
}

extern "C" cudaError_t ctk_moments_of_sums(const ct_tensor *moments, const float *sums, int64_t rows,
                                           const ctk_launch *launch)
{
    const int64_t channels = moments->dim[1];
    return ctk::launch(batchnorm_moments_of_sums,
                       dim3((unsigned)ceil_div(channels, column_threads)), dim3(column_threads), 0,
                       launch->stream, ct_f32(moments), ct_f32(moments) + channels, sums, channels,
                       1 / (double)rows);
}

extern "C" cudaError_t ctk_batchnorm_merge(const ct_batchnorm_merge_args *args,
                                           const ctk_launch *launch)
{
    const int64_t ranks = args->moments.dim[0], channels = args->moments.dim[2];
    const statistics_target to = {ct_f32(&args->mean),         ct_f32(&args->rstd),
                                  ct_f32(&args->running_mean), ct_f32(&args->running_var),
                                  unbias_of(args->count),      (double)args->eps,
                                  (double)args->momentum};
    return ctk::launch(batchnorm_merge_moments, dim3((unsigned)ceil_div(channels, column_threads)),
                       dim3(column_threads), 0, launch->stream, to, ct_f32(&args->moments), ranks,
                       channels);
}
