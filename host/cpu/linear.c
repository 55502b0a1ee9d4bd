/* Linear layers: one matrix product, then one pass that adds the bias and applies the activation;
 * and the sums over rows that gradients of biases are. */
#include <assert.h>
#include <omp.h>
#include <string.h>

#include "cpu/activation.h"
#include "cpu/internal.h"

size_t ct_cpu_column_sums_bytes(const ct_cpu_device *cpu, int64_t cols)
{
    return (size_t)cpu->threads * (size_t)cols * sizeof(double);
}

/* Eight rows are summed pairwise in f32, as these few cannot lose much, and then in f64. */
#define SUM_ROWS 8

static void add_rows(double *restrict sum, const float *restrict x, int64_t cols)
{
#pragma omp simd
    for (int64_t c = 0; c < cols; c++) {
        float a = x[c] + x[c + cols], b = x[c + 2 * cols] + x[c + 3 * cols];
        float d = x[c + 4 * cols] + x[c + 5 * cols], e = x[c + 6 * cols] + x[c + 7 * cols];
        sum[c] += (double)((a + b) + (d + e));
    }
}

static void add_row(double *restrict sum, const float *restrict x, int64_t cols)
{
#pragma omp simd
    for (int64_t c = 0; c < cols; c++) sum[c] += (double)x[c];
}

void ct_cpu_column_sums(const ct_cpu_device *cpu, float *sum, const float *x, int64_t rows,
                        int64_t cols, void *scratch)
{
    const int workers = cpu->threads;
    double *partial = scratch; /* (workers, cols) */
    /* A loop over workers, not a block for each thread: fewer threads may come than asked for. */
#pragma omp parallel for schedule(static, 1) num_threads(cpu->threads)
    for (int worker = 0; worker < workers; worker++) {
        double *mine = partial + worker * cols;
        memset(mine, 0, (size_t)cols * sizeof *mine);
        int64_t row, end;
        ct_cpu_share(rows, workers, worker, &row, &end);
        for (; row + SUM_ROWS <= end; row += SUM_ROWS) add_rows(mine, x + row * cols, cols);
        for (; row < end; row++) add_row(mine, x + row * cols, cols);
    }
    for (int64_t c = 0; c < cols; c++) {
        double total = 0;
        for (int worker = 0; worker < workers; worker++) total += partial[worker * cols + c];
        sum[c] += (float)total;
    }
}

static void add_bias(float *restrict y, const float *restrict bias, int64_t count)
{
#pragma omp simd
    for (int64_t i = 0; i < count; i++) y[i] += bias[i];
}

ct_status ct_cpu_linear_fwd(ct_device *device, const ct_linear_fwd_args *args)
{
    ct_cpu_device *cpu = ct_cpu(device);
    const int64_t m = args->x.dim[0], k = args->x.dim[1], n = args->w.dim[0];
    assert(args->w.dim[1] == k && args->y.dim[0] == m && args->y.dim[1] == n);
    float *y = ct_f32(&args->y);
    float *product = ct_tensor_present(&args->preact) ? ct_f32(&args->preact) : y;
    CT_TRY(ct_cpu_gemm(cpu, &(ct_gemm){.c = product,
                                       .a = ct_f32(&args->x),
                                       .b = ct_f32(&args->w),
                                       .m = m,
                                       .n = n,
                                       .k = k,
                                       .lda = k,
                                       .ldb = k,
                                       .ldc = n,
                                       .transpose_b = true,
                                       .alpha = 1.0f}));
    const bool has_bias = ct_tensor_present(&args->bias);
    if (!has_bias && args->act == CT_ACT_NONE) return CT_OK;
    const float *bias = ct_f32(&args->bias);
#pragma omp parallel for schedule(static) num_threads(cpu->threads)
    for (int64_t row = 0; row < m; row++) {
        if (has_bias) add_bias(product + row * n, bias, n);
        ct_cpu_activate(y + row * n, product + row * n, n, args->act);
    }
    return CT_OK;
}

/* dx = dy w and dw += dy^T x. */
static ct_status linear_products(ct_cpu_device *cpu, const ct_linear_bwd_args *args)
{
    const int64_t m = args->x.dim[0], k = args->x.dim[1], n = args->w.dim[0];
    if (ct_tensor_present(&args->dx))
        CT_TRY(ct_cpu_gemm(cpu, &(ct_gemm){.c = ct_f32(&args->dx),
                                           .a = ct_f32(&args->dy),
                                           .b = ct_f32(&args->w),
                                           .m = m,
                                           .n = k,
                                           .k = n,
                                           .lda = n,
                                           .ldb = k,
                                           .ldc = k,
                                           .alpha = 1.0f,
                                           .beta = args->accumulate ? 1.0f : 0.0f}));
    return ct_cpu_gemm(cpu, &(ct_gemm){.c = ct_f32(&args->dw),
                                       .a = ct_f32(&args->dy),
                                       .b = ct_f32(&args->x),
                                       .m = n,
                                       .n = k,
                                       .k = m,
                                       .lda = n,
                                       .ldb = k,
                                       .ldc = k,
                                       .transpose_a = true,
                                       .alpha = 1.0f,
                                       .beta = 1.0f});
}

ct_status ct_cpu_linear_bwd(ct_device *device, const ct_linear_bwd_args *args)
{
    ct_cpu_device *cpu = ct_cpu(device);
    const int64_t m = args->x.dim[0], n = args->w.dim[0];
    void *scratch;
    CT_TRY(ct_cpu_workspace(cpu, ct_cpu_column_sums_bytes(cpu, n), &scratch));
    if (cpu->preparing) return CT_OK;
    CT_TRY(linear_products(cpu, args));
    if (args->act != CT_ACT_NONE && ct_tensor_present(&args->dx))
        CT_TRY(ct_cpu_activation_bwd(
            device, &(ct_activation_bwd_args){
                        .dx = args->dx, .dy = args->dx, .x = args->preact, .act = args->act}));
    if (ct_tensor_present(&args->dbias))
        ct_cpu_column_sums(cpu, ct_f32(&args->dbias), ct_f32(&args->dy), m, n, scratch);
    return CT_OK;
}
