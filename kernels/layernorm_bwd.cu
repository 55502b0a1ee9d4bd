/* Backward of layer normalisation (Ba, Kiros & Hinton 2016). With g = gamma dy and
 * xhat = (x - mean) rstd, for each row
 *   dx = rstd (g - mean(g) - xhat mean(g xhat)) + dskip,
 * and over all rows dgamma += sum(dy xhat), dbeta += sum(dy).
 *
 * Shapes  dy, x, dskip, dx (T, D) in the compute dtype; gamma, dgamma, dbeta (D), mean, rstd (T)
 *         f32.
 * Bytes   3 T D sizeof(T), with dskip 4, each tensor once up to D = 8192, beyond it x and dy twice;
 *         partials of 8 D bytes a block stay in the second-level cache. Bound by memory.
 * Plan    layernorm.cuh. A fixed number of blocks walks over the rows; a thread holds its part of
 *         the row as it came, and its columns' share of dgamma and dbeta in f32. Blocks leave
 *         partials (slices, 2, D), which a second launch adds in a fixed order, in f64. dx may be
 *         dy or dskip: a thread reads its numbers of a row before it writes them.
 * Limit   D not a multiple of the vector width goes element by element. */
#include "columns.cuh"
#include "kernels.h"
#include "layernorm.cuh"

