/* Batch normalisation fused with the residual's addition and the ReLU. Bound by memory: forward
 * reads x twice (statistics, then result), backward reads dy and x twice.
 *
 * Sums over the rows (N H W of them, of C channels each) are taken by one worker per contiguous
 * share of the rows: eight rows in f32, pairwise, then in f64. For the statistics the numbers are
 * taken relative to the first row ("shifted data", Chan, Golub & LeVeque, The American Statistician
 * 37, 1983), so that a mean that is large next to the deviation costs no digits. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "cpu/internal.h"

/* Rows summed in f32. */
#define ROWS 8

/* Both passes keep two f64 sums a channel and worker: (workers, 2, C). */
static size_t sums_bytes(const ct_cpu_device *cpu, int64_t channels)
{
    return (size_t)cpu->threads * 2 * (size_t)channels * sizeof(double);
}

/* a[c] and b[c] = the totals over workers, in worker order. */
static void total_sums(const double *sums, int workers, int64_t channels, int64_t c, double *a,
                       double *b)
{
    *a = *b = 0;
    for (int worker = 0; worker < workers; worker++) {
        *a += sums[(2 * worker) * channels + c];
        *b += sums[(2 * worker + 1) * channels + c];
    }
}

/* ---- forward ------------------------------------------------------------------------------- */

/* sum += sum of x - shift, square += sum of (x - shift)^2, for `rows` <= ROWS rows. Inlined with a
 * constant `rows` the inner loop unrolls into registers. */
static inline void add_moments(double *restrict sum, double *restrict square,
                               const float *restrict x, const float *restrict shift,
                               int64_t channels, int rows)
{
#pragma omp simd
    for (int64_t c = 0; c < channels; c++) {
        float s = 0, q = 0;
        for (int i = 0; i < rows; i++) {
            float v = x[i * channels + c] - shift[c];
            s += v;
            q += v * v;
        }
        sum[c] += (double)s;
        square[c] += (double)q;
    }
}

static void add_moment_rows(const float *x, const float *shift, int64_t row, int64_t end,
                            int64_t channels, double *sums)
{
    memset(sums, 0, 2 * (size_t)channels * sizeof *sums);
    for (; row + ROWS <= end; row += ROWS)
        add_moments(sums, sums + channels, x + row * channels, shift, channels, ROWS);
    for (; row < end; row++)
        add_moments(sums, sums + channels, x + row * channels, shift, channels, 1);
}

/* Fills `sums` for channel_moments. */
static void sum_moments(const ct_cpu_device *cpu, const float *x, int64_t rows, int64_t channels,
                        double *sums)
{
    const int workers = cpu->threads;
#pragma omp parallel for schedule(static, 1) num_threads(cpu->threads)
    for (int worker = 0; worker < workers; worker++) {
        int64_t begin, end;
        ct_cpu_share(rows, workers, worker, &begin, &end);
        add_moment_rows(x, x, begin, end, channels, sums + 2 * worker * channels);
    }
}

typedef struct moments {
    double mean, variance; /* biased */
} moments;

static moments channel_moments(const ct_cpu_device *cpu, const float *x, int64_t rows,
                               int64_t channels, const double *sums, int64_t c)
{
    double sum, square;
    total_sums(sums, cpu->threads, channels, c, &sum, &square);
    const double offset = sum / (double)rows;
    const double variance = square / (double)rows - offset * offset;
    return (moments){.mean = (double)x[c] + offset, .variance = variance < 0 ? 0 : variance};
}

/* Where the statistics of a batch of `count` rows go. */
typedef struct statistics_target {
    float *mean, *rstd, *running_mean, *running_var;
    int64_t count;
    double eps, momentum;
} statistics_target;

static void set_statistics(const statistics_target *to, int64_t c, moments m)
{
    const double count = (double)to->count, unbias = to->count > 1 ? count / (count - 1) : 1.0;
    float *running_mean = to->running_mean + c, *running_var = to->running_var + c;
    to->mean[c] = (float)m.mean;
    to->rstd[c] = (float)(1.0 / sqrt(m.variance + to->eps));
    *running_mean = (float)((1 - to->momentum) * (double)*running_mean + to->momentum * m.mean);
    *running_var =
        (float)((1 - to->momentum) * (double)*running_var + to->momentum * m.variance * unbias);
}

