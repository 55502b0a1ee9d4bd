/* The symmetric cross-entropy, a block of the similarities at a time (loss_pairs.h).
 *
 * One product serves both directions: rows and columns each keep a running maximum and a running
 * sum relative to it (Milakov & Gimelshein 2018) from block to block. Where all maxima of a block
 * lie near its greatest number, one exponential a similarity serves both too. Backward recomputes
 * the blocks. Blocks come in a fixed order and each is summed by thread, then over threads, so that
 * results depend on the number of threads but not on timing.
 */
#include <float.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "cpu/loss_pairs.h"
#include "cpu/vector_math.h"

/* One exponential e^(z - top) stands for e^(z - m) when top - m is at most this: both then are
 * normal numbers wherever they count, and e^(top - m) times a sum does not overflow. */
#define SHARED_RANGE 60.0f

/* The targets' part that is not [i = j]: see op.h. */
typedef struct targets {
    float smoothing;   /* label_smoothing */
    float *by_same;    /* (N) 1/pairs with this photo; NULL but with SHARE */
    float *by_counted; /* (N) 1/counted pairs of the row or column; NULL but with smoothing */
} targets;

static bool targets_counted(const ct_loss_pairs *p, float smoothing)
{
    return p->same_image == CT_SAME_IMAGE_SHARE || smoothing > 0;
}

static size_t targets_bytes(const ct_loss_pairs *p, float smoothing)
{
    return targets_counted(p, smoothing) ? 2 * ct_cpu_aligned((size_t)p->count * sizeof(float)) : 0;
}

/* Fills both arrays where they are needed. */
static targets count_targets(const ct_loss_pairs *p, float smoothing, float *memory)
{
    targets t = {.smoothing = smoothing};
    if (!targets_counted(p, smoothing)) return t;
    float *second = memory + ct_cpu_aligned((size_t)p->count * sizeof(float)) / sizeof(float);
    int32_t *same = (int32_t *)memory;
    ct_loss_count_same(p, same);
    if (smoothing > 0) t.by_counted = second;
    if (p->same_image == CT_SAME_IMAGE_SHARE) t.by_same = memory;
    const int64_t all = p->count + (p->same_image == CT_SAME_IMAGE_MASK);
    for (int64_t j = 0; j < p->count; j++) {
        const int32_t others = p->same_image == CT_SAME_IMAGE_MASK ? same[j] : 0;
        if (t.by_counted) t.by_counted[j] = 1.0f / (float)(all - others);
        if (t.by_same) t.by_same[j] = 1.0f / (float)same[j];
    }
    return t;
}

/* ---- forward ------------------------------------------------------------------------------ */

/* Log-sum-exps in the making: log(sum) + max. A maximum starts at -FLT_MAX rather than -infinity,
 * for a row or column may have no pair that counts. */
typedef struct running {
    float *max, *sum;
} running;

typedef struct forward {
    const ct_loss_pairs *pairs;
    targets targets;
    running row;    /* (CT_LOSS_ROWS) of the blocks' rows */
    running column; /* (N) */
    float *top;     /* (CT_LOSS_ROWS) rows' maxima in the block */
    float *partial; /* (threads, CT_LOSS_COLUMNS) */
    float *columns; /* (CT_LOSS_COLUMNS) columns' maxima in the block */
    double *target; /* (CT_LOSS_ROWS) */
} forward;

/* Takes on `sum`, relative to `max`. */
static inline void extend(const running *r, int64_t i, float max, float sum)
{
    if (sum == 0.0f) return;
    const float highest = max > r->max[i] ? max : r->max[i];
    r->sum[i] = r->sum[i] * ct_expf(r->max[i] - highest) + sum * ct_expf(max - highest);
    r->max[i] = highest;
}