namespace
{

using namespace ctk;

constexpr int warp_threads = 128, warp_rows = warp_threads / 32;

/* What a multiprocessor holds at once, where a thread holds `capacity` numbers of a row: blocks of
 * warps' rows, with up to 72, 128 or 168 registers a thread; threads of blocks' rows. */
template <int capacity> constexpr int warp_residency = capacity <= 8 ? 7 : capacity <= 16 ? 4 : 3;
template <int capacity> constexpr int block_residency = capacity <= 8 ? 768 : 512;

/* What every kernel reads and writes. dx may be dy or dskip. */
template <class T> struct gradients {
    T *dx;
    float *partial; /* (slices, 2, width): of dgamma, of dbeta */
    const T *dy, *dskip, *x;
    const float *gamma, *mean, *rstd;
    int64_t rows, width;
    float share; /* 1/width */
};

/* This thread's part of one row: x and dy as they are in memory. */
template <class T, int VEC, int ITEMS> struct row_part {
    vec<T, VEC> x[ITEMS], dy[ITEMS];
    int lane, threads, width;

    __device__ __forceinline__ int at(int i) const { return (lane + i * threads) * VEC; }

    __device__ __forceinline__ void read(const T *from_x, const T *from_dy)
    {
#pragma unroll
        for (int i = 0; i < ITEMS; i++) {
            if (at(i) >= width) continue;
            x[i] = *reinterpret_cast<const vec<T, VEC> *>(from_x + at(i));
            dy[i] = *reinterpret_cast<const vec<T, VEC> *>(from_dy + at(i));
        }
    }

    /* Adds to dgamma and dbeta; *g and *g_xhat = sums of this thread's g and g xhat. */
    __device__ __forceinline__ void sums(float (&dgamma)[ITEMS][VEC], float (&dbeta)[ITEMS][VEC],
                                         float *g, float *g_xhat, const float *gamma, float mean,
                                         float rstd) const
    {
        *g = *g_xhat = 0;
#pragma unroll
        for (int i = 0; i < ITEMS; i++) {
            if (at(i) >= width) continue;
            float weight[VEC];
            load(weight, gamma + at(i));
#pragma unroll
            for (int c = 0; c < VEC; c++) {
                const float d = to_float(dy[i].v[c]), xhat = (to_float(x[i].v[c]) - mean) * rstd;
                *g += weight[c] * d;
                *g_xhat += weight[c] * d * xhat;
                dgamma[i][c] += d * xhat;
                dbeta[i][c] += d;
            }
        }
    }

    __device__ __forceinline__ void write(T *dx, const T *dskip, const float *gamma, float mean,
                                          float rstd, float mean_g, float mean_g_xhat) const
    {
#pragma unroll
        for (int i = 0; i < ITEMS; i++) {
            if (at(i) >= width) continue;
            float weight[VEC], out[VEC] = {};
            if (dskip) load(out, dskip + at(i));
            load(weight, gamma + at(i));
#pragma unroll
            for (int c = 0; c < VEC; c++) {
                const float xhat = (to_float(x[i].v[c]) - mean) * rstd;
                out[c] += rstd * (weight[c] * to_float(dy[i].v[c]) - mean_g - xhat * mean_g_xhat);
            }
            store(dx + at(i), out);
        }
    }
};

/* A warp for each row. The block's warps add their shares of dgamma and dbeta in shared memory, in
 * order. */
template <class T, int VEC, int ITEMS>
__global__ void __launch_bounds__(warp_threads, warp_residency<ITEMS * VEC>)
    layernorm_backward_warp(gradients<T> p)
{
    CTK_SHARED(float, shared, 2 * 32 * ITEMS * VEC);
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, width = (int)p.width;
    float dgamma[ITEMS][VEC] = {}, dbeta[ITEMS][VEC] = {};
    row_part<T, VEC, ITEMS> part;
    part.lane = lane;
    part.threads = 32;
    part.width = width;
    const int64_t step = (int64_t)gridDim.x * warp_rows;
    for (int64_t row = (int64_t)blockIdx.x * warp_rows + warp; row < p.rows; row += step) {
        const int64_t start = row * width;
        part.read(p.x + start, p.dy + start);
        const float mean = p.mean[row], rstd = p.rstd[row];
        float g, g_xhat;
        part.sums(dgamma, dbeta, &g, &g_xhat, p.gamma, mean, rstd);
        g = warp_sum(g) * p.share;
        g_xhat = warp_sum(g_xhat) * p.share;
        part.write(p.dx + start, p.dskip ? p.dskip + start : nullptr, p.gamma, mean, rstd, g,
                   g_xhat);
    }
    for (int turn = 0; turn < warp_rows; turn++) {
        if (turn == warp) {
#pragma unroll
            for (int i = 0; i < ITEMS; i++) {
                if (part.at(i) >= width) continue;
#pragma unroll
                for (int c = 0; c < VEC; c++) {
                    float *to = shared + part.at(i) + c;
                    to[0] = turn ? to[0] + dgamma[i][c] : dgamma[i][c];
                    to[width] = turn ? to[width] + dbeta[i][c] : dbeta[i][c];
                }
            }
        }
        __syncthreads();
    }
    float *partial = p.partial + (int64_t)blockIdx.x * 2 * width;
    for (int j = (int)threadIdx.x; j < 2 * width; j += warp_threads) partial[j] = shared[j];
}

/* Every thread gets both sums over the block; one barrier, so `buffer` must turn from one call to
 * the next: a thread may still read one half of `shared` while others write the other. */
__device__ __forceinline__ void block_sums(float *a, float *b, float *shared, int buffer)
{
    constexpr int warps = layernorm_block / 32;
    float *part = shared + buffer * 2 * warps;
    *a = warp_sum(*a);
    *b = warp_sum(*b);
    if (threadIdx.x % 32 == 0) {
        part[threadIdx.x / 32] = *a;
        part[warps + threadIdx.x / 32] = *b;
    }
    __syncthreads();
    *a = *b = 0;
    for (int w = 0; w < (int)blockDim.x / 32; w++) {
        *a += part[w];
        *b += part[warps + w];
    }
}

/* A block for each row. */
template <class T, int VEC, int ITEMS>
__global__ void __launch_bounds__(layernorm_block, 1) layernorm_backward_block(gradients<T> p)
{
    CTK_SHARED(float, shared, 4 * layernorm_block / 32);
    const int width = (int)p.width;
    float dgamma[ITEMS][VEC] = {}, dbeta[ITEMS][VEC] = {};
    row_part<T, VEC, ITEMS> part;
    part.lane = (int)threadIdx.x;
    part.threads = (int)blockDim.x;
    part.width = width;
    int buffer = 0;
    for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x, buffer ^= 1) {
        const int64_t start = row * width;
        part.read(p.x + start, p.dy + start);
        const float mean = p.mean[row], rstd = p.rstd[row];
        float g, g_xhat;
        part.sums(dgamma, dbeta, &g, &g_xhat, p.gamma, mean, rstd);
        block_sums(&g, &g_xhat, shared, buffer);
        part.write(p.dx + start, p.dskip ? p.dskip + start : nullptr, p.gamma, mean, rstd,
                   g * p.share, g_xhat * p.share);
    }
    float *partial = p.partial + (int64_t)blockIdx.x * 2 * width;
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        if (part.at(i) >= width) continue;
        store(partial + part.at(i), dgamma[i]);
        store(partial + width + part.at(i), dbeta[i]);
    }
}

/* Rows of any width; a thread's share of dgamma and dbeta is summed in the partials themselves. */
template <class T>
__global__ void __launch_bounds__(layernorm_block) layernorm_backward_wide(gradients<T> p)
{
    CTK_SHARED(float, shared, 4 * layernorm_block / 32);
    float *dgamma = p.partial + (int64_t)blockIdx.x * 2 * p.width, *dbeta = dgamma + p.width;
    for (int64_t at = threadIdx.x; at < p.width; at += layernorm_block) dgamma[at] = dbeta[at] = 0;
    int buffer = 0;
    for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x, buffer ^= 1) {
        const int64_t start = row * p.width;
        const float mean = p.mean[row], rstd = p.rstd[row];
        float g = 0, g_xhat = 0;
        for (int64_t at = threadIdx.x; at < p.width; at += layernorm_block) {
            const float d = to_float(p.dy[start + at]);
            const float xhat = (to_float(p.x[start + at]) - mean) * rstd;
            g += p.gamma[at] * d;
            g_xhat += p.gamma[at] * d * xhat;
            dgamma[at] += d * xhat;
            dbeta[at] += d;
        }
        block_sums(&g, &g_xhat, shared, buffer);
        g *= p.share;
        g_xhat *= p.share;
        for (int64_t at = threadIdx.x; at < p.width; at += layernorm_block) {
            const float xhat = (to_float(p.x[start + at]) - mean) * rstd;
            float out = rstd * (p.gamma[at] * to_float(p.dy[start + at]) - g - xhat * g_xhat);
            if (p.dskip) out += to_float(p.dskip[start + at]);
            p.dx[start + at] = from_float<T>(out);
        }
    }
}

