/* Work along the columns of a row-major (rows, columns) matrix: per-column sums (statistics,
 * gradients of gamma, beta and biases) in two stages, and passes that keep a column's constants in
 * registers.
 *
 *   block (tile, slice)      32 lanes x VEC columns, read as 16-byte vectors
 *        ┌── lanes ──┐
 *   y 0  │ v v v v v │ ┐
 *   y 1  │ v v v v v │ │ chunk: UNROLL x (256/lanes) neighbouring rows; a slice takes every
 *   ...  │           │ ┘ slices-th chunk, so that all blocks sweep memory together
 *
 * Stage 1: a thread sums its rows in f32, the block adds its threads in f64 in order of y and
 * writes one row of partials (slices, K, columns). Stage 2 adds the slices in a fixed order. */
#ifndef CT_KERNELS_COLUMNS_CUH
#define CT_KERNELS_COLUMNS_CUH

#include <type_traits>

#include "numeric.cuh"

namespace ctk
{

/* Sweeping kernels spread over column_residency blocks a multiprocessor, which live all at once. */
constexpr int column_threads = 256, column_residency = 4;

struct column_plan {
    int64_t rows, columns;
    int64_t chunks;    /* of unroll x (column_threads / lanes) rows */
    int lanes;         /* vectors along a row that one block owns: a power of two up to 32 */
    int tiles, slices; /* blocks along a row, blocks down the rows */
};

/* `vec`: columns a thread owns, a divisor of `columns`. `unroll`: rows a thread reads at once. */
inline column_plan plan_columns(int64_t rows, int64_t columns, int vec, int unroll, int sm_count)
{
    const int64_t vectors = columns / vec;
    const int fewest = vec == 1 ? 32 : 8; /* lanes that still fill the memory's 128-byte lines */
    int lanes = 32;
    while (lanes > fewest && vectors % lanes) lanes /= 2;
    while (lanes > 1 && lanes / 2 >= vectors) lanes /= 2;
    const int64_t tiles = ceil_div(vectors, lanes);
    const int64_t chunks = ceil_div(rows, (int64_t)unroll * (column_threads / lanes));
    const int64_t wanted = ceil_div((int64_t)column_residency * sm_count, tiles);
    return {rows, columns, chunks, lanes, (int)tiles, (int)(chunks < wanted ? chunks : wanted)};
}

/* Tiles of the same rows are neighbours in launch order: they share pages of memory. */
inline dim3 column_grid(const column_plan &plan)
{
    return dim3((unsigned)((int64_t)plan.tiles * plan.slices));
}

/* What this thread owns: VEC columns from `column` on (if `active`), in rows y, y + step, ... of
 * its slice's chunks. */
template <int VEC> struct column_place {
    int64_t column;
    int slice, y, step;
    bool active;

    __device__ __forceinline__ explicit column_place(const column_plan &plan)
    {
        const int tile = (int)blockIdx.x % plan.tiles;
        slice = (int)blockIdx.x / plan.tiles;
        step = column_threads / plan.lanes;
        y = (int)threadIdx.x / plan.lanes;
        column = ((int64_t)tile * plan.lanes + (int)threadIdx.x % plan.lanes) * VEC;
        active = column < plan.columns;
    }
};

/* Calls f(count, offset) for all rows of this thread: `count` (an integral_constant, UNROLL or 1)
 * rows whose elements lie at offset, offset + step columns, ... Backwards, the sweep starts where a
 * forward sweep ended: what is still in the second-level cache is read first. */
template <int UNROLL, int VEC, class F>
__device__ __forceinline__ void visit_rows(const column_plan &plan, const column_place<VEC> &place,
                                           bool backwards, F f)
{
    if (!place.active) return;
    const int64_t chunk = (int64_t)UNROLL * place.step;
    for (int64_t t = place.slice; t < plan.chunks; t += plan.slices) {
        int64_t row = (backwards ? plan.chunks - 1 - t : t) * chunk + place.y;
        if (row + (UNROLL - 1) * place.step < plan.rows) {
            f(std::integral_constant<int, UNROLL>(), row * plan.columns + place.column);
            continue;
        }
        for (; row < plan.rows; row += place.step)
            f(std::integral_constant<int, 1>(), row * plan.columns + place.column);
    }
}

/* End of stage 1: partial[slice][k][column] = the block's sum of sum[k]. All threads must come. */
template <int K, int VEC>
__device__ __forceinline__ void store_partials(double *partial, const float (&sum)[K][VEC],
                                               const column_plan &plan,
                                               const column_place<VEC> &place)
{
    CTK_SHARED(float, shared, column_threads *VEC);
    const int width = plan.lanes * VEC, c = (int)threadIdx.x;
    const int64_t column = (int64_t)((int)blockIdx.x % plan.tiles) * width + c;
#pragma unroll
    for (int k = 0; k < K; k++) {
#pragma unroll
        for (int v = 0; v < VEC; v++) shared[c * VEC + v] = sum[k][v];
        __syncthreads();
        if (c < width && column < plan.columns) {
            double total = 0;
            for (int y = 0; y < place.step; y++) total += (double)shared[y * width + c];
            partial[((int64_t)place.slice * K + k) * plan.columns + column] = total;
        }
        __syncthreads();
    }
}

/* Whether s (x - mean) + b may be computed as s x + (b - s mean), which saves a register a column:
 * where x has 11 bits or fewer, its own rounding is far above that of f32 which cancels here. */
template <class T> constexpr bool fold_mean = sizeof(T) == 2;

/* Stage 2: a block of column_threads threads for each 8 columns, which fill a sector of memory;
 * 32 threads add every 32nd slice of a column. */
constexpr int total_columns = 8;

inline dim3 total_grid(int64_t columns)
{
    return dim3((unsigned)ceil_div(columns, total_columns));
}

/* total[k] of column blockIdx.x total_columns + threadIdx.x over all slices, for the first
 * total_columns threads of the block. All threads must come. */
template <int K, class P>
__device__ __forceinline__ void total_partials(double (&total)[K], const P *partial, int slices,
                                               int64_t columns)
{
    constexpr int warps = column_threads / 32, groups = column_threads / total_columns;
    CTK_SHARED(double, shared, K *warps *total_columns);
    const int x = (int)threadIdx.x % total_columns, y = (int)threadIdx.x / total_columns;
    const int64_t column = (int64_t)blockIdx.x * total_columns + x;
#pragma unroll
    for (int k = 0; k < K; k++) total[k] = 0;
    if (column < columns) {
#pragma unroll 4
        for (int slice = y; slice < slices; slice += groups) {
#pragma unroll
            for (int k = 0; k < K; k++)
                total[k] += (double)partial[((int64_t)slice * K + k) * columns + column];
        }
    }
#pragma unroll
    for (int k = 0; k < K; k++) {
#pragma unroll
        for (int distance = total_columns; distance < 32; distance *= 2)
            total[k] += __shfl_xor_sync(0xffffffffu, total[k], distance);
        if (threadIdx.x % 32 < total_columns)
            shared[(k * warps + (int)threadIdx.x / 32) * total_columns + x] = total[k];
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < K; k++) {
        total[k] = 0;
        for (int w = 0; w < warps; w++) total[k] += shared[(k * warps + w) * total_columns + x];
    }
}

} // namespace ctk

#endif
