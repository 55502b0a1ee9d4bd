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

static void moments(const float *x, const float *shift, int64_t row, int64_t end, int64_t channels,
                    double *sums)
{
    memset(sums, 0, 2 * (size_t)channels * sizeof *sums);
    for (; row + ROWS <= end; row += ROWS)
        add_moments(sums, sums + channels, x + row * channels, shift, channels, ROWS);
    for (; row < end; row++)
        add_moments(sums, sums + channels, x + row * channels, shift, channels, 1);
}

/* Writes mean and rstd and moves the running statistics. */
static void batch_statistics(const ct_cpu_device *cpu, const ct_batchnorm_fwd_args *args,
                             int64_t rows, int64_t channels, double *sums)
{
    const float *x = ct_f32(&args->x);
    const int workers = cpu->threads;
#pragma omp parallel for schedule(static, 1) num_threads(cpu->threads)
    for (int worker = 0; worker < workers; worker++) {
        int64_t begin, end;
        ct_cpu_share(rows, workers, worker, &begin, &end);
        moments(x, x, begin, end, channels, sums + 2 * worker * channels);
    }
    const double momentum = (double)args->momentum, unbias = rows > 1 ? rows / (rows - 1.0) : 1.0;
    for (int64_t c = 0; c < channels; c++) {
        double sum, square;
        total_sums(sums, workers, channels, c, &sum, &square);
        double offset = sum / (double)rows, mean = (double)x[c] + offset;
        double variance = square / (double)rows - offset * offset;
        if (variance < 0) variance = 0;
        ct_f32(&args->mean)[c] = (float)mean;
        ct_f32(&args->rstd)[c] = (float)(1.0 / sqrt(variance + (double)args->eps));
        float *running_mean = ct_f32(&args->running_mean) + c;
        float *running_var = ct_f32(&args->running_var) + c;
        *running_mean = (float)((1 - momentum) * (double)*running_mean + momentum * mean);
        *running_var =
            (float)((1 - momentum) * (double)*running_var + momentum * variance * unbias);
    }
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
    const size_t scale_bytes = ct_cpu_aligned((size_t)channels * sizeof(float));
    char *workspace;
    CT_TRY(ct_cpu_workspace(cpu, scale_bytes + sums_bytes(cpu, channels), &workspace));
    if (cpu->preparing) return CT_OK;
    float *scale = (float *)workspace;
    if (args->training)
        batch_statistics(cpu, args, rows, channels, (double *)(workspace + scale_bytes));
    const float *gamma = ct_f32(&args->gamma);
    for (int64_t c = 0; c < channels; c++)
        scale[c] = args->training ? gamma[c] * ct_f32(&args->rstd)[c]
                                  : gamma[c] / sqrtf(ct_f32(&args->running_var)[c] + args->eps);
    const affine p = {.mean = ct_f32(args->training ? &args->mean : &args->running_mean),
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

/* What both passes read: g = dy where y > 0 (or everywhere, when y is NULL). Where dresidual is
 * wanted the first pass leaves g there, and the second reads that instead of dy and y. */
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

/* Adds to dgamma and dbeta, and writes what the second pass needs:
 * dx = scale (g - mean_g - (x - mean) slope). */
static void gradient_sums(const ct_cpu_device *cpu, const ct_batchnorm_bwd_args *args,
                          const backward *b, int64_t rows, double *sums, float *scale,
                          float *mean_g, float *slope)
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
        double sum, product, rstd = (double)b->rstd[c];
        total_sums(sums, workers, channels, c, &sum, &product);
        ct_f32(&args->dbeta)[c] += (float)sum;
        ct_f32(&args->dgamma)[c] += (float)(product * rstd);
        scale[c] = ct_f32(&args->gamma)[c] * b->rstd[c];
        mean_g[c] = (float)(sum / (double)rows);
        slope[c] = (float)(product * rstd * rstd / (double)rows);
    }
}

/* g may be dx. */
static inline void gradient_row(float *dx, const float *g, const float *restrict x,
                                const float *restrict y, const float *restrict mean,
                                const float *restrict scale, const float *restrict mean_g,
                                const float *restrict slope, int64_t channels, bool relu)
{
#pragma omp simd
    for (int64_t c = 0; c < channels; c++) {
        float v = g[c];
        if (relu) v = y[c] > 0.0f ? v : 0.0f;
        dx[c] = scale[c] * (v - mean_g[c] - (x[c] - mean[c]) * slope[c]);
    }
}

ct_status ct_cpu_batchnorm_bwd(ct_device *device, const ct_batchnorm_bwd_args *args)
{
    ct_cpu_device *cpu = ct_cpu(device);
    const int64_t channels = args->x.dim[3], rows = ct_tensor_count(&args->x) / channels;
    const size_t vector_bytes = ct_cpu_aligned((size_t)channels * sizeof(float));
    char *workspace;
    CT_TRY(ct_cpu_workspace(cpu, 3 * vector_bytes + sums_bytes(cpu, channels), &workspace));
    if (cpu->preparing) return CT_OK;
    float *scale = (float *)workspace, *mean_g = (float *)(workspace + vector_bytes);
    float *slope = (float *)(workspace + 2 * vector_bytes);
    double *sums = (double *)(workspace + 3 * vector_bytes);
    const bool keep = ct_tensor_present(&args->dresidual);
    const backward b = {.dy = ct_f32(&args->dy),
                        .x = ct_f32(&args->x),
                        .y = args->relu ? ct_f32(&args->y) : NULL,
                        .mean = ct_f32(&args->mean),
                        .rstd = ct_f32(&args->rstd),
                        .dresidual = keep ? ct_f32(&args->dresidual) : NULL,
                        .channels = channels};
    assert(!keep || b.dresidual != ct_f32(&args->dx));
    gradient_sums(cpu, args, &b, rows, sums, scale, mean_g, slope);

    float *dx = ct_f32(&args->dx);
    const float *g = keep ? b.dresidual : b.dy;
    const bool mask = b.y && !keep;
#pragma omp parallel for schedule(static) num_threads(cpu->threads)
    for (int64_t row = 0; row < rows; row++) {
        const int64_t at = row * channels;
        if (mask)
            gradient_row(dx + at, g + at, b.x + at, b.y + at, b.mean, scale, mean_g, slope,
                         channels, true);
        else
            gradient_row(dx + at, g + at, b.x + at, NULL, b.mean, scale, mean_g, slope, channels,
                         false);
    }
    return CT_OK;
}
