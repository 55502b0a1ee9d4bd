#include "cpu/loss_pairs.h"

#include <math.h>

size_t ct_loss_block_bytes(const ct_loss_pairs *p)
{
    const int64_t rows = ct_loss_least(p->rows, CT_LOSS_ROWS);
    const int64_t columns = ct_loss_least(p->count, CT_LOSS_COLUMNS);
    return ct_cpu_aligned((size_t)(rows * columns) * sizeof(float));
}

ct_status ct_loss_block_compute(const ct_loss_pairs *p, int64_t row, int64_t column,
                                ct_loss_block *out)
{
    *out = (ct_loss_block){.row = row,
                           .rows = ct_loss_least(p->rows - row, CT_LOSS_ROWS),
                           .column = column,
                           .columns = ct_loss_least(p->count - column, CT_LOSS_COLUMNS),
                           .z = p->z};
    return ct_cpu_gemm(p->cpu, &(ct_gemm){.c = p->z,
                                          .a = p->a + (p->first + row) * p->width,
                                          .b = p->b + column * p->width,
                                          .m = out->rows,
                                          .n = out->columns,
                                          .k = p->width,
                                          .lda = p->width,
                                          .ldb = p->width,
                                          .ldc = out->columns,
                                          .transpose_b = true,
                                          .alpha = p->scale});
}

float *ct_loss_block_row(const ct_loss_pairs *p, const ct_loss_block *block, int64_t i)
{
    float *z = block->z + i * block->columns;
    if (p->same_image != CT_SAME_IMAGE_MASK) return z;
    const int32_t *ids = p->photo_ids + block->column;
    const int64_t diagonal = p->first + block->row + i - block->column;
    const int32_t own_id = ids[diagonal];
    const bool inside = diagonal >= 0 && diagonal < block->columns;
    const float own = inside ? z[diagonal] : 0.0f;
#pragma omp simd
    for (int64_t j = 0; j < block->columns; j++) z[j] = ids[j] == own_id ? -INFINITY : z[j];
    if (inside) z[diagonal] = own;
    return z;
}

ct_status ct_loss_block_products(const ct_loss_pairs *p, const ct_loss_block *block, float *da,
                                 float *db)
{
    CT_TRY(ct_cpu_gemm(p->cpu, &(ct_gemm){.c = da + block->row * p->width,
                                          .a = block->z,
                                          .b = p->b + block->column * p->width,
                                          .m = block->rows,
                                          .n = p->width,
                                          .k = block->columns,
                                          .lda = block->columns,
                                          .ldb = p->width,
                                          .ldc = p->width,
                                          .alpha = p->grad_scale,
                                          .beta = block->column ? 1.0f : 0.0f}));
    if (!db) return CT_OK;
    return ct_cpu_gemm(p->cpu, &(ct_gemm){.c = db + block->column * p->width,
                                          .a = block->z,
                                          .b = p->a + (p->first + block->row) * p->width,
                                          .m = block->columns,
                                          .n = p->width,
                                          .k = block->rows,
                                          .lda = block->columns,
                                          .ldb = p->width,
                                          .ldc = p->width,
                                          .transpose_a = true,
                                          .alpha = p->grad_scale,
                                          .beta = block->row ? 1.0f : 0.0f});
}

ct_status ct_loss_both_sides(const ct_loss_pairs *p, ct_loss_side *body, void *context,
                             float *dimage, float *dtext)
{
    if (p->rows == p->count) return body(p, context, false, dimage, dtext);
    ct_loss_pairs swapped = *p;
    swapped.a = p->b;
    swapped.b = p->a;
    CT_TRY(body(p, context, false, dimage, NULL));
    return body(&swapped, context, true, dtext, NULL);
}

void ct_loss_count_same(const ct_loss_pairs *p, int32_t *same)
{
    const int32_t *ids = p->photo_ids;
#pragma omp parallel for schedule(static) num_threads(p->cpu->threads)
    for (int64_t j = 0; j < p->count; j++) {
        const int32_t id = ids[j];
        int32_t sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t k = 0; k < p->count; k++) sum += ids[k] == id;
        same[j] = sum;
    }
}

float ct_loss_scale_gradient(const ct_loss_pairs *p, const float *da, float *row_sums)
{
#pragma omp parallel for schedule(static) num_threads(p->cpu->threads)
    for (int64_t i = 0; i < p->rows; i++) {
        const float *d = da + i * p->width, *x = p->a + (p->first + i) * p->width;
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t k = 0; k < p->width; k++) sum += d[k] * x[k];
        row_sums[i] = sum;
    }
    double total = 0.0;
    for (int64_t i = 0; i < p->rows; i++) total += (double)row_sums[i];
    return (float)total;
}
