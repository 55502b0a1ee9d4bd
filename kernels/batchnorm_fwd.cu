/* Batch normalisation with the residual's addition and the ReLU (Ioffe & Szegedy 2015):
 *   y = relu(gamma (x - mean) rstd + beta + residual), statistics over N, H, W.
 *
 * Shapes  x, y, residual (N, H, W, C) = R rows of C, compute dtype; all else (C) f32.
 * Bytes   training: x read twice, y written, residual read: 3 or 4 R C sizeof(T); evaluation: 2 or
 *         3. Bound by memory.
 * Plan    1. statistics: sums of d and d^2, d = x - (row 0 of x), one pass, two stages of
 *            columns.cuh. The shift keeps the digits that a mean large next to the deviation would
 *            cost ("shifted data", Chan, Golub & LeVeque, The American Statistician 37, 1983), and
 *            being the same for every thread it lets plain sums be added. f32 within a thread, four
 *            rows pairwise, f64 from there on.
 *         2. one small launch: mean, rstd, running statistics.
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

/* share: 1/R; unbias: R/(R - 1), or 1 for a single row. */
template <class T>
__global__ void __launch_bounds__(column_threads)
    batchnorm_statistics(float *mean, float *rstd, float *running_mean, float *running_var,
                         const double *partial, const T *x, int slices, int64_t channels,
                         double share, double unbias, double eps, double momentum)
{
    double total[2];
    total_partials(total, partial, slices, channels);
    const int64_t c = (int64_t)blockIdx.x * total_columns + threadIdx.x;
    if (threadIdx.x >= total_columns || c >= channels) return;
    const double offset = total[0] * share;
    const double center = (double)to_float(x[c]) + offset;
    const double spread = total[1] * share - offset * offset;
    const double variance = spread < 0 ? 0 : spread; /* NaN stays */
    mean[c] = (float)center;
    rstd[c] = (float)(1 / sqrt(variance + eps));
    running_mean[c] = (float)((1 - momentum) * (double)running_mean[c] + momentum * center);
    running_var[c] =
        (float)((1 - momentum) * (double)running_var[c] + momentum * (variance * unbias));
}

/* `spread` is rstd when training, else the variance that it is computed from. */
struct normalize_constants {
    const float *mean, *spread, *gamma, *beta;
    float eps;
    bool training, relu;
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
            scale[c] *= p.training ? spread[c] : 1.0f / sqrtf(spread[c] + p.eps);
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

template <class T>
cudaError_t statistics(const ct_batchnorm_fwd_args *args, const ctk_launch *launch)
{
    constexpr int W = vec_width<T>;
    const T *x = (const T *)args->x.data;
    double *partial = (double *)launch->workspace;
    const column_plan plan = plan_of<T>(&args->x, statistics_unroll, launch->sm_count);
    auto kernel = plan.columns % W == 0 ? batchnorm_moments<T, W> : batchnorm_moments<T, 1>;
    cudaError_t error = ctk::launch(kernel, column_grid(plan), dim3(column_threads), 0,
                                    launch->stream, partial, x, plan);
    if (error != cudaSuccess) return error;
    const double n = (double)plan.rows;
    return ctk::launch(batchnorm_statistics<T>, total_grid(plan.columns), dim3(column_threads), 0,
                       launch->stream, ct_f32(&args->mean), ct_f32(&args->rstd),
                       ct_f32(&args->running_mean), ct_f32(&args->running_var), partial, x,
                       plan.slices, plan.columns, 1 / n, n > 1 ? n / (n - 1) : 1.0,
                       (double)args->eps, (double)args->momentum);
}

} // namespace

extern "C" size_t ctk_batchnorm_fwd_workspace(const ct_batchnorm_fwd_args *args, int sm_count)
{
    size_t bytes = 0;
    (void)with_type(args->x.dtype, [&](auto type) {
        const column_plan plan = plan_of<decltype(type)>(&args->x, statistics_unroll, sm_count);
        bytes = 2 * (size_t)plan.slices * (size_t)plan.columns * sizeof(double);
        return cudaSuccess;
    });
    return bytes;
}

extern "C" cudaError_t ctk_batchnorm_fwd(const ct_batchnorm_fwd_args *args,
                                         const ctk_launch *launch)
{
    if (ct_tensor_count(&args->x) == 0) return cudaSuccess;
    return with_type(args->x.dtype, [&](auto type) {
        using T = decltype(type);
        constexpr int W = vec_width<T>;
        if (args->training) {
            cudaError_t error = statistics<T>(args, launch);
            if (error != cudaSuccess) return error;
        }
        const normalize_constants constants = {
            ct_f32(args->training ? &args->mean : &args->running_mean),
            ct_f32(args->training ? &args->rstd : &args->running_var),
            ct_f32(&args->gamma),
            ct_f32(&args->beta),
            args->eps,
            args->training,
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
