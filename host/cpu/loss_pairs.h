/* What the contrastive losses on the processor share: the similarities of own rows with all
 * columns, a block of ROWS x COLUMNS at a time, so that the N x N matrix is never stored.
 *
 * A block is small enough to stay in a core's own cache while it is looked at, and large enough for
 * its product to run at the library's full speed: the operand that is read anew for each block, b,
 * is used by ROWS rows, a by COLUMNS columns. Memory beside the embeddings: one block and a few
 * numbers a row or column. */
#ifndef CT_CPU_LOSS_PAIRS_H
#define CT_CPU_LOSS_PAIRS_H

#include "cpu/internal.h"

enum { CT_LOSS_ROWS = 512, CT_LOSS_COLUMNS = 1024 };

typedef struct ct_loss_pairs {
    ct_cpu_device *cpu;
    const float *a, *b;   /* (N, D): a block's rows are of a, its columns of b */
    int64_t count, width; /* N, D */
    int64_t first, rows;  /* own rows: first .. first + rows - 1 */
    const int32_t *photo_ids;
    ct_same_image same_image;
    float scale;      /* exp(logit_scale) */
    float grad_scale; /* the same, times the loss scale: what gradients are multiplied with */
    float *z;         /* the block */
} ct_loss_pairs;

/* Rows [row, row + rows) of own rows and columns [column, column + columns); z (rows, columns). */
typedef struct ct_loss_block {
    int64_t row, rows, column, columns;
    float *z;
} ct_loss_block;

/* Both losses' and both directions' arguments name these things alike. */
#define CT_LOSS_PAIRS(device, args, own_rows)                                                      \
    {                                                                                              \
        .cpu = ct_cpu(device), .a = ct_f32(&(args)->image), .b = ct_f32(&(args)->text),            \
        .count = (args)->image.dim[0], .width = (args)->image.dim[1], .first = (args)->first,      \
        .rows = own_rows, .photo_ids = ct_i32(&(args)->photo_ids),                                 \
        .same_image = (args)->same_image                                                           \
    }

static inline int64_t ct_loss_least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Room for z. */
size_t ct_loss_block_bytes(const ct_loss_pairs *p);

/* The block that begins at (row, column), with z = scale a b^T. */
CT_NODISCARD ct_status ct_loss_block_compute(const ct_loss_pairs *p, int64_t row, int64_t column,
                                             ct_loss_block *out);

/* Row i of the block, with the pairs that do not count set to -infinity (MASK). */
float *ct_loss_block_row(const ct_loss_pairs *p, const ct_loss_block *block, int64_t i);

/* From z, which holds the loss's derivatives by the similarities:
 * da[row ..] (own rows) (+)= grad_scale z b, where the block with column 0 sets; and unless db is
 * NULL, db[column ..] (+)= grad_scale z^T a, where the block with row 0 sets. */
CT_NODISCARD ct_status ct_loss_block_products(const ct_loss_pairs *p, const ct_loss_block *block,
                                              float *da, float *db);

/* The two calls of backward: body(p, context, da, db) once for both sides when own rows are all
 * rows; else once for own rows of the images, then, with the sides swapped, of the texts. */
typedef ct_status ct_loss_side(const ct_loss_pairs *p, void *context, bool swapped, float *da,
                               float *db);
CT_NODISCARD ct_status ct_loss_both_sides(const ct_loss_pairs *p, ct_loss_side *body, void *context,
                                          float *dimage, float *dtext);

/* same[j] = how many pairs have the photo of pair j. */
void ct_loss_count_same(const ct_loss_pairs *p, int32_t *same);

/* sum_i da[i] . a[i] over own rows: dL/dlogit_scale, for z = exp(logit_scale) cos and dz z summed
 * over a row is da . a. row_sums: (rows) scratch. */
float ct_loss_scale_gradient(const ct_loss_pairs *p, const float *da, float *row_sums);

#endif
