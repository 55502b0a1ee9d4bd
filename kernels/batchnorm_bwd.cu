/* Backward of batch normalisation's training forms. With g = dy where y > 0 (everywhere without
 * ReLU), n = N H W and xhat = (x - mean) rstd:
 *   dbeta += sum(g), dgamma += sum(g xhat), dresidual = g,
 *   dx = gamma rstd (g - sum(g)/n - xhat sum(g xhat)/n)         (Ioffe & Szegedy 2015)
 *
 * Shapes  dy, y, x, dx, dresidual (N, H, W, C), compute dtype; all else (C) f32.
 * Bytes   with ReLU and residual: dy, x, y read and g written, then g and x read and dx written: 7
 *         tensors; with ReLU alone dy, x, y twice and dx: 7; without ReLU 5. Over several ranks
 *         (batchnorm_bwd_sums, then batchnorm_bwd with their sums) ReLU and residual cost 8: g is
 *         formed twice. Bound by memory.
 * Plan    2 or 3 vectors of 16 bytes in flight a thread.
 *         1. sums of g and g (x - mean), two stages of columns.cuh (f32 in a thread, then f64).
 *            Where dresidual is wanted and pass 3 is the same operation's, this pass leaves g there
 *            and pass 3 reads that instead of dy and y; else pass 3 writes it. Every element is
 *            read and written by one thread, so dresidual may be dy.
 *         2. one small launch: dgamma, dbeta, and the sums of g and of g xhat.
 *         3. dx, from those sums or the ranks', swept backwards through what is still in the
 * second-level cache. Limit   C not a multiple of the vector width is read element by element. */
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

/* Adds to dgamma and dbeta; sums (2, C) = the sums of g and of g xhat. */
__global__ void __launch_bounds__(column_threads)
    batchnorm_gradient_totals(float *sums, float *dgamma, float *dbeta, const double *partial,
                              const float *rstd, int slices, int64_t channels)
{
    double total[2];
    total_partials(total, partial, slices, channels);
    const int64_t c = (int64_t)blockIdx.x * total_columns + threadIdx.x;
    if (threadIdx.x >= total_columns || c >= channels) return;
    const float sum = (float)total[0], product = (float)(total[1] * (double)rstd[c]);
    dbeta[c] += sum;
    dgamma[c] += product;
    sums[c] = sum;
    sums[channels + c] = product;
}

/* share: 1/n, of the n rows that `sums` are over. g may be dx or dresidual; y NULL: g is masked
 * already, or needs no mask; dresidual NULL: g is not kept. */