/* Half of what both directions' targets give of row i of the block. */
static double row_target(const forward *f, const ct_loss_block *block, int64_t i)
{
    const ct_loss_pairs *p = f->pairs;
    const targets *t = &f->targets;
    const int64_t row = p->first + block->row + i, diagonal = row - block->column;
    const float *z = block->z + i * block->columns;
    const int32_t *ids = p->photo_ids + block->column;
    const int32_t own_id = p->photo_ids[row];
    double target = diagonal >= 0 && diagonal < block->columns ? (double)z[diagonal] : 0.0;
    if (t->by_same) {
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < block->columns; j++) sum += ids[j] == own_id ? z[j] : 0.0f;
        target = (double)(sum * t->by_same[row]);
    }
    if (!t->by_counted) return target;
    const float own = t->by_counted[row], *others = t->by_counted + block->column;
    float spread = 0.0f;
#pragma omp simd reduction(+ : spread)
    for (int64_t j = 0; j < block->columns; j++)
        spread += z[j] == -INFINITY ? 0.0f : z[j] * (own + others[j]);
    const double smoothing = (double)t->smoothing;
    return (1.0 - smoothing) * target + 0.5 * smoothing * (double)spread;
}

/* f->top and, from all threads' partial, f->columns. */
static void find_maxima(const forward *f, const ct_loss_block *block, int64_t begin, int64_t end,
                        float *partial)
{
    const int64_t n = block->columns;
    for (int64_t j = 0; j < n; j++) partial[j] = -FLT_MAX;
    for (int64_t i = begin; i < end; i++) {
        const float *z = ct_loss_block_row(f->pairs, block, i);
        float highest = -FLT_MAX;
#pragma omp simd reduction(max : highest)
        for (int64_t j = 0; j < n; j++) {
            highest = z[j] > highest ? z[j] : highest;
            partial[j] = z[j] > partial[j] ? z[j] : partial[j];
        }
        f->top[i] = highest;
        f->target[i] += row_target(f, block, i);
    }
}

/* The block's greatest number when all rows' and columns' maxima are within SHARED_RANGE of it,
 * else INFINITY. Rows and columns without a pair that counts do not matter. */
static float common_top(const forward *f, const ct_loss_block *block)
{
    float highest = -FLT_MAX, lowest = FLT_MAX;
    for (int64_t i = 0; i < block->rows; i++) {
        highest = f->top[i] > highest ? f->top[i] : highest;
        if (f->top[i] > -FLT_MAX && f->top[i] < lowest) lowest = f->top[i];
    }
    for (int64_t j = 0; j < block->columns; j++)
        if (f->columns[j] > -FLT_MAX && f->columns[j] < lowest) lowest = f->columns[j];
    return highest - lowest <= SHARED_RANGE ? highest : INFINITY;
}

/* Rows' sums into f->row; columns' into partial, relative to `top`, or else to f->columns. */
static void sum_exponentials(const forward *f, const ct_loss_block *block, int64_t begin,
                             int64_t end, float top, float *partial)
{
    const int64_t n = block->columns;
    memset(partial, 0, (size_t)n * sizeof *partial);
    for (int64_t i = begin; i < end; i++) {
        const float *z = block->z + i * n;
        float sum = 0.0f;
        if (top < INFINITY) {
#pragma omp simd reduction(+ : sum)
            for (int64_t j = 0; j < n; j++) {
                const float e = ct_expf(z[j] - top);
                sum += e;
                partial[j] += e;
            }
            extend(&f->row, i, top, sum);
            continue;
        }
        const float highest = f->top[i];
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < n; j++) {
            sum += ct_expf(z[j] - highest);
            partial[j] += ct_expf(z[j] - f->columns[j]);
        }
        extend(&f->row, i, highest, sum);
    }
}

/* Columns [begin, end) of the block: their maxima over the threads. */
static void join_maxima(const forward *f, int threads, int64_t begin, int64_t end)
{
    for (int64_t j = begin; j < end; j++) f->columns[j] = f->partial[j];
    for (int t = 1; t < threads; t++) {
        const float *partial = f->partial + (int64_t)t * CT_LOSS_COLUMNS;
        for (int64_t j = begin; j < end; j++)
            f->columns[j] = partial[j] > f->columns[j] ? partial[j] : f->columns[j];
    }
}

static void join_sums(const forward *f, int threads, const ct_loss_block *block, int64_t begin,
                      int64_t end, float top)
{
    for (int64_t j = begin; j < end; j++) {
        float sum = 0.0f;
        for (int t = 0; t < threads; t++) sum += f->partial[(int64_t)t * CT_LOSS_COLUMNS + j];
        extend(&f->column, block->column + j, top < INFINITY ? top : f->columns[j], sum);
    }
}

