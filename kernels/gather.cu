/* Rows picked by index, and their gradient (op.h: ct_gather_rows_fwd_args, _bwd_args).
 *
 *   forward:  y[i] = x[index[i]]          backward:  dx = 0, dx[index[i]] = dy[i]
 *
 * Shapes: y, dy (N, D); x, dx (T, D); index (N), distinct. Numbers are only moved, so the kernel
 * knows no format but the widest unit that divides a row: 16, 4 or 2 bytes.
 *
 * Bytes: forward 2 N rows; backward T + 2 N rows, the zeros by the driver's own fill. Bound by
 * memory, or by the launch: N is a batch's size.
 *
 * Plan: one warp a row, a lane 16 bytes at a time, 8 warps a block.
 *
 * Limit: an index out of range cannot be reported from here. Such a row becomes NaN (all bits set)
 * in forward, so that the loss shows it, and is left out in backward. */
#include "kernels.h"
#include "numeric.cuh"

namespace ctk
{

constexpr int gather_warps = 8;

template <class Unit> __device__ __forceinline__ Unit all_ones();
template <> __device__ __forceinline__ uint4 all_ones<uint4>()
{
    return make_uint4(~0u, ~0u, ~0u, ~0u);
}
template <> __device__ __forceinline__ uint32_t all_ones<uint32_t>()
{
    return ~0u;
}
template <> __device__ __forceinline__ uint16_t all_ones<uint16_t>()
{
    return 0xFFFFu;
}

/* rows: of the indexed tensor; width in units. scatter: to[index[i]] = from[i], else to[i] =
 * from[index[i]]. */
template <class Unit, bool scatter>
__global__ void __launch_bounds__(32 * gather_warps)
    move_rows(Unit *to, const Unit *from, const int32_t *index, int64_t count, int64_t rows,
              int64_t width)
{
    const int64_t i = (int64_t)blockIdx.x * gather_warps + threadIdx.x / 32;
    if (i >= count) return;
    const int64_t row = index[i];
    const bool valid = row >= 0 && row < rows;
    if (scatter && !valid) return;
    Unit *destination = to + (scatter ? row : i) * width;
    const Unit *source = from + (scatter ? i : row) * width;
#pragma unroll 4
    for (int64_t k = threadIdx.x % 32; k < width; k += 32)
        destination[k] = valid ? source[k] : all_ones<Unit>();
}

template <class Unit, bool scatter>
static cudaError_t launch_units(const ct_tensor *to, const ct_tensor *from, const int32_t *index,
                                const ctk_launch *l)
{
    const int64_t count = scatter ? from->dim[0] : to->dim[0];
    const int64_t rows = scatter ? to->dim[0] : from->dim[0];
    const int64_t row_bytes = to->dim[1] * (int64_t)ct_dtype_bytes(to->dtype);
    return launch(move_rows<Unit, scatter>, dim3((unsigned)ceil_div(count, gather_warps)),
                  dim3(32 * gather_warps), 0, l->stream, (Unit *)to->data, (const Unit *)from->data,
                  index, count, rows, row_bytes / (int64_t)sizeof(Unit));
}

template <bool scatter>
static cudaError_t launch_rows(const ct_tensor *to, const ct_tensor *from, const ct_tensor *index,
                               const ctk_launch *l)
{
    if (to->dtype != from->dtype) return cudaErrorInvalidValue;
    const size_t row_bytes = (size_t)to->dim[1] * ct_dtype_bytes(to->dtype);
    const int32_t *rows = (const int32_t *)index->data;
    if (row_bytes % 16 == 0) return launch_units<uint4, scatter>(to, from, rows, l);
    if (row_bytes % 4 == 0) return launch_units<uint32_t, scatter>(to, from, rows, l);
    if (row_bytes % 2 == 0) return launch_units<uint16_t, scatter>(to, from, rows, l);
    return cudaErrorInvalidValue;
}

} // namespace ctk

extern "C" cudaError_t ctk_gather_rows_fwd(const ct_gather_rows_fwd_args *args, const ctk_launch *l)
{
    return ctk::launch_rows<false>(&args->y, &args->x, &args->index, l);
}

extern "C" cudaError_t ctk_gather_rows_bwd(const ct_gather_rows_bwd_args *args, const ctk_launch *l)
{
    cudaError_t error = cudaMemsetAsync(args->dx.data, 0, ct_tensor_bytes(&args->dx), l->stream);
    if (error != cudaSuccess) return error;
    return ctk::launch_rows<true>(&args->dx, &args->dy, &args->index, l);
}