template <class T, int VEC>
__global__ void __launch_bounds__(column_threads, column_residency)
    batchnorm_input_gradient(T *dx, T *dresidual, const T *g, const T *__restrict__ x,
                             const T *__restrict__ y, const float *__restrict__ gamma,
                             const float *__restrict__ mean, const float *__restrict__ rstd,
                             const float *__restrict__ sums, float share, column_plan plan)
{
    const column_place<VEC> place(plan);
    float center[VEC] = {}, scale[VEC] = {}, mean_g[VEC] = {}, slope[VEC] = {};
    if (place.active) {
        float r[VEC];
        load(center, mean + place.column);
        load(scale, gamma + place.column);
        load(r, rstd + place.column);
        load(mean_g, sums + place.column);
        load(slope, sums + plan.columns + place.column);
#pragma unroll
        for (int c = 0; c < VEC; c++) {
            scale[c] *= r[c];
            mean_g[c] *= share;
            slope[c] *= r[c] * share;
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
        if (dresidual) store(dresidual + at, v);
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

/* Passes 1 and 2. dresidual NULL: g is not kept. */
template <class T>
cudaError_t sum_gradients(const ct_batchnorm_bwd_sums_args *args, T *dresidual,
                          const ctk_launch *launch)
{
    constexpr int W = vec_width<T>;
    const column_plan plan = plan_of<T>(&args->x, launch->sm_count);
    double *partial = (double *)launch->workspace;
    auto kernel =
        plan.columns % W == 0 ? batchnorm_gradient_sums<T, W> : batchnorm_gradient_sums<T, 1>;
    cudaError_t error =
        ctk::launch(kernel, column_grid(plan), dim3(column_threads), 0, launch->stream, partial,
                    dresidual, (const T *)args->dy.data, (const T *)args->x.data,
                    args->relu ? (const T *)args->y.data : nullptr, ct_f32(&args->mean), plan);
    if (error != cudaSuccess) return error;
    return ctk::launch(batchnorm_gradient_totals, total_grid(plan.columns), dim3(column_threads), 0,
                       launch->stream, ct_f32(&args->sums), ct_f32(&args->dgamma),
                       ct_f32(&args->dbeta), partial, ct_f32(&args->rstd), plan.slices,
                       plan.columns);
}

size_t partials_bytes(const ct_tensor *x, int sm_count)
{
    size_t bytes = 0;
    (void)with_type(x->dtype, [&](auto type) {
        const column_plan plan = plan_of<decltype(type)>(x, sm_count);
        bytes = 2 * (size_t)plan.slices * (size_t)plan.columns * sizeof(double);
        return cudaSuccess;
    });
    return bytes;
}

/* The sums of own rows, which go behind the partials. */
ct_batchnorm_bwd_sums_args own_sums(const ct_batchnorm_bwd_args *args, const ctk_launch *launch)
{
    ct_batchnorm_bwd_sums_args own = {};
    char *sums = (char *)launch->workspace + partials_bytes(&args->x, launch->sm_count);
    own.sums = ct_tensor2(sums, CT_F32, 2, args->x.dim[3]);
    own.dgamma = args->dgamma;
    own.dbeta = args->dbeta;
    own.dy = args->dy;
    own.x = args->x;
    own.y = args->y;
    own.mean = args->mean;
    own.rstd = args->rstd;
    own.relu = args->relu;
    return own;
}

} // namespace

extern "C" size_t ctk_batchnorm_bwd_workspace(const ct_batchnorm_bwd_args *args, int sm_count)
{
    if (ct_tensor_present(&args->sums)) return 0;
    return partials_bytes(&args->x, sm_count) + 2 * (size_t)args->x.dim[3] * sizeof(float);
}

extern "C" cudaError_t ctk_batchnorm_bwd(const ct_batchnorm_bwd_args *args,
                                         const ctk_launch *launch)
{
    if (ct_tensor_count(&args->x) == 0) return cudaSuccess;
    return with_type(args->x.dtype, [&](auto type) {
        using T = decltype(type);
        constexpr int W = vec_width<T>;
        const T *g = (const T *)args->dy.data, *y = args->relu ? (const T *)args->y.data : nullptr;
        T *dresidual = ct_tensor_present(&args->dresidual) ? (T *)args->dresidual.data : nullptr;
        ct_tensor sums = args->sums;
        int64_t count = args->count;
        if (!ct_tensor_present(&sums)) {
            const ct_batchnorm_bwd_sums_args own = own_sums(args, launch);
            cudaError_t error = sum_gradients<T>(&own, dresidual, launch);
            if (error != cudaSuccess) return error;
            sums = own.sums;
            count = ct_tensor_count(&args->x) / args->x.dim[3];
            if (dresidual) {
                g = dresidual;
                y = nullptr;
                dresidual = nullptr;
            }
        }
        const column_plan plan = plan_of<T>(&args->x, launch->sm_count);
        auto gradient =
            plan.columns % W == 0 ? batchnorm_input_gradient<T, W> : batchnorm_input_gradient<T, 1>;
        return ctk::launch(gradient, column_grid(plan), dim3(column_threads), 0, launch->stream,
                           (T *)args->dx.data, dresidual, g, (const T *)args->x.data, y,
                           ct_f32(&args->gamma), ct_f32(&args->mean), ct_f32(&args->rstd),
                           ct_f32(&sums), (float)(1 / (double)count), plan);
    });
}

extern "C" size_t ctk_batchnorm_bwd_sums_workspace(const ct_batchnorm_bwd_sums_args *args,
                                                   int sm_count)
{
    return partials_bytes(&args->x, sm_count);
}

extern "C" cudaError_t ctk_batchnorm_bwd_sums(const ct_batchnorm_bwd_sums_args *args,
                                              const ctk_launch *launch)
{
    if (ct_tensor_count(&args->x) == 0) return cudaSuccess;
    return with_type(args->x.dtype, [&](auto type) {
        using T = decltype(type);
        return sum_gradients<T>(args, (T *)nullptr, launch);
    });
}
