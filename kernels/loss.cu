/* What joins the parts of the symmetric cross-entropy (op.h: ct_clip_loss_merge_args,
 * ct_clip_loss_total_args): a thread a column, and one block that sums in f64. Bytes: each operand
 * read once or twice, of O(N). */
#include "kernels.h"
#include "numeric.cuh"
#include "reduce.cuh"

namespace ctk::loss
{

constexpr int MERGE_BLOCK = 256, TOTAL_BLOCK = 1024;

static __global__ void __launch_bounds__(MERGE_BLOCK)
    merge_lse(float *lse, const float *parts, int64_t rows, int64_t columns)
{
    const int64_t j = (int64_t)blockIdx.x * MERGE_BLOCK + threadIdx.x;
    if (j >= columns) return;
    float highest = -INFINITY, sum = 0.0f;
    for (int64_t r = 0; r < rows; r++) highest = fmaxf(highest, parts[r * columns + j]);
    for (int64_t r = 0; r < rows; r++) sum += expf(parts[r * columns + j] - highest);
    lse[j] = highest + logf(sum);
}

static __global__ void __launch_bounds__(TOTAL_BLOCK)
    total_loss(float *loss, const float *row_lse, const float *col_lse, const float *target,
               int64_t rows, int64_t count)
{
    double sum = 0.0;
#pragma unroll 4
    for (int64_t i = threadIdx.x; i < rows; i += TOTAL_BLOCK)
        sum += (double)row_lse[i] + (double)col_lse[i] - 2.0 * (double)target[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *loss = (float)(sum / (2.0 * (double)count));
}

} // namespace ctk::loss

using namespace ctk::loss;

extern "C" cudaError_t ctk_clip_loss_merge(const ct_clip_loss_merge_args *args, const ctk_launch *l)
{
    const int64_t rows = args->parts.dim[0], columns = args->parts.dim[1];
    return ctk::launch(merge_lse, dim3((unsigned)ctk::ceil_div(columns, MERGE_BLOCK)),
                       dim3(MERGE_BLOCK), 0, l->stream, ct_f32(&args->lse),
                       (const float *)ct_f32(&args->parts), rows, columns);
}

extern "C" cudaError_t ctk_clip_loss_total(const ct_clip_loss_total_args *args, const ctk_launch *l)
{
    return ctk::launch(total_loss, dim3(1), dim3(TOTAL_BLOCK), 0, l->stream, ct_f32(&args->loss),
                       (const float *)ct_f32(&args->row_lse), (const float *)ct_f32(&args->col_lse),
                       (const float *)ct_f32(&args->target), args->row_lse.dim[0], args->count);
}