static void batch_statistics(const ct_cpu_device *cpu, const ct_batchnorm_fwd_args *args,
                             int64_t rows, int64_t channels, double *sums)
{
    const float *x = ct_f32(&args->x);
    const statistics_target to = {.mean = ct_f32(&args->mean),
                                  .rstd = ct_f32(&args->rstd),
                                  .running_mean = ct_f32(&args->running_mean),
                                  .running_var = ct_f32(&args->running_var),
                                  .count = rows,
                                  .eps = (double)args->eps,
                                  .momentum = (double)args->momentum};
    sum_moments(cpu, x, rows, channels, sums);
    for (int64_t c = 0; c < channels; c++)
        set_statistics(&to, c, channel_moments(cpu, x, rows, channels, sums, c));
}

ct_status ct_cpu_batchnorm_moments(ct_device *device, const ct_batchnorm_moments_args *args)
{
    ct_cpu_device *cpu = ct_cpu(device);
    const int64_t channels = args->x.dim[3], rows = ct_tensor_count(&args->x) / channels;
    double *sums;
    CT_TRY(ct_cpu_workspace(cpu, sums_bytes(cpu, channels), &sums));
    if (cpu->preparing) return CT_OK;
    const float *x = ct_f32(&args->x);
    float *means = ct_f32(&args->moments), *variances = means + channels;
    sum_moments(cpu, x, rows, channels, sums);
    for (int64_t c = 0; c < channels; c++) {
        const moments m = channel_moments(cpu, x, rows, channels, sums, c);
        means[c] = (float)m.mean;
        variances[c] = (float)m.variance;
    }
    return CT_OK;
}

ct_status ct_cpu_batchnorm_merge(ct_device *device, const ct_batchnorm_merge_args *args)
{
    (void)device;
    const int64_t ranks = args->moments.dim[0], channels = args->moments.dim[2];
    const float *parts = ct_f32(&args->moments);
    const statistics_target to = {.mean = ct_f32(&args->mean),
                                  .rstd = ct_f32(&args->rstd),
                                  .running_mean = ct_f32(&args->running_mean),
                                  .running_var = ct_f32(&args->running_var),
                                  .count = args->count,
                                  .eps = (double)args->eps,
                                  .momentum = (double)args->momentum};
    for (int64_t c = 0; c < channels; c++) {
        moments m = {0, 0};
        for (int64_t r = 0; r < ranks; r++)
            m.mean += (double)parts[2 * r * channels + c] / (double)ranks;
        for (int64_t r = 0; r < ranks; r++) {
            const double apart = (double)parts[2 * r * channels + c] - m.mean;
            m.variance +=
                ((double)parts[(2 * r + 1) * channels + c] + apart * apart) / (double)ranks;
        }
        set_statistics(&to, c, m);
    }
    return CT_OK;
}

/* Per channel: y = scale (x - mean) + beta. */
typedef struct affine {
    const float *mean, *scale, *beta;
} affine;

static inline void normalize_row(float *restrict y, const float *restrict x, const float *residual,
                                 const affine *p, int64_t channels, bool relu)
{
    const float *restrict mean = p->mean, *restrict scale = p->scale, *restrict beta = p->beta;
#pragma omp simd
    for (int64_t c = 0; c < channels; c++) {
        float v = scale[c] * (x[c] - mean[c]) + beta[c];
        if (residual) v += residual[c];
        y[c] = relu && v < 0.0f ? 0.0f : v;
    }
}

/* Chooses the specialised loop once a row. */
static void normalize(float *y, const float *x, const float *residual, const affine *p,
                      int64_t channels, bool relu)
{
    if (residual && relu) normalize_row(y, x, residual, p, channels, true);
    else if (residual) normalize_row(y, x, residual, p, channels, false);
    else if (relu) normalize_row(y, x, NULL, p, channels, true);
    else normalize_row(y, x, NULL, p, channels, false);
}

ct_status ct_cpu_batchnorm_fwd(ct_device *device, const ct_batchnorm_fwd_args *args)
{
    ct_cpu_device *cpu = ct_cpu(device);
    const int64_t channels = args->x.dim[3], rows = ct_tensor_count(&args->x) / channels;
    const bool batch = args->statistics == CT_BATCHNORM_BATCH;
    const bool running = args->statistics == CT_BATCHNORM_RUNNING;
    const size_t scale_bytes = ct_cpu_aligned((size_t)channels * sizeof(float));
    char *workspace;
    CT_TRY(
        ct_cpu_workspace(cpu, scale_bytes + (batch ? sums_bytes(cpu, channels) : 0), &workspace));
    if (cpu->preparing) return CT_OK;
    float *scale = (float *)workspace;
    if (batch) batch_statistics(cpu, args, rows, channels, (double *)(workspace + scale_bytes));
    const float *gamma = ct_f32(&args->gamma);
    for (int64_t c = 0; c < channels; c++)
        scale[c] = running ? gamma[c] / sqrtf(ct_f32(&args->running_var)[c] + args->eps)
                           : gamma[c] * ct_f32(&args->rstd)[c];
    const affine p = {.mean = ct_f32(running ? &args->running_mean : &args->mean),
                      .scale = scale,
                      .beta = ct_f32(&args->beta)};
    const float *x = ct_f32(&args->x);
    const float *residual = ct_tensor_present(&args->residual) ? ct_f32(&args->residual) : NULL;
    float *y = ct_f32(&args->y);
#pragma omp parallel for schedule(static) num_threads(cpu->threads)
    for (int64_t row = 0; row < rows; row++) {
        const int64_t at = row * channels;
        normalize(y + at, x + at, residual ? residual + at : NULL, &p, channels, args->relu);
    }
    return CT_OK;
}

