/* The symmetric contrastive loss, a tile of TILE rows of the similarities at a time.
 *
 * One product per tile serves both directions: rows are complete in it, columns keep a running
 * maximum and a running sum relative to it (Milakov & Gimelshein 2018) from tile to tile, so the
 * columns' result depends neither on threads nor on timing. Backward recomputes the tiles. Memory:
 * TILE N + O(N) floats beside the embeddings, never N x N.
 */
#include <float.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "cpu/internal.h"
#include "cpu/vector_math.h"

enum {
    TILE = 128, /* rows of the similarities at a time */
    STRIP = 64  /* columns whose maxima are on the stack at a time */
};

typedef struct problem {
    ct_cpu_device *cpu;
    const float *image, *text;
    const int32_t *photo_ids;
    int64_t count, width;
    ct_same_image same_image;
    float scale;      /* exp(logit_scale) */
    float grad_scale; /* the same, times the loss scale: what gradients are multiplied with */
    float *tile;      /* (TILE, count) */
} problem;

/* Both directions' arguments name these things alike. */
#define PROBLEM_OF(device, args)                                                                   \
    {                                                                                              \
        .cpu = ct_cpu(device), .image = ct_f32(&(args)->image), .text = ct_f32(&(args)->text),     \
        .photo_ids = ct_i32(&(args)->photo_ids), .count = (args)->image.dim[0],                    \
        .width = (args)->image.dim[1], .same_image = (args)->same_image                            \
    }

static int64_t tile_rows(const problem *p, int64_t first)
{
    return p->count - first < TILE ? p->count - first : TILE;
}

static size_t tile_bytes(const problem *p)
{
    return ct_cpu_aligned((size_t)(tile_rows(p, 0) * p->count) * sizeof(float));
}

/* tile (rows, count) = scale image[first ..] text^T */
static ct_status similarities(const problem *p, int64_t first)
{
    return ct_cpu_gemm(p->cpu, &(ct_gemm){.c = p->tile,
                                          .a = p->image + first * p->width,
                                          .b = p->text,
                                          .m = tile_rows(p, first),
                                          .n = p->count,
                                          .k = p->width,
                                          .lda = p->width,
                                          .ldb = p->width,
                                          .ldc = p->count,
                                          .transpose_b = true,
                                          .alpha = p->scale});
}

/* Takes the other captions of row i's photo out of both softmaxes. */
static void mask_row(const problem *p, float *z, int64_t i)
{
    const int32_t *ids = p->photo_ids;
    int32_t own_id = ids[i];
    float own = z[i];
#pragma omp simd
    for (int64_t j = 0; j < p->count; j++) z[j] = ids[j] == own_id ? -INFINITY : z[j];
    z[i] = own;
}

/* ---- forward ------------------------------------------------------------------------------ */

static float row_log_sum_exp(const float *z, int64_t count)
{
    float highest = -FLT_MAX, sum = 0.0f;
#pragma omp simd reduction(max : highest)
    for (int64_t j = 0; j < count; j++) highest = z[j] > highest ? z[j] : highest;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < count; j++) sum += ct_expf(z[j] - highest);
    return highest + logf(sum);
}

/* What the target distribution gives of row i: its own similarity, or the mean over its photo. As
 * photo ids agree both ways, the sum over all rows is also the sum over all columns. */
static float row_target(const problem *p, const float *z, int64_t i)
{
    if (p->same_image != CT_SAME_IMAGE_SHARE) return z[i];
    const int32_t *ids = p->photo_ids;
    int32_t own_id = ids[i], same = 0;
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum, same)
    for (int64_t j = 0; j < p->count; j++) {
        sum += ids[j] == own_id ? z[j] : 0.0f;
        same += ids[j] == own_id;
    }
    return sum / (float)same;
}

/* Running maxima and sums of columns [begin, end), end - begin <= STRIP, taken on by `rows` rows. A
 * maximum starts at -FLT_MAX rather than -infinity, for a column may be masked in a whole tile. */
