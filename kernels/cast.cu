/* y = x in another number format (op.h: ct_cast_args), and copies in the same one.
 *
 * Bytes: each number read once and written once; bound by memory. Stochastic rounding adds one
 * Philox block (10 rounds, about 70 instructions) per four numbers, hidden by the same time.
 *
 * Plan: a grid-stride loop of threads that take 8 numbers, so that 16-bit formats move 16 bytes an
 * access and f32 twice 16; what is left after the last 8 goes to the first threads, one number
 * each.
 *
 * Source: stochastic rounding, Gupta et al. 2015; generator, Salmon et al. 2011. */
#include "stochastic.cuh"

#include "kernels.h"

namespace ctk
{

constexpr int cast_threads = 256, cast_width = 8;

/* step is read only when stochastic. */
template <class To, class From, bool stochastic>
__global__ void __launch_bounds__(cast_threads)
    cast_kernel(To *y, const From *x, int64_t count, ct_rng_key key, const int32_t *step)
{
    if constexpr (stochastic) key = ct_rng_at_step(key, *step);
    const int64_t thread = (int64_t)blockIdx.x * cast_threads + threadIdx.x;
    const int64_t threads = (int64_t)gridDim.x * cast_threads, groups = count / cast_width;
    for (int64_t group = thread; group < groups; group += threads) {
        float from[cast_width];
        load<cast_width>(from, x + group * cast_width);
        vec<To, cast_width> to;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float quad[4];
            To rounded[4];
#pragma unroll
            for (int u = 0; u < 4; u++) quad[u] = from[4 * half + u];
            round_quad<To, stochastic>(rounded, quad, key, 2 * group + half);
#pragma unroll
            for (int u = 0; u < 4; u++) to.v[4 * half + u] = rounded[u];
        }
        *reinterpret_cast<vec<To, cast_width> *>(y + group * cast_width) = to;
    }
    const int64_t i = groups * cast_width + thread;
    if (i < count) {
        if constexpr (stochastic)
            y[i] = round_stochastically(to_float(x[i]), ct_rng_u32(key, (uint64_t)i));
        else y[i] = from_float<To>(to_float(x[i]));
    }
}

template <class To, class From, bool stochastic>
static cudaError_t launch_cast(const ct_cast_args *args, const ctk_launch *l)
{
    const int64_t count = ct_tensor_count(&args->y);
    const int64_t needed = ceil_div(ceil_div(count, cast_width), cast_threads);
    const int64_t spread =
        (int64_t)l->sm_count * 16; /* 8 blocks run on a multiprocessor at a time */
    return launch(cast_kernel<To, From, stochastic>,
                  dim3((unsigned)(needed < spread ? needed : spread)), dim3(cast_threads), 0,
                  l->stream, (To *)args->y.data, (const From *)args->x.data, count, args->key,
                  (const int32_t *)args->step.data);
}

} // namespace ctk

extern "C" cudaError_t ctk_cast(const ct_cast_args *args, const ctk_launch *l)
{
    if (args->stochastic) {
        if (args->x.dtype != CT_F32 || args->y.dtype != CT_BF16) return cudaErrorInvalidValue;
        return ctk::launch_cast<__nv_bfloat16, float, true>(args, l);
    }
    return ctk::with_type(args->y.dtype, [&](auto to) {
        return ctk::with_type(args->x.dtype, [&](auto from) {
            return ctk::launch_cast<decltype(to), decltype(from), false>(args, l);
        });
    });
}
