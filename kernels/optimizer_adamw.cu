/* AdamW over all parameters at once (op.h: ct_adamw_args).
 *
 *   g = stats[1] grad;  lr = schedule[0] lr_scale
 *   m = m + (1 - beta1)(g - m);  v = beta2 v + (1 - beta2) g^2
 *   x = (1 - lr weight_decay) value - lr schedule[1] m/(sqrt(v) schedule[2] + eps)
 *   value = min(x, max_value);  weight = value, rounded
 *
 * Bytes: a number reads 16 (value, grad, m, v) and writes 12, and 2 for a 16-bit weight; bound by
 * memory. About 60 instructions a number, 20 more for stochastic rounding, stay well below that.
 *
 * Plan: as many segments a launch as its parameters hold; one block a chunk of 16384 numbers, a
 * thread four numbers at a time: 64 bytes read before anything is computed, 768 threads or more a
 * multiprocessor. Segments that are not 16-byte-aligned go number by number. What all numbers of a
 * segment share is worked out in f64 and rounded once, as PyTorch does with Python's floats. When
 * stats[2] is set, every block ends at once: the device decides which steps are left out.
 *
 * Source: Loshchilov & Hutter 2019; arithmetic of torch.optim.AdamW. */
#include "kernels.h"
#include "segments.cuh"
#include "stochastic.cuh"

