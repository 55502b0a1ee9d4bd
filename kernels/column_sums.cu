/* sum[c] += the sum over rows of x[.][c]: the gradient of a bias.
 *
 * Shapes  x (M, N) in the compute dtype, sum (N) f32.
 * Bytes   M N sizeof(T) read once; partials of 8 bytes a column and slice (at most 4 blocks a
 *         multiprocessor) stay in the second-level cache. Bound by memory.
 * Plan    two stages of columns.cuh: 4 rows x 16 bytes in flight a thread, sums in f32, then f64.
 * Limit   few columns and few rows leave multiprocessors idle; N not a multiple of the vector
 *         width is read element by element. */
#include "columns.cuh"
#include "kernels.h"

namespace
{

using namespace ctk;

constexpr int unroll = 4;

template <class T, int VEC>
__global__ void __launch_bounds__(column_threads, column_residency)
    column_sums_slices(double *partial, const T *__restrict__ x, column_plan plan)
{
    const column_place<VEC> place(plan);
    float sum[1][VEC] = {};
    visit_rows<unroll>(plan, place, false, [&](auto count, int64_t at) {
        constexpr int rows = decltype(count)::value;
        float v[rows][VEC];
#pragma unroll
        for (int r = 0; r < rows; r++) load(v[r], x + at + r * place.step * plan.columns);
#pragma unroll
        for (int c = 0; c < VEC; c++) {
            if constexpr (rows == 1) sum[0][c] += v[0][c];
            else sum[0][c] += (v[0][c] + v[1][c]) + (v[2][c] + v[3][c]);
        }
    });
    store_partials(partial, sum, plan, place);
}

__global__ void __launch_bounds__(column_threads)
    column_sums_total(float *sum, const double *partial, int slices, int64_t columns)
{
    double total[1];
    total_partials(total, partial, slices, columns);
    const int64_t column = (int64_t)blockIdx.x * total_columns + threadIdx.x;
    if (threadIdx.x < total_columns && column < columns) sum[column] += (float)total[0];
}

template <class T> column_plan plan_of(const ct_tensor *x, int sm_count)
{
    const int vec = x->dim[1] % vec_width<T> == 0 ? vec_width<T> : 1;
    return plan_columns(x->dim[0], x->dim[1], vec, unroll, sm_count);
}

} // namespace

extern "C" size_t ctk_column_sums_workspace(const ct_tensor *x, int sm_count)
{
    size_t bytes = 0;
    (void)with_type(x->dtype, [&](auto type) {
        const column_plan plan = plan_of<decltype(type)>(x, sm_count);
        bytes = (size_t)plan.slices * (size_t)plan.columns * sizeof(double);
        return cudaSuccess;
    });
    return bytes;
}

extern "C" cudaError_t ctk_column_sums(const ct_tensor *sum, const ct_tensor *x,
                                       const ctk_launch *launch)
{
    if (ct_tensor_count(x) == 0) return cudaSuccess;
    double *partial = (double *)launch->workspace;
    return with_type(x->dtype, [&](auto type) {
        using T = decltype(type);
        constexpr int W = vec_width<T>;
        const column_plan plan = plan_of<T>(x, launch->sm_count);
        auto kernel = plan.columns % W == 0 ? column_sums_slices<T, W> : column_sums_slices<T, 1>;
        cudaError_t error = ctk::launch(kernel, column_grid(plan), dim3(column_threads), 0,
                                        launch->stream, partial, (const T *)x->data, plan);
        if (error != cudaSuccess) return error;
        return ctk::launch(column_sums_total, total_grid(plan.columns), dim3(column_threads), 0,
                           launch->stream, (float *)sum->data, partial, plan.slices, plan.columns);
    });
}
