/* Backward of batch normalisation's training form. With g = dy where y > 0 (everywhere without
 * ReLU), n = N H W and xhat = (x - mean) rstd:
 *   dbeta += sum(g), dgamma += sum(g xhat), dresidual = g,
 *   dx = gamma rstd (g - sum(g)/n - xhat sum(g xhat)/n)         (Ioffe & Szegedy 2015)
 *
 * Shapes  dy, y, x, dx, dresidual (N, H, W, C), compute dtype; all else (C) f32.
 * Bytes   with ReLU and residual: dy, x, y read and g written, then g and x read and dx written: 7
 *         tensors; with ReLU alone dy, x, y twice and dx: 7; without ReLU 5. Bound by memory.
 * Plan    2 or 3 vectors of 16 bytes in flight a thread.
 *         1. sums of g and g (x - mean), two stages of columns.cuh (f32 in a thread, then f64).
 *            Where dresidual is wanted this pass leaves g there, and pass 3 reads that instead of
 *            dy and y. Every element is read and written by one thread, so dresidual may be dy.
 *         2. one small launch: dgamma, dbeta, and the constants of pass 3.
 *         3. dx, swept backwards through what is still in the second-level cache.
 * Limit   C not a multiple of the vector width is read element by element. */
#include "columns.cuh"
#include "kernels.h"

namespace
{

using namespace ctk;

/* g = 0 where the ReLU's output y is not positive. */
template <class T, int VEC> __device__ __forceinline__ void mask(float (&g)[VEC], const T *y)
{
    float out[VEC];
    load(out, y);
#pragma unroll
    for (int c = 0; c < VEC; c++) g[c] = out[c] > 0.0f ? g[c] : 0.0f;
}

/* y NULL: no mask; dresidual NULL: g is not kept. dresidual may be dy. */
template <class T, int VEC>
__global__ void __launch_bounds__(column_threads, column_residency)
    batchnorm_gradient_sums(double *partial, T *dresidual, const T *dy, const T *__restrict__ x,
                            const T *__restrict__ y, const float *__restrict__ mean,
                            column_plan plan)
{
    const column_place<VEC> place(plan);
    float center[VEC] = {}, sum[2][VEC] = {};
    if (place.active) load(center, mean + place.column);
    visit_rows<1>(plan, place, false, [&](auto, int64_t at) {
        float g[VEC], d[VEC];
        load(g, dy + at);
        load(d, x + at);
        if (y) mask(g, y + at);
        if (dresidual) store(dresidual + at, g);
#pragma unroll
        for (int c = 0; c < VEC; c++) {
            sum[0][c] += g[c];
            sum[1][c] += g[c] * (d[c] - center[c]);
        }
    });
    store_partials(partial, sum, plan, place);
}

/* Adds to dgamma and dbeta; share: 1/n; constants (2, C) = mean(g) and rstd mean(g xhat). */
__global__ void __launch_bounds__(column_threads)
    batchnorm_gradient_constants(float *dgamma, float *dbeta, float *constants,
                                 const double *partial, const float *rstd, int slices,
                                 int64_t channels, double share)
{
    double total[2];
    total_partials(total, partial, slices, channels);
    const int64_t c = (int64_t)blockIdx.x * total_columns + threadIdx.x;
    if (threadIdx.x >= total_columns || c >= channels) return;
    const double r = (double)rstd[c];
    dbeta[c] += (float)total[0];
    dgamma[c] += (float)(total[1] * r);
    constants[c] = (float)(total[0] * share);
    constants[channels + c] = (float)(total[1] * r * r * share);
}

/* g may be dx; y NULL: g is masked already, or needs no mask. */
template <class T, int VEC>
__global__ void __launch_bounds__(column_threads, column_residency)
    batchnorm_input_gradient(T *dx, const T *g, const T *__restrict__ x, const T *__restrict__ y,
                             const float *__restrict__ gamma, const float *__restrict__ mean,
                             const float *__restrict__ rstd, const float *__restrict__ constants,
                             column_plan plan)
{
    const column_place<VEC> place(plan);
    float center[VEC] = {}, scale[VEC] = {}, mean_g[VEC] = {}, slope[VEC] = {};
    if (place.active) {
        float r[VEC];
        load(center, mean + place.column);
        load(scale, gamma + place.column);
        load(r, rstd + place.column);
        load(mean_g, constants + place.column);
        load(slope, constants + plan.columns + place.column);
#pragma unroll
        for (int c = 0; c < VEC; c++) {
            scale[c] *= r[c];
            if constexpr (fold_mean<T>) {
                mean_g[c] -= center[c] * slope[c];
                center[c] = 0;
            }
        }
    }
    visit_rows<1>(plan, place, true, [&](auto, int64_t at) {
        float v[VEC], d[VEC];
        load(v, g + at);
        load(d, x + at);
        if (y) mask(v, y + at);
#pragma unroll
        for (int c = 0; c < VEC; c++)
            v[c] = scale[c] * (v[c] - mean_g[c] - (d[c] - center[c]) * slope[c]);
        store(dx + at, v);
    });
}

template <class T> column_plan plan_of(const ct_tensor *x, int sm_count)
{
    const int64_t rows = x->dim[0] * x->dim[1] * x->dim[2];
    const int vec = x->dim[3] % vec_width<T> == 0 ? vec_width<T> : 1;
    return plan_columns(rows, x->dim[3], vec, 1, sm_count);
}

size_t partial_count(const column_plan &plan)
{
    return 2 * (size_t)plan.slices * (size_t)plan.columns;
}

} // namespace