static void forward_block(const forward *f, const ct_loss_block *block)
{
    const int threads = f->pairs->cpu->threads;
    float top = 0.0f;
#pragma omp parallel num_threads(threads)
    {
        const int thread = omp_get_thread_num();
        float *partial = f->partial + (int64_t)thread * CT_LOSS_COLUMNS;
        int64_t begin, end, left, right;
        ct_cpu_share(block->rows, threads, thread, &begin, &end);
        ct_cpu_share(block->columns, threads, thread, &left, &right);
        find_maxima(f, block, begin, end, partial);
#pragma omp barrier
        join_maxima(f, threads, left, right);
#pragma omp barrier
#pragma omp single
        top = common_top(f, block);
        sum_exponentials(f, block, begin, end, top, partial);
#pragma omp barrier
        join_sums(f, threads, block, left, right, top);
    }
}

/* One piece of workspace after the other. */
static float *carve(float **memory, size_t floats)
{
    float *piece = *memory;
    if (piece) *memory += ct_cpu_aligned(floats * sizeof(float)) / sizeof(float);
    return piece;
}

static size_t forward_bytes(const ct_loss_pairs *p, float smoothing)
{
    const size_t floats[] = {CT_LOSS_ROWS,    CT_LOSS_ROWS,
                             CT_LOSS_ROWS,    2 * CT_LOSS_ROWS,
                             CT_LOSS_COLUMNS, (size_t)p->cpu->threads * CT_LOSS_COLUMNS,
                             (size_t)p->count};
    size_t bytes = ct_loss_block_bytes(p) + targets_bytes(p, smoothing);
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++)
        bytes += ct_cpu_aligned(floats[i] * sizeof(float));
    return bytes;
}

static forward lay_out(ct_loss_pairs *p, float smoothing, float *memory)
{
    forward f = {.pairs = p};
    p->z = carve(&memory, ct_loss_block_bytes(p) / sizeof(float));
    f.row.max = carve(&memory, CT_LOSS_ROWS);
    f.row.sum = carve(&memory, CT_LOSS_ROWS);
    f.top = carve(&memory, CT_LOSS_ROWS);
    f.target = (double *)carve(&memory, 2 * CT_LOSS_ROWS);
    f.columns = carve(&memory, CT_LOSS_COLUMNS);
    f.partial = carve(&memory, (size_t)p->cpu->threads * CT_LOSS_COLUMNS);
    f.column.max = carve(&memory, (size_t)p->count);
    f.targets = count_targets(p, smoothing, memory);
    return f;
}

static void start_running(const running *r, int64_t count)
{
    for (int64_t i = 0; i < count; i++) r->max[i] = -FLT_MAX;
    memset(r->sum, 0, (size_t)count * sizeof *r->sum);
}

/* lse may be r->sum itself. */
static void finish_running(const running *r, int64_t count, float *lse)
{
    for (int64_t i = 0; i < count; i++) lse[i] = r->max[i] + logf(r->sum[i]);
}

ct_status ct_cpu_clip_loss_fwd(ct_device *device, const ct_clip_loss_fwd_args *args)
{
    ct_loss_pairs p = CT_LOSS_PAIRS(device, args, args->row_lse.dim[0]);
    float *memory;
    CT_TRY(ct_cpu_workspace(p.cpu, forward_bytes(&p, args->label_smoothing), &memory));
    if (p.cpu->preparing) return CT_OK;

    forward f = lay_out(&p, args->label_smoothing, memory);
    f.column.sum = ct_f32(&args->col_lse);
    p.scale = expf(ct_f32(&args->logit_scale)[0]);
    start_running(&f.column, p.count);
    for (int64_t row = 0; row < p.rows; row += CT_LOSS_ROWS) {
        const int64_t rows = ct_loss_least(p.rows - row, CT_LOSS_ROWS);
        start_running(&f.row, rows);
        memset(f.target, 0, (size_t)rows * sizeof *f.target);
        for (int64_t column = 0; column < p.count; column += CT_LOSS_COLUMNS) {
            ct_loss_block block;
            CT_TRY(ct_loss_block_compute(&p, row, column, &block));
            forward_block(&f, &block);
        }
        finish_running(&f.row, rows, ct_f32(&args->row_lse) + row);
        for (int64_t i = 0; i < rows; i++) ct_f32(&args->target)[row + i] = (float)f.target[i];
    }
    finish_running(&f.column, p.count, f.column.sum);
    return CT_OK;
}