__global__ void __launch_bounds__(column_threads)
    layernorm_parameter_gradients(float *dgamma, float *dbeta, const float *partial, int slices,
                                  int64_t width)
{
    double total[2];
    total_partials(total, partial, slices, width);
    const int64_t column = (int64_t)blockIdx.x * total_columns + threadIdx.x;
    if (threadIdx.x >= total_columns || column >= width) return;
    dgamma[column] += (float)total[0];
    dbeta[column] += (float)total[1];
}

/* Threads and number of blocks: as many as live at once on every multiprocessor. */
struct block_plan {
    layernorm_path path;
    int threads, slices;
};

template <class T> block_plan plan_of(int64_t rows, int64_t width, int sm_count)
{
    block_plan plan = {layernorm_path_of<T>(width), layernorm_block, 0};
    int64_t wanted = 2 * (int64_t)sm_count, most = rows;
    if (plan.path == layernorm_path::warp) {
        (void)with_warp_row<T>(width, [&](auto, auto capacity) {
            wanted = warp_residency<decltype(capacity)::value> * (int64_t)sm_count;
            return cudaSuccess;
        });
        plan.threads = warp_threads;
        most = ceil_div(rows, warp_rows);
    } else if (plan.path == layernorm_path::block) {
        (void)with_block_row<T>(width, [&](auto, auto capacity) {
            constexpr int N = decltype(capacity)::value;
            plan.threads = block_row_threads(width, N);
            wanted = block_residency<N> / plan.threads * (int64_t)sm_count;
            return cudaSuccess;
        });
    }
    plan.slices = (int)(most < wanted ? most : wanted);
    return plan;
}

template <class T>
cudaError_t launch_rows(const gradients<T> &p, const block_plan &plan, cudaStream_t stream)
{
    const dim3 grid((unsigned)plan.slices), block((unsigned)plan.threads);
    if (plan.path == layernorm_path::wide)
        return ctk::launch(layernorm_backward_wide<T>, grid, block, 0, stream, p);
    if (plan.path == layernorm_path::block)
        return with_block_row<T>(p.width, [&](auto vec, auto capacity) {
            constexpr int VEC = decltype(vec)::value, N = decltype(capacity)::value;
            return ctk::launch(layernorm_backward_block<T, VEC, N / VEC>, grid, block, 0, stream,
                               p);
        });
    return with_warp_row<T>(p.width, [&](auto vec, auto capacity) {
        constexpr int VEC = decltype(vec)::value, N = decltype(capacity)::value;
        return ctk::launch(layernorm_backward_warp<T, VEC, N / VEC>, grid, block, 0, stream, p);
    });
}

} // namespace

extern "C" size_t ctk_layernorm_bwd_workspace(const ct_layernorm_bwd_args *args, int sm_count)
{
    size_t bytes = 0;
    (void)with_type(args->x.dtype, [&](auto type) {
        const int64_t width = args->x.dim[1];
        const block_plan plan = plan_of<decltype(type)>(args->x.dim[0], width, sm_count);
        bytes = 2 * (size_t)plan.slices * (size_t)width * sizeof(float);
        return cudaSuccess;
    });
    return bytes;
}

extern "C" cudaError_t ctk_layernorm_bwd(const ct_layernorm_bwd_args *args,
                                         const ctk_launch *launch)
{
    const int64_t rows = args->x.dim[0], width = args->x.dim[1];
    if (rows == 0) return cudaSuccess;
    return with_type(args->x.dtype, [&](auto type) {
        using T = decltype(type);
        const bool skip = ct_tensor_present(&args->dskip);
        const gradients<T> p = {(T *)args->dx.data,
                                (float *)launch->workspace,
                                (const T *)args->dy.data,
                                skip ? (const T *)args->dskip.data : nullptr,
                                (const T *)args->x.data,
                                ct_f32(&args->gamma),
                                ct_f32(&args->mean),
                                ct_f32(&args->rstd),
                                rows,
                                width,
                                1.0f / (float)width};
        const block_plan plan = plan_of<T>(rows, width, launch->sm_count);
        cudaError_t error = launch_rows(p, plan, launch->stream);
        if (error != cudaSuccess) return error;
        return ctk::launch(layernorm_parameter_gradients, total_grid(width), dim3(column_threads),
                           0, launch->stream, ct_f32(&args->dgamma), ct_f32(&args->dbeta),
                           (const float *)p.partial, plan.slices, width);
    });
}