/* The partials, then the (2, C) constants. */
extern "C" size_t ctk_batchnorm_bwd_workspace(const ct_batchnorm_bwd_args *args, int sm_count)
{
    size_t bytes = 0;
    (void)with_type(args->x.dtype, [&](auto type) {
        const column_plan plan = plan_of<decltype(type)>(&args->x, sm_count);
        bytes = partial_count(plan) * sizeof(double) + 2 * (size_t)plan.columns * sizeof(float);
        return cudaSuccess;
    });
    return bytes;
}

extern "C" cudaError_t ctk_batchnorm_bwd(const ct_batchnorm_bwd_args *args,
                                         const ctk_launch *launch)
{
    if (ct_tensor_count(&args->x) == 0) return cudaSuccess;
    return with_type(args->x.dtype, [&](auto type) {
        using T = decltype(type);
        constexpr int W = vec_width<T>;
        const bool keep = ct_tensor_present(&args->dresidual);
        const T *dy = (const T *)args->dy.data, *x = (const T *)args->x.data;
        const T *y = args->relu ? (const T *)args->y.data : nullptr;
        T *dresidual = keep ? (T *)args->dresidual.data : nullptr;

        const column_plan plan = plan_of<T>(&args->x, launch->sm_count);
        double *partial = (double *)launch->workspace;
        float *constants = (float *)(partial + partial_count(plan));
        auto sums =
            plan.columns % W == 0 ? batchnorm_gradient_sums<T, W> : batchnorm_gradient_sums<T, 1>;
        cudaError_t error =
            ctk::launch(sums, column_grid(plan), dim3(column_threads), 0, launch->stream, partial,
                        dresidual, dy, x, y, ct_f32(&args->mean), plan);
        if (error != cudaSuccess) return error;
        error = ctk::launch(batchnorm_gradient_constants, total_grid(plan.columns),
                            dim3(column_threads), 0, launch->stream, ct_f32(&args->dgamma),
                            ct_f32(&args->dbeta), constants, partial, ct_f32(&args->rstd),
                            plan.slices, plan.columns, 1 / (double)plan.rows);
        if (error != cudaSuccess) return error;

        auto gradient =
            plan.columns % W == 0 ? batchnorm_input_gradient<T, W> : batchnorm_input_gradient<T, 1>;
        return ctk::launch(gradient, column_grid(plan), dim3(column_threads), 0, launch->stream,
                           (T *)args->dx.data, keep ? dresidual : dy, x, keep ? nullptr : y,
                           ct_f32(&args->gamma), ct_f32(&args->mean), ct_f32(&args->rstd),
                           constants, plan);
    });
}