ct_status ct_cpu_clip_loss_merge(ct_device *device, const ct_clip_loss_merge_args *args)
{
    const int64_t ranks = args->parts.dim[0], columns = args->parts.dim[1];
    const float *parts = ct_f32(&args->parts);
    float *lse = ct_f32(&args->lse);
    (void)device;
    for (int64_t j = 0; j < columns; j++) {
        float highest = -FLT_MAX, sum = 0.0f;
        for (int64_t r = 0; r < ranks; r++)
            highest = parts[r * columns + j] > highest ? parts[r * columns + j] : highest;
        for (int64_t r = 0; r < ranks; r++) sum += expf(parts[r * columns + j] - highest);
        lse[j] = highest + logf(sum);
    }
    return CT_OK;
}

ct_status ct_cpu_clip_loss_total(ct_device *device, const ct_clip_loss_total_args *args)
{
    const float *row = ct_f32(&args->row_lse), *column = ct_f32(&args->col_lse);
    const float *target = ct_f32(&args->target);
    double sum = 0.0;
    (void)device;
    for (int64_t i = 0; i < args->row_lse.dim[0]; i++)
        sum += (double)row[i] + (double)column[i] - 2.0 * (double)target[i];
    ct_f32(&args->loss)[0] = (float)(sum / (2.0 * (double)args->count));
    return CT_OK;
}

/* ---- backward ----------------------------------------------------------------------------- */

typedef struct backward {
    targets targets;
    const float *row_lse, *col_lse; /* (N) */
    float *lift;                    /* (CT_LOSS_COLUMNS) e^(top - col_lse) of the block's columns */
    float *row_sums;                /* (own rows) */
    float *dlogit_scale;
} backward;

/* An upper bound of the block's numbers when all its log-sum-exps are within SHARED_RANGE of it,
 * else INFINITY: their greatest, as no similarity that counts exceeds its row's. */
static float common_lse(const ct_loss_block *block, const float *row_lse, const float *col_lse)
{
    float highest = -FLT_MAX, lowest = FLT_MAX;
    for (int64_t i = 0; i < block->rows; i++) {
        highest = row_lse[i] > highest ? row_lse[i] : highest;
        lowest = row_lse[i] < lowest ? row_lse[i] : lowest;
    }
    for (int64_t j = 0; j < block->columns; j++) lowest = col_lse[j] < lowest ? col_lse[j] : lowest;
    return highest - lowest <= SHARED_RANGE ? highest : INFINITY;
}

/* z = row softmax + column softmax, of row i of the block. */
static void row_softmaxes(const backward *b, float *z, int64_t n, float top, float row_lse,
                          const float *col_lse)
{
    if (top < INFINITY) {
        const float own = ct_expf(top - row_lse), *lift = b->lift;
#pragma omp simd
        for (int64_t j = 0; j < n; j++) z[j] = ct_expf(z[j] - top) * (own + lift[j]);
        return;
    }
#pragma omp simd
    for (int64_t j = 0; j < n; j++) z[j] = ct_expf(z[j] - row_lse) + ct_expf(z[j] - col_lse[j]);
}