namespace ctk
{

constexpr int adamw_threads = 256, adamw_segments = 48;

struct adamw_segment {
    float *value, *exp_avg, *exp_avg_sq;
    const float *grad;
    void *weight; /* NULL: none */
    ct_rng_key key;
    int64_t count;
    float lr_scale, weight_decay, max_value;
    int32_t first_chunk;
};

struct adamw_table {
    adamw_segment segment[adamw_segments];
    const float *stats, *schedule;
    const int32_t *step;
    float weight1, beta2, weight2, eps; /* 1 - beta1, beta2, 1 - beta2 */
    int32_t segments;
};
static_assert(sizeof(adamw_table) <= 4096, "a kernel's parameters hold 4 KiB");

/* What all numbers of a segment share. */
struct adamw_factors {
    float clip, decay, rate, correction, weight1, beta2, weight2, eps, max_value;
};

__device__ __forceinline__ adamw_factors factors_of(const adamw_table &table,
                                                    const adamw_segment &s)
{
    const double lr = (double)table.schedule[0] * (double)s.lr_scale;
    adamw_factors f;
    f.clip = table.stats[1];
    f.decay = (float)(1.0 - lr * (double)s.weight_decay);
    f.rate = (float)(lr * (double)table.schedule[1]);
    f.correction = table.schedule[2];
    f.weight1 = table.weight1;
    f.beta2 = table.beta2;
    f.weight2 = table.weight2;
    f.eps = table.eps;
    f.max_value = s.max_value;
    return f;
}

__device__ __forceinline__ void update(const adamw_factors &f, float grad, float &value, float &m,
                                       float &v)
{
    const float g = f.clip * grad;
    m += f.weight1 * (g - m);
    v = f.beta2 * v + f.weight2 * g * g;
    const float x = value * f.decay - f.rate * m / (sqrtf(v) * f.correction + f.eps);
    value = x > f.max_value ? f.max_value : x;
}

/* Number i of the segment. */
template <class W, bool stochastic>
__device__ __forceinline__ void update_one(const adamw_segment &s, const adamw_factors &f,
                                           ct_rng_key key, int64_t i)
{
    float value = s.value[i], m = s.exp_avg[i], v = s.exp_avg_sq[i];
    update(f, s.grad[i], value, m, v);
    s.value[i] = value;
    s.exp_avg[i] = m;
    s.exp_avg_sq[i] = v;
    if (!s.weight) return;
    W *weight = static_cast<W *>(s.weight) + i;
    if constexpr (stochastic) *weight = round_stochastically(value, ct_rng_u32(key, (uint64_t)i));
    else *weight = from_float<W>(value);
}

/* Numbers i to i + 3, i a multiple of 4. */
template <class W, bool stochastic>
__device__ __forceinline__ void update_quad(const adamw_segment &s, const adamw_factors &f,
                                            ct_rng_key key, int64_t i)
{
    float value[4], m[4], v[4], grad[4];
    load<4>(value, s.value + i);
    load<4>(grad, s.grad + i);
    load<4>(m, s.exp_avg + i);
    load<4>(v, s.exp_avg_sq + i);
#pragma unroll
    for (int u = 0; u < 4; u++) update(f, grad[u], value[u], m[u], v[u]);
    store<4>(s.value + i, value);
    store<4>(s.exp_avg + i, m);
    store<4>(s.exp_avg_sq + i, v);
    if (!s.weight) return;
    vec<W, 4> weight;
    round_quad<W, stochastic>(weight.v, value, key, i / 4);
    *reinterpret_cast<vec<W, 4> *>(static_cast<W *>(s.weight) + i) = weight;
}

template <class W, bool stochastic>
__global__ void __launch_bounds__(adamw_threads, 3) adamw_kernel(adamw_table table)
{
    if (table.stats[2] != 0.0f) return;
    const int chunk = (int)blockIdx.x;
    const adamw_segment s = table.segment[find_segment(
        chunk, table.segments, [&](int k) { return table.segment[k].first_chunk; })];
    const int64_t begin = (int64_t)(chunk - s.first_chunk) * chunk_elements;
    const int64_t end = begin + chunk_elements < s.count ? begin + chunk_elements : s.count;
    const adamw_factors f = factors_of(table, s);
    ct_rng_key key = s.key;
    if constexpr (stochastic) key = ct_rng_at_step(key, *table.step);

    int64_t i = begin + threadIdx.x; /* the first number that is not part of a quad */
    if (is_aligned(s.value, 16) && is_aligned(s.grad, 16) && is_aligned(s.exp_avg, 16) &&
        is_aligned(s.exp_avg_sq, 16) && is_aligned(s.weight, 4 * (int)sizeof(W))) {
        for (int64_t quad = begin + 4 * threadIdx.x; quad + 4 <= end; quad += 4 * adamw_threads)
            update_quad<W, stochastic>(s, f, key, quad);
        i += (end - begin) / 4 * 4;
    }
    for (; i < end; i += adamw_threads) update_one<W, stochastic>(s, f, key, i);
}

template <class W, bool stochastic>
static cudaError_t launch_table(adamw_table *table, int64_t *chunks, const ctk_launch *l)
{
    const cudaError_t error = launch(adamw_kernel<W, stochastic>, dim3((unsigned)*chunks),
                                     dim3(adamw_threads), 0, l->stream, *table);
    table->segments = 0;
    *chunks = 0;
    return error;
}

template <class W, bool stochastic>
static cudaError_t launch_all(const ct_adamw_args *args, const ctk_launch *l)
{
    adamw_table table = {};
    table.stats = (const float *)args->stats.data;
    table.schedule = (const float *)args->schedule.data;
    table.step = (const int32_t *)args->step.data;
    table.weight1 = (float)(1.0 - args->beta1);
    table.beta2 = (float)args->beta2;
    table.weight2 = (float)(1.0 - args->beta2);
    table.eps = (float)args->eps;
    int64_t chunks = 0;
    for (int k = 0; k < args->segment_count; k++) {
        const ct_optimizer_segment *s = &args->segments[k];
        const int64_t count = ct_tensor_count(&s->value), more = chunk_count(count);
        if (more == 0) continue;
        if (table.segments == adamw_segments || chunks + more > INT32_MAX) {
            cudaError_t error = launch_table<W, stochastic>(&table, &chunks, l);
            if (error != cudaSuccess) return error;
        }
        table.segment[table.segments++] = {(float *)s->value.data,
                                           (float *)s->exp_avg.data,
                                           (float *)s->exp_avg_sq.data,
                                           (const float *)s->grad.data,
                                           s->weight.data,
                                           s->key,
                                           count,
                                           s->lr_scale,
                                           s->weight_decay,
                                           s->max_value,
                                           (int32_t)chunks};
        chunks += more;
    }
    return launch_table<W, stochastic>(&table, &chunks, l);
}

} // namespace ctk

extern "C" size_t ctk_adamw_workspace(const ct_adamw_args *args, int sm_count)
{
    (void)args, (void)sm_count;
    return 0;
}

extern "C" cudaError_t ctk_adamw(const ct_adamw_args *args, const ctk_launch *l)
{
    ct_dtype dtype = CT_F32; /* of the weights: alike in all segments that have one */
    bool found = false;
    for (int k = 0; k < args->segment_count; k++) {
        const ct_tensor *weight = &args->segments[k].weight;
        if (!ct_tensor_present(weight)) continue;
        if (found && weight->dtype != dtype) return cudaErrorInvalidValue;
        dtype = weight->dtype;
        found = true;
    }
    if (args->stochastic_rounding && found) {
        if (dtype != CT_BF16) return cudaErrorInvalidValue;
        return ctk::launch_all<__nv_bfloat16, true>(args, l);
    }
    return ctk::with_type(
        dtype, [&](auto weight) { return ctk::launch_all<decltype(weight), false>(args, l); });
}
