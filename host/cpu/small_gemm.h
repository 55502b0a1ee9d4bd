/* Products of small matrices inside one thread, where calling a library costs as much as the
 * product: blocks of 8 rows by 2 vectors are summed in registers. */
#ifndef CT_CPU_SMALL_GEMM_H
#define CT_CPU_SMALL_GEMM_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __AVX512F__
enum { CT_LANES = 16 };
#else
enum { CT_LANES = 8 };
#endif

typedef float ct_lanes __attribute__((vector_size(sizeof(float) * CT_LANES), may_alias));

/* Widths are padded to this many floats: whole vectors, whole cache lines. */
enum { CT_PAD = 16 };

static inline int64_t ct_padded(int64_t count)
{
    return (count + CT_PAD - 1) / CT_PAD * CT_PAD;
}

/* c (m, n) = a b, or += with `accumulate`, for a (m, k), b (k, n). Element (i, l) of a is
 * a[i * a_row + l * a_column], so a transposed one serves as well. n, ldb and ldc are multiples of
 * CT_PAD; b and c are CT_ALIGNMENT-aligned. */
typedef struct ct_small_gemm {
    float *c;
    const float *a, *b;
    int64_t m, n, k, a_row, a_column, ldb, ldc;
    bool accumulate;
} ct_small_gemm;

/* rows <= 8 by vectors <= 2, both constants where it is inlined. */
static inline __attribute__((always_inline)) void
ct_small_gemm_tile(const ct_small_gemm *g, int64_t row, int64_t column, int rows, int vectors)
{
    ct_lanes sum[8][2];
    float *c = g->c + row * g->ldc + column;
    const float *a = g->a + row * g->a_row, *b = g->b + column;
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++)
            sum[i][v] =
                g->accumulate ? *(ct_lanes *)(c + i * g->ldc + v * CT_LANES) : (ct_lanes){0};
    for (int64_t l = 0; l < g->k; l++, a += g->a_column, b += g->ldb)
        for (int v = 0; v < vectors; v++) {
            ct_lanes x = *(const ct_lanes *)(b + v * CT_LANES);
            for (int i = 0; i < rows; i++) sum[i][v] += a[i * g->a_row] * x;
        }
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++) *(ct_lanes *)(c + i * g->ldc + v * CT_LANES) = sum[i][v];
}

static inline __attribute__((always_inline)) void ct_small_gemm_rows(const ct_small_gemm *g,
                                                                     int64_t row, int rows)
{
    int64_t column = 0;
    for (; column + 2 * CT_LANES <= g->n; column += 2 * CT_LANES)
        ct_small_gemm_tile(g, row, column, rows, 2);
    if (column < g->n) ct_small_gemm_tile(g, row, column, rows, 1);
}

static inline void ct_small_gemm_run(const ct_small_gemm *g)
{
    int64_t row = 0;
    for (; row + 8 <= g->m; row += 8) ct_small_gemm_rows(g, row, 8);
    for (; row + 4 <= g->m; row += 4) ct_small_gemm_rows(g, row, 4);
    for (; row + 2 <= g->m; row += 2) ct_small_gemm_rows(g, row, 2);
    if (row < g->m) ct_small_gemm_rows(g, row, 1);
}

#endif