/* ---- backward ------------------------------------------------------------------------------ */

/* What both passes read: g = dy where y > 0 (or everywhere, when y is NULL). dresidual, where not
 * NULL, is where the pass leaves g. */
typedef struct backward {
    const float *dy, *x, *y, *mean, *rstd;
    float *dresidual;
    int64_t channels;
} backward;

/* sum += sum of g, product += sum of g (x - mean), for `rows` rows from element `at` on. */
static inline void add_gradients(double *restrict sum, double *restrict product, const backward *b,
                                 int64_t at, int rows, bool relu, bool keep)
{
    const int64_t channels = b->channels;
    const float *dy = b->dy + at, *restrict x = b->x + at, *restrict y = relu ? b->y + at : NULL;
    const float *restrict mean = b->mean;
    float *g_out = keep ? b->dresidual + at : NULL; /* may be dy */
#pragma omp simd
    for (int64_t c = 0; c < channels; c++) {
        float s = 0, q = 0;
        for (int i = 0; i < rows; i++) {
            int64_t j = i * channels + c;
            float g = dy[j];
            if (relu) g = y[j] > 0.0f ? g : 0.0f;
            if (keep) g_out[j] = g;
            s += g;
            q += g * (x[j] - mean[c]);
        }
        sum[c] += (double)s;
        product[c] += (double)q;
    }
}

/* As `normalize`: one specialised loop for each use. */
static void add_gradient_rows(double *sum, double *product, const backward *b, int64_t at, int rows)
{
    const bool relu = b->y != NULL, keep = b->dresidual != NULL;
#define VARIANT(count)                                                                             \
    do {                                                                                           \
        if (relu && keep) add_gradients(sum, product, b, at, count, true, true);                   \
        else if (relu) add_gradients(sum, product, b, at, count, true, false);                     \
        else if (keep) add_gradients(sum, product, b, at, count, false, true);                     \
        else add_gradients(sum, product, b, at, count, false, false);                              \
    } while (0)
    if (rows == ROWS) VARIANT(ROWS);
    else VARIANT(1);
#undef VARIANT
}

/* sum_g, sum_g_xhat (C) = the sums of g and of g xhat over all rows, which are added to dbeta and
 * dgamma. */
static void gradient_sums(const ct_cpu_device *cpu, const backward *b, int64_t rows, double *sums,
                          float *sum_g, float *sum_g_xhat, float *dbeta, float *dgamma)
{
    const int64_t channels = b->channels;
    const int workers = cpu->threads;
#pragma omp parallel for schedule(static, 1) num_threads(cpu->threads)
    for (int worker = 0; worker < workers; worker++) {
        double *sum = sums + 2 * worker * channels, *product = sum + channels;
        memset(sum, 0, 2 * (size_t)channels * sizeof *sum);
        int64_t row, end;
        ct_cpu_share(rows, workers, worker, &row, &end);
        for (; row + ROWS <= end; row += ROWS)
            add_gradient_rows(sum, product, b, row * channels, ROWS);
        for (; row < end; row++) add_gradient_rows(sum, product, b, row * channels, 1);
    }
    for (int64_t c = 0; c < channels; c++) {
        double sum, product;
        total_sums(sums, workers, channels, c, &sum, &product);
        sum_g[c] = (float)sum;
        sum_g_xhat[c] = (float)(product * (double)b->rstd[c]);
        dbeta[c] += sum_g[c];
        dgamma[c] += sum_g_xhat[c];
    }
}

ct_status ct_cpu_batchnorm_bwd_sums(ct_device *device, const ct_batchnorm_bwd_sums_args *args)
{
    ct_cpu_device *cpu = ct_cpu(device);
    const int64_t channels = args->x.dim[3], rows = ct_tensor_count(&args->x) / channels;
    double *sums;
    CT_TRY(ct_cpu_workspace(cpu, sums_bytes(cpu, channels), &sums));
    if (cpu->preparing) return CT_OK;
    const backward b = {.dy = ct_f32(&args->dy),
                        .x = ct_f32(&args->x),
                        .y = args->relu ? ct_f32(&args->y) : NULL,
                        .mean = ct_f32(&args->mean),
                        .rstd = ct_f32(&args->rstd),
                        .channels = channels};
    gradient_sums(cpu, &b, rows, sums, ct_f32(&args->sums), ct_f32(&args->sums) + channels,
                  ct_f32(&args->dbeta), ct_f32(&args->dgamma));
    return CT_OK;
}

