/* The global gradient norm and AdamW over all parameters at once.
 *
 * Segments (parameter tensors) are cut into blocks of BLOCK elements, numbered through all
 * segments, and one parallel region goes over the blocks: a bias of 64 elements costs no region of
 * its own. Block bounds do not depend on the number of threads, and neither does the norm. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "cpu/internal.h"

enum { BLOCK = 16384 };

#define LARGEST_SCALE 0x1p24f

static int64_t block_count(const ct_optimizer_segment *segment)
{
    return (ct_tensor_count(&segment->value) + BLOCK - 1) / BLOCK;
}

static int64_t total_blocks(const ct_optimizer_segment *segments, int count)
{
    int64_t total = 0;
    for (int s = 0; s < count; s++) total += block_count(&segments[s]);
    return total;
}

/* What is done to elements [begin, end) of a segment; `block` is the number of the block. */
typedef void (*block_function)(const void *context, const ct_optimizer_segment *segment,
                               int64_t block, int64_t begin, int64_t end);

static void for_each_block(const ct_cpu_device *cpu, const ct_optimizer_segment *segments,
                           int segment_count, block_function function, const void *context)
{
    int64_t total = total_blocks(segments, segment_count);
#pragma omp parallel num_threads(cpu->threads)
    {
        int64_t first, last, base = 0;
        ct_cpu_share(total, omp_get_num_threads(), omp_get_thread_num(), &first, &last);
        for (int s = 0; s < segment_count; s++) {
            int64_t blocks = block_count(&segments[s]), count = ct_tensor_count(&segments[s].value);
            int64_t from = first > base ? first - base : 0;
            int64_t to = last - base < blocks ? last - base : blocks;
            for (int64_t b = from; b < to; b++) {
                int64_t end = (b + 1) * BLOCK < count ? (b + 1) * BLOCK : count;
                function(context, &segments[s], base + b, b * BLOCK, end);
            }
            base += blocks;
        }
    }
}

typedef struct norm_sums {
    double *partial; /* (total_blocks) */
} norm_sums;

static void sum_squares(const void *context, const ct_optimizer_segment *segment, int64_t block,
                        int64_t begin, int64_t end)
{
    const norm_sums *sums = context;
    const float *grad = ct_f32(&segment->grad);
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = begin; i < end; i++) sum += (double)grad[i] * (double)grad[i];
    sums->partial[block] = sum;
}

/* scale[0], the loss scale, and scale[1], the finite steps since it last changed, after a step. */
static void adapt_scale(float *scale, bool finite, int growth_interval)
{
    if (!finite) {
        scale[0] *= 0.5f;
        scale[1] = 0.0f;
        return;
    }
    scale[1] += 1.0f;
    if (scale[1] < (float)growth_interval) return;
    scale[0] = scale[0] < 0.5f * LARGEST_SCALE ? 2.0f * scale[0] : LARGEST_SCALE;
    scale[1] = 0.0f;
}

ct_status ct_cpu_grad_norm(ct_device *device, const ct_grad_norm_args *args)
{
    ct_cpu_device *cpu = ct_cpu(device);
    int64_t blocks = total_blocks(args->segments, args->segment_count);
    norm_sums sums;
    CT_TRY(ct_cpu_workspace(cpu, (size_t)blocks * sizeof(double), &sums.partial));
    if (cpu->preparing) return CT_OK;

    for_each_block(cpu, args->segments, args->segment_count, sum_squares, &sums);
    double sum = 0.0;
    for (int64_t b = 0; b < blocks; b++) sum += sums.partial[b];
    ct_f32(&args->norm)[0] = (float)sqrt(sum);
    return CT_OK;
}

ct_status ct_cpu_grad_stats(ct_device *device, const ct_grad_stats_args *args)
{
    (void)device;
    const float *norms = ct_f32(&args->norms);
    double sum = 0.0;
    for (int64_t r = 0; r < ct_tensor_count(&args->norms); r++)
        sum += (double)norms[r] * (double)norms[r];

    const bool scaled = ct_tensor_present(&args->loss_scale);
    const float scale = scaled ? ct_f32(&args->loss_scale)[0] : 1.0f;
    float norm = (float)(sqrt(sum) / (double)scale), *stats = ct_f32(&args->stats);
    float clip = args->max_norm > 0.0f ? args->max_norm / (norm + 1e-6f) : 1.0f;
    stats[0] = norm;
    stats[1] = (clip < 1.0f ? clip : 1.0f) / scale;
    stats[2] = isfinite(norm) ? 0.0f : 1.0f;
    if (scaled) adapt_scale(ct_f32(&args->loss_scale), isfinite(norm), args->growth_interval);
    return CT_OK;
}

/* The factors are worked out in f64 and rounded once, as PyTorch does with Python's floats. The
 * weight in the compute dtype, where there is one, is a second copy in f32. */
static void adamw_block(const void *context, const ct_optimizer_segment *segment, int64_t block,
                        int64_t begin, int64_t end)
{
    (void)block;
    const ct_adamw_args *a = context;
    const float *schedule = ct_f32(&a->schedule);
    const double lr = (double)schedule[0] * (double)segment->lr_scale;
    const float clip = ct_f32(&a->stats)[1];
    const float decay = (float)(1.0 - lr * (double)segment->weight_decay);
    const float weight1 = (float)(1.0 - a->beta1), weight2 = (float)(1.0 - a->beta2);
    const float beta2 = (float)a->beta2, eps = (float)a->eps;
    const float rate = (float)(lr * (double)schedule[1]), correction = schedule[2];
    const float limit = segment->max_value;
    float *value = ct_f32(&segment->value);
    float *exp_avg = ct_f32(&segment->exp_avg), *exp_avg_sq = ct_f32(&segment->exp_avg_sq);
    const float *grad = ct_f32(&segment->grad);
#pragma omp simd
    for (int64_t i = begin; i < end; i++) {
        float g = clip * grad[i];
        float m = exp_avg[i] + weight1 * (g - exp_avg[i]);
        float v = beta2 * exp_avg_sq[i] + weight2 * g * g;
        float x = value[i] * decay - rate * m / (sqrtf(v) * correction + eps);
        exp_avg[i] = m;
        exp_avg_sq[i] = v;
        value[i] = x > limit ? limit : x;
    }
    if (ct_tensor_present(&segment->weight))
        memcpy(ct_f32(&segment->weight) + begin, value + begin,
               (size_t)(end - begin) * sizeof *value);
}

ct_status ct_cpu_adamw(ct_device *device, const ct_adamw_args *args)
{
    if (ct_f32(&args->stats)[2] != 0.0f) return CT_OK;
    for_each_block(ct_cpu(device), args->segments, args->segment_count, adamw_block, args);
    return CT_OK;
}
