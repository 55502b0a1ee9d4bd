/* y = act(x + bias), and x + bias kept for backward: what follows a product whose library has no
 * such epilogue.
 *
 * Shapes  x, y, preact (M, N) in the compute dtype, bias (N) f32.
 * Bytes   x read, y and preact written, once each: 2 or 3 M N sizeof(T). Bound by memory.
 * Plan    the tiles of columns.cuh: a thread keeps its columns' biases in registers and walks down
 *         the rows, two 16-byte vectors at a time.
 * Limit   N not a multiple of the vector width is read element by element. */
#include "columns.cuh"
#include "kernels.h"

namespace
{

using namespace ctk;

constexpr int unroll = 2;

/* bias and preact may be NULL; y and preact may be x. */
template <class T, int VEC, ct_activation act>
__global__ void __launch_bounds__(column_threads, column_residency)
    bias_activation(T *y, T *preact, const T *x, const float *__restrict__ bias, column_plan plan)
{
    const column_place<VEC> place(plan);
    float b[VEC] = {};
    if (bias && place.active) load(b, bias + place.column);
    visit_rows<unroll>(plan, place, false, [&](auto count, int64_t at) {
        constexpr int rows = decltype(count)::value;
        const int64_t step = place.step * plan.columns;
        float v[rows][VEC];
#pragma unroll
        for (int i = 0; i < rows; i++) load(v[i], x + at + i * step);
#pragma unroll
        for (int i = 0; i < rows; i++) {
#pragma unroll
            for (int c = 0; c < VEC; c++) v[i][c] += b[c];
            if (preact) store(preact + at + i * step, v[i]);
#pragma unroll
            for (int c = 0; c < VEC; c++) v[i][c] = activate<act>(v[i][c]);
            store(y + at + i * step, v[i]);
        }
    });
}

} // namespace

extern "C" cudaError_t ctk_bias_activation(const ct_tensor *y, const ct_tensor *preact,
                                           const ct_tensor *x, const ct_tensor *bias,
                                           ct_activation act, const ctk_launch *launch)
{
    if (ct_tensor_count(x) == 0) return cudaSuccess;
    const float *b = bias && ct_tensor_present(bias) ? ct_f32(bias) : nullptr;
    return with_type(x->dtype, [&](auto type) {
        using T = decltype(type);
        constexpr int W = vec_width<T>;
        T *kept = preact && ct_tensor_present(preact) ? (T *)preact->data : nullptr;
        const bool wide = x->dim[1] % W == 0;
        const column_plan plan =
            plan_columns(x->dim[0], x->dim[1], wide ? W : 1, unroll, launch->sm_count);
        return with_activation(act, [&](auto a) {
            auto kernel = wide ? bias_activation<T, W, decltype(a)::value>
                               : bias_activation<T, 1, decltype(a)::value>;
            return ctk::launch(kernel, column_grid(plan), dim3(column_threads), 0, launch->stream,
                               (T *)y->data, kept, (const T *)x->data, b, plan);
        });
    });
}