/* Per channel: dx = scale (g - mean_g - (x - mean) slope). */
typedef struct slopes {
    float *scale, *mean_g, *slope;
} slopes;

/* dx may be dy; else dresidual may be dy. */
static inline void gradient_row(float *dx, const backward *b, const slopes *s, int64_t at,
                                bool relu, bool keep)
{
    const int64_t channels = b->channels;
    const float *dy = b->dy + at, *restrict x = b->x + at, *restrict y = relu ? b->y + at : NULL;
    const float *restrict mean = b->mean, *restrict scale = s->scale;
    const float *restrict mean_g = s->mean_g, *restrict slope = s->slope;
    float *g_out = keep ? b->dresidual + at : NULL;
#pragma omp simd
    for (int64_t c = 0; c < channels; c++) {
        float g = dy[c];
        if (relu) g = y[c] > 0.0f ? g : 0.0f;
        if (keep) g_out[c] = g;
        dx[at + c] = scale[c] * (g - mean_g[c] - (x[c] - mean[c]) * slope[c]);
    }
}

/* The second pass, a specialised loop for each use as in `add_gradient_rows`. */
static void input_gradient(const ct_cpu_device *cpu, float *dx, const backward *b, const slopes *s,
                           int64_t rows)
{
    const bool relu = b->y != NULL, keep = b->dresidual != NULL;
#pragma omp parallel for schedule(static) num_threads(cpu->threads)
    for (int64_t row = 0; row < rows; row++) {
        const int64_t at = row * b->channels;
        if (relu && keep) gradient_row(dx, b, s, at, true, true);
        else if (relu) gradient_row(dx, b, s, at, true, false);
        else if (keep) gradient_row(dx, b, s, at, false, true);
        else gradient_row(dx, b, s, at, false, false);
    }
}

ct_status ct_cpu_batchnorm_bwd(ct_device *device, const ct_batchnorm_bwd_args *args)
{
    ct_cpu_device *cpu = ct_cpu(device);
    const int64_t channels = args->x.dim[3], rows = ct_tensor_count(&args->x) / channels;
    const bool given = ct_tensor_present(&args->sums), keep = ct_tensor_present(&args->dresidual);
    const size_t vector_bytes = ct_cpu_aligned((size_t)channels * sizeof(float));
    const size_t bytes = 3 * vector_bytes + (given ? 0 : sums_bytes(cpu, channels));
    char *workspace;
    CT_TRY(ct_cpu_workspace(cpu, bytes, &workspace));
    if (cpu->preparing) return CT_OK;
    const slopes s = {.scale = (float *)workspace,
                      .mean_g = (float *)(workspace + vector_bytes),
                      .slope = (float *)(workspace + 2 * vector_bytes)};
    backward b = {.dy = ct_f32(&args->dy),
                  .x = ct_f32(&args->x),
                  .y = args->relu ? ct_f32(&args->y) : NULL,
                  .mean = ct_f32(&args->mean),
                  .rstd = ct_f32(&args->rstd),
                  .dresidual = keep ? ct_f32(&args->dresidual) : NULL,
                  .channels = channels};
    assert(!keep || b.dresidual != ct_f32(&args->dx));
    const float *sum_g = s.mean_g, *sum_g_xhat = s.slope;
    if (given) {
        sum_g = ct_f32(&args->sums);
        sum_g_xhat = sum_g + channels;
    } else {
        gradient_sums(cpu, &b, rows, (double *)(workspace + 3 * vector_bytes), s.mean_g, s.slope,
                      ct_f32(&args->dbeta), ct_f32(&args->dgamma));
        if (keep) { /* where the first pass has left g */
            b.dy = b.dresidual;
            b.y = b.dresidual = NULL;
        }
    }
    const double count = (double)(given ? args->count : rows);
    for (int64_t c = 0; c < channels; c++) {
        s.scale[c] = ct_f32(&args->gamma)[c] * b.rstd[c];
        s.mean_g[c] = (float)((double)sum_g[c] / count);
        s.slope[c] = (float)((double)sum_g_xhat[c] * (double)b.rstd[c] / count);
    }
    input_gradient(cpu, ct_f32(&args->dx), &b, &s, rows);
    return CT_OK;
}