static void extend_columns(const problem *p, int64_t rows, int64_t begin, int64_t end, float *max,
                           float *sum)
{
    float highest[STRIP];
    int64_t width = end - begin;
    memcpy(highest, max + begin, (size_t)width * sizeof(float));
    for (int64_t i = 0; i < rows; i++) {
        const float *z = p->tile + i * p->count + begin;
#pragma omp simd
        for (int64_t j = 0; j < width; j++) highest[j] = z[j] > highest[j] ? z[j] : highest[j];
    }
#pragma omp simd
    for (int64_t j = 0; j < width; j++) {
        sum[begin + j] *= ct_expf(max[begin + j] - highest[j]);
        max[begin + j] = highest[j];
    }
    for (int64_t i = 0; i < rows; i++) {
        const float *z = p->tile + i * p->count + begin;
#pragma omp simd
        for (int64_t j = 0; j < width; j++) sum[begin + j] += ct_expf(z[j] - highest[j]);
    }
}

static void forward_tile(const problem *p, int64_t first, float *row_lse, float *target,
                         float *column_max, float *column_sum)
{
    int64_t rows = tile_rows(p, first);
#pragma omp parallel num_threads(p->cpu->threads)
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows; i++) {
            float *z = p->tile + i * p->count;
            if (p->same_image == CT_SAME_IMAGE_MASK) mask_row(p, z, first + i);
            row_lse[first + i] = row_log_sum_exp(z, p->count);
            target[first + i] = row_target(p, z, first + i);
        }
#pragma omp for schedule(static)
        for (int64_t begin = 0; begin < p->count; begin += STRIP) {
            int64_t end = begin + STRIP < p->count ? begin + STRIP : p->count;
            extend_columns(p, rows, begin, end, column_max, column_sum);
        }
    }
}

/* col_lse holds the running sums until the end. */
ct_status ct_cpu_clip_loss_fwd(ct_device *device, const ct_clip_loss_fwd_args *args)
{
    problem p = PROBLEM_OF(device, args);
    CT_TRY(
        ct_cpu_workspace(p.cpu, tile_bytes(&p) + (size_t)(2 * p.count) * sizeof(float), &p.tile));
    if (p.cpu->preparing) return CT_OK;

    float *column_max = p.tile + tile_bytes(&p) / sizeof(float), *target = column_max + p.count;
    float *row_lse = ct_f32(&args->row_lse), *col_lse = ct_f32(&args->col_lse);
    for (int64_t j = 0; j < p.count; j++) column_max[j] = -FLT_MAX;
    memset(col_lse, 0, (size_t)p.count * sizeof(float));
    p.scale = expf(ct_f32(&args->logit_scale)[0]);
    for (int64_t first = 0; first < p.count; first += TILE) {
        CT_TRY(similarities(&p, first));
        forward_tile(&p, first, row_lse, target, column_max, col_lse);
    }
    double sum = 0.0;
    for (int64_t i = 0; i < p.count; i++) {
        col_lse[i] = column_max[i] + logf(col_lse[i]);
        sum += (double)row_lse[i] + (double)col_lse[i] - 2.0 * (double)target[i];
    }
    ct_f32(&args->loss)[0] = (float)(sum / (2.0 * (double)p.count));
    return CT_OK;
}

/* ---- backward ----------------------------------------------------------------------------- */