/* z = dL/dz of row i of the block: (row softmax + column softmax - both targets)/(2 N). */
static void row_gradient(const ct_loss_pairs *p, const backward *b, const ct_loss_block *block,
                         int64_t i, float top)
{
    const targets *t = &b->targets;
    const int64_t row = p->first + block->row + i, diagonal = row - block->column;
    const int64_t n = block->columns;
    const int32_t *ids = p->photo_ids + block->column;
    const int32_t own_id = p->photo_ids[row];
    const float factor = 0.5f / (float)p->count, sharp = 2.0f * (1.0f - t->smoothing);
    float *z = ct_loss_block_row(p, block, i);
    row_softmaxes(b, z, n, top, b->row_lse[row], b->col_lse + block->column);
    if (t->by_counted) {
        const float own = t->by_counted[row], *others = t->by_counted + block->column;
        const bool masked = p->same_image == CT_SAME_IMAGE_MASK;
#pragma omp simd
        for (int64_t j = 0; j < n; j++)
            z[j] -= masked && ids[j] == own_id && j != diagonal ? 0.0f
                                                                : t->smoothing * (own + others[j]);
    }
    if (t->by_same) {
        const float share = sharp * t->by_same[row];
#pragma omp simd
        for (int64_t j = 0; j < n; j++) z[j] -= ids[j] == own_id ? share : 0.0f;
    } else if (diagonal >= 0 && diagonal < n) {
        z[diagonal] -= sharp;
    }
#pragma omp simd
    for (int64_t j = 0; j < n; j++) z[j] *= factor;
}

static void gradient_block(const ct_loss_pairs *p, const backward *b, const ct_loss_block *block)
{
    const float *row_lse = b->row_lse + p->first + block->row;
    const float *col_lse = b->col_lse + block->column;
    const float top = common_lse(block, row_lse, col_lse);
    for (int64_t j = 0; top < INFINITY && j < block->columns; j++)
        b->lift[j] = ct_expf(top - col_lse[j]);
#pragma omp parallel for schedule(static) num_threads(p->cpu->threads)
    for (int64_t i = 0; i < block->rows; i++) row_gradient(p, b, block, i, top);
}

/* With the sides swapped the rows are texts, and so the columns' log-sum-exps are theirs. */
static ct_status backward_side(const ct_loss_pairs *p, void *context, bool swapped, float *da,
                               float *db)
{
    backward b = *(const backward *)context;
    if (swapped) {
        const float *row_lse = b.row_lse;
        b.row_lse = b.col_lse;
        b.col_lse = row_lse;
    }
    for (int64_t row = 0; row < p->rows; row += CT_LOSS_ROWS)
        for (int64_t column = 0; column < p->count; column += CT_LOSS_COLUMNS) {
            ct_loss_block block;
            CT_TRY(ct_loss_block_compute(p, row, column, &block));
            gradient_block(p, &b, &block);
            CT_TRY(ct_loss_block_products(p, &block, da, db));
        }
    if (!swapped) *b.dlogit_scale += ct_loss_scale_gradient(p, da, b.row_sums);
    return CT_OK;
}

ct_status ct_cpu_clip_loss_bwd(ct_device *device, const ct_clip_loss_bwd_args *args)
{
    ct_loss_pairs p = CT_LOSS_PAIRS(device, args, args->dimage.dim[0]);
    const size_t lift_bytes = CT_LOSS_COLUMNS * sizeof(float);
    const size_t sums_bytes = ct_cpu_aligned((size_t)p.rows * sizeof(float));
    float *memory;
    CT_TRY(ct_cpu_workspace(p.cpu,
                            ct_loss_block_bytes(&p) + lift_bytes + sums_bytes +
                                targets_bytes(&p, args->label_smoothing),
                            &memory));
    if (p.cpu->preparing) return CT_OK;

    backward b = {.row_lse = ct_f32(&args->row_lse),
                  .col_lse = ct_f32(&args->col_lse),
                  .dlogit_scale = ct_f32(&args->dlogit_scale)};
    p.z = carve(&memory, ct_loss_block_bytes(&p) / sizeof(float));
    b.lift = carve(&memory, CT_LOSS_COLUMNS);
    b.row_sums = carve(&memory, (size_t)p.rows);
    b.targets = count_targets(&p, args->label_smoothing, memory);
    p.scale = p.grad_scale = expf(ct_f32(&args->logit_scale)[0]);
    if (ct_tensor_present(&args->loss_scale)) p.grad_scale *= ct_f32(&args->loss_scale)[0];
    return ct_loss_both_sides(&p, backward_side, &b, ct_f32(&args->dimage), ct_f32(&args->dtext));
}
