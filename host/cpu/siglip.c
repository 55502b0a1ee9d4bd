/* The pairwise sigmoid loss, a block of the similarities at a time (loss_pairs.h). */
#include <math.h>

#include "cpu/loss_pairs.h"
#include "cpu/vector_math.h"

/* y of pair (row, column + j) by its photo ids, for j != diagonal; a pair left out is not asked. */
static inline float label(ct_same_image same_image, bool same)
{
    return same && same_image == CT_SAME_IMAGE_SHARE ? 1.0f : -1.0f;
}

/* log(1 + e^-u), for u of any size: max(-u, 0) + log1p(e^-|u|). */
static inline float soft_loss(float u)
{
    return (u < 0.0f ? -u : 0.0f) + log1pf(ct_expf(u < 0.0f ? u : -u));
}

/* ---- forward ------------------------------------------------------------------------------ */

/* sum_j log(1 + exp(-y (z + bias))) of row i of the block. */
static double row_loss(const ct_loss_pairs *p, const ct_loss_block *block, int64_t i, float bias)
{
    const int64_t row = p->first + block->row + i, diagonal = row - block->column;
    const float *z = block->z + i * block->columns;
    const int32_t *ids = p->photo_ids + block->column;
    const int32_t own_id = p->photo_ids[row];
    double sum = 0.0;
    for (int64_t j = 0; j < block->columns; j++) {
        const bool same = ids[j] == own_id;
        if (j != diagonal && same && p->same_image == CT_SAME_IMAGE_MASK) continue;
        const float y = j == diagonal ? 1.0f : label(p->same_image, same);
        sum += (double)soft_loss(y * (z[j] + bias));
    }
    return sum;
}

ct_status ct_cpu_siglip_loss_fwd(ct_device *device, const ct_siglip_loss_fwd_args *args)
{
    ct_loss_pairs p = CT_LOSS_PAIRS(device, args, args->rows);
    const size_t block_bytes = ct_loss_block_bytes(&p);
    CT_TRY(ct_cpu_workspace(p.cpu, block_bytes + CT_LOSS_ROWS * sizeof(double), &p.z));
    if (p.cpu->preparing) return CT_OK;

    double *row_sums = (double *)(p.z + block_bytes / sizeof(float)), sum = 0.0;
    const float bias = ct_f32(&args->logit_bias)[0];
    p.scale = expf(ct_f32(&args->logit_scale)[0]);
    for (int64_t row = 0; row < p.rows; row += CT_LOSS_ROWS)
        for (int64_t column = 0; column < p.count; column += CT_LOSS_COLUMNS) {
            ct_loss_block block;
            CT_TRY(ct_loss_block_compute(&p, row, column, &block));
#pragma omp parallel for schedule(static) num_threads(p.cpu->threads)
            for (int64_t i = 0; i < block.rows; i++) row_sums[i] = row_loss(&p, &block, i, bias);
            for (int64_t i = 0; i < block.rows; i++) sum += row_sums[i];
        }
    ct_f32(&args->loss)[0] = (float)(sum / (double)p.count);
    return CT_OK;
}

/* ---- backward ----------------------------------------------------------------------------- */

typedef struct backward {
    float bias;
    float *row_sums; /* (own rows) */
    double dbias;    /* sum of all dL/dz */
    float *dlogit_scale;
} backward;

/* z = dL/dz = -y sigmoid(-y (z + bias))/N of row i of the block; returns the row's sum. */
static float row_gradient(const ct_loss_pairs *p, const ct_loss_block *block, int64_t i, float bias)
{
    const int64_t row = p->first + block->row + i, diagonal = row - block->column;
    float *z = block->z + i * block->columns, sum = 0.0f;
    const int32_t *ids = p->photo_ids + block->column;
    const int32_t own_id = p->photo_ids[row];
    const bool masked = p->same_image == CT_SAME_IMAGE_MASK;
    const float factor = 1.0f / (float)p->count;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < block->columns; j++) {
        const bool same = ids[j] == own_id, own = j == diagonal;
        const float y = own ? 1.0f : label(p->same_image, same);
        /* e^u overflows to infinity and the quotient to 0, as it should. */
        const float d = -y * factor / (1.0f + ct_expf(y * (z[j] + bias)));
        z[j] = masked && same && !own ? 0.0f : d;
        sum += z[j];
    }
    return sum;
}

static ct_status backward_side(const ct_loss_pairs *p, void *context, bool swapped, float *da,
                               float *db)
{
    backward *b = context;
    for (int64_t row = 0; row < p->rows; row += CT_LOSS_ROWS)
        for (int64_t column = 0; column < p->count; column += CT_LOSS_COLUMNS) {
            ct_loss_block block;
            CT_TRY(ct_loss_block_compute(p, row, column, &block));
#pragma omp parallel for schedule(static) num_threads(p->cpu->threads)
            for (int64_t i = 0; i < block.rows; i++)
                b->row_sums[i] = row_gradient(p, &block, i, b->bias);
            for (int64_t i = 0; !swapped && i < block.rows; i++) b->dbias += (double)b->row_sums[i];
            CT_TRY(ct_loss_block_products(p, &block, da, db));
        }
    if (!swapped) *b->dlogit_scale += ct_loss_scale_gradient(p, da, b->row_sums);
    return CT_OK;
}

ct_status ct_cpu_siglip_loss_bwd(ct_device *device, const ct_siglip_loss_bwd_args *args)
{
    ct_loss_pairs p = CT_LOSS_PAIRS(device, args, args->dimage.dim[0]);
    const size_t block_bytes = ct_loss_block_bytes(&p);
    CT_TRY(ct_cpu_workspace(p.cpu, block_bytes + (size_t)p.rows * sizeof(float), &p.z));
    if (p.cpu->preparing) return CT_OK;

    float loss_scale = 1.0f;
    if (ct_tensor_present(&args->loss_scale)) loss_scale = ct_f32(&args->loss_scale)[0];
    backward b = {.bias = ct_f32(&args->logit_bias)[0],
                  .row_sums = p.z + block_bytes / sizeof(float),
                  .dlogit_scale = ct_f32(&args->dlogit_scale)};
    p.scale = expf(ct_f32(&args->logit_scale)[0]);
    p.grad_scale = p.scale * loss_scale;
    CT_TRY(ct_loss_both_sides(&p, backward_side, &b, ct_f32(&args->dimage), ct_f32(&args->dtext)));
    ct_f32(&args->dlogit_bias)[0] += (float)(b.dbias * (double)loss_scale);
    return CT_OK;
}