/* z = dL/dz of row i: (row softmax + column softmax - 2 target)/(2 N). */
static void row_gradient(const problem *p, float *z, int64_t i, float row_lse, const float *col_lse)
{
    const int32_t *ids = p->photo_ids;
    const float factor = 0.5f / (float)p->count;
    int32_t own_id = ids[i], same = 0;
    if (p->same_image == CT_SAME_IMAGE_MASK) mask_row(p, z, i);
#pragma omp simd
    for (int64_t j = 0; j < p->count; j++)
        z[j] = factor * (ct_expf(z[j] - row_lse) + ct_expf(z[j] - col_lse[j]));
    if (p->same_image != CT_SAME_IMAGE_SHARE) {
        z[i] -= 2.0f * factor;
        return;
    }
#pragma omp simd reduction(+ : same)
    for (int64_t j = 0; j < p->count; j++) same += ids[j] == own_id;
    const float share = 2.0f * factor / (float)same;
#pragma omp simd
    for (int64_t j = 0; j < p->count; j++) z[j] -= ids[j] == own_id ? share : 0.0f;
}

/* dimage[first ..] = grad_scale dz text; dtext (+)= grad_scale dz^T image[first ..] */
static ct_status backward_products(const problem *p, int64_t first, float *dimage, float *dtext)
{
    ct_gemm to_image = {.c = dimage + first * p->width,
                        .a = p->tile,
                        .b = p->text,
                        .m = tile_rows(p, first),
                        .n = p->width,
                        .k = p->count,
                        .lda = p->count,
                        .ldb = p->width,
                        .ldc = p->width,
                        .alpha = p->grad_scale};
    ct_gemm to_text = {.c = dtext,
                       .a = p->tile,
                       .b = p->image + first * p->width,
                       .m = p->count,
                       .n = p->width,
                       .k = tile_rows(p, first),
                       .lda = p->count,
                       .ldb = p->width,
                       .ldc = p->width,
                       .transpose_a = true,
                       .alpha = p->grad_scale,
                       .beta = first ? 1.0f : 0.0f};
    CT_TRY(ct_cpu_gemm(p->cpu, &to_image));
    return ct_cpu_gemm(p->cpu, &to_text);
}

/* dL/dlogit_scale = sum_ij dz_ij z_ij, as z = exp(logit_scale) cos; and sum_j dz_ij z_ij is
 * dimage[i] . image[i], scaled as dimage is. row_sums: (N) scratch. */
static float logit_scale_gradient(const problem *p, const float *dimage, float *row_sums)
{
#pragma omp parallel for schedule(static) num_threads(p->cpu->threads)
    for (int64_t i = 0; i < p->count; i++) {
        const float *d = dimage + i * p->width, *x = p->image + i * p->width;
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t k = 0; k < p->width; k++) sum += d[k] * x[k];
        row_sums[i] = sum;
    }
    double total = 0.0;
    for (int64_t i = 0; i < p->count; i++) total += (double)row_sums[i];
    return (float)total;
}

ct_status ct_cpu_clip_loss_bwd(ct_device *device, const ct_clip_loss_bwd_args *args)
{
    problem p = PROBLEM_OF(device, args);
    CT_TRY(ct_cpu_workspace(p.cpu, tile_bytes(&p) + (size_t)p.count * sizeof(float), &p.tile));
    if (p.cpu->preparing) return CT_OK;

    float *row_sums = p.tile + tile_bytes(&p) / sizeof(float);
    const float *row_lse = ct_f32(&args->row_lse), *col_lse = ct_f32(&args->col_lse);
    float *dimage = ct_f32(&args->dimage);
    p.scale = p.grad_scale = expf(ct_f32(&args->logit_scale)[0]);
    if (ct_tensor_present(&args->loss_scale)) p.grad_scale *= ct_f32(&args->loss_scale)[0];
    for (int64_t first = 0; first < p.count; first += TILE) {
        CT_TRY(similarities(&p, first));
#pragma omp parallel for schedule(static) num_threads(p.cpu->threads)
        for (int64_t i = 0; i < tile_rows(&p, first); i++)
            row_gradient(&p, p.tile + i * p.count, first + i, row_lse[first + i], col_lse);
        CT_TRY(backward_products(&p, first, dimage, ct_f32(&args->dtext)));
    }
    ct_f32(&args->dlogit_scale)[0] += logit_scale_gradient(&p, dimage, row_sums);
    return CT_OK;
}
