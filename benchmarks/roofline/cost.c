#include "cost.h"

#include <stdarg.h>

/* Ends the argument lists below. */
#define END ((const ct_tensor *)NULL)

static double bytes_of(va_list list)
{
    double bytes = 0;
    for (const ct_tensor *t; (t = va_arg(list, const ct_tensor *));)
        bytes += (double)ct_tensor_bytes(t);
    return bytes;
}

static void reads(ct_cost *cost, ...)
{
    va_list list;
    va_start(list, cost);
    cost->read_bytes += bytes_of(list);
    va_end(list);
}

/* The first one is the main output. */
static void writes(ct_cost *cost, const ct_tensor *main_output, ...)
{
    va_list list;
    va_start(list, main_output);
    cost->written_bytes += (double)ct_tensor_bytes(main_output) + bytes_of(list);
    va_end(list);
    cost->rank = main_output->rank;
    cost->dtype = main_output->dtype;
    for (int d = 0; d < 4; d++) cost->shape[d] = main_output->dim[d];
}

/* Gradients that are added to are read too. */
static void adds(ct_cost *cost, ...)
{
    va_list list;
    va_start(list, cost);
    double bytes = bytes_of(list);
    va_end(list);
    cost->read_bytes += bytes;
    cost->written_bytes += bytes;
}

static double product(const ct_tensor *output, int64_t inner)
{
    return 2.0 * (double)ct_tensor_count(output) * (double)inner;
}

static int64_t filter_size(const ct_tensor *w)
{
    return w->dim[1] * w->dim[2] * w->dim[3];
}

/* ---- one function an operation ------------------------------------------------------------------
 */

#define COST(name) static void cost_##name(const ct_##name##_args *a, ct_cost *c)

COST(image_normalize_fwd)
{
    reads(c, &a->x, END);
    writes(c, &a->y, END);
}

COST(conv2d_fwd)
{
    reads(c, &a->x, &a->w, &a->bias, END);
    writes(c, &a->y, &a->moments, END);
    c->flops = product(&a->y, filter_size(&a->w));
}

COST(conv2d_bwd_data)
{
    reads(c, &a->dy, &a->w, END);
    if (a->accumulate) reads(c, &a->dx, END);
    writes(c, &a->dx, END);
    c->flops = product(&a->dy, filter_size(&a->w));
}

COST(conv2d_bwd_filter)
{
    reads(c, &a->dy, &a->x, END);
    adds(c, &a->dbias, END);
    writes(c, &a->dw, END);
    c->read_bytes += (double)ct_tensor_bytes(&a->dw);
    c->flops = product(&a->dy, filter_size(&a->dw));
    c->dtype = a->dy.dtype;
}

/* Batch statistics must be complete before the first element is normalised: x is read twice. */
COST(batchnorm_fwd)
{
    reads(c, &a->x, &a->residual, &a->gamma, &a->beta, END);
    if (a->statistics == CT_BATCHNORM_BATCH) reads(c, &a->x, END);
    writes(c, &a->y, &a->mean, &a->rstd, END);
}

COST(batchnorm_moments)
{
    reads(c, &a->x, END);
    writes(c, &a->moments, END);
}

COST(batchnorm_merge)
{
    reads(c, &a->moments, END);
    adds(c, &a->running_mean, &a->running_var, END);
    writes(c, &a->mean, &a->rstd, END);
}

/* The sums over the batch, where they are not given, take a pass of their own. */
COST(batchnorm_bwd)
{
    reads(c, &a->dy, &a->x, END);
    if (a->relu) reads(c, &a->y, END);
    writes(c, &a->dx, &a->dresidual, END);
    if (ct_tensor_present(&a->sums)) return;
    reads(c, &a->dy, &a->x, END);
    if (a->relu) reads(c, &a->y, END);
    adds(c, &a->dgamma, &a->dbeta, END);
}

COST(batchnorm_bwd_sums)
{
    reads(c, &a->dy, &a->x, END);
    if (a->relu) reads(c, &a->y, END);
    adds(c, &a->dgamma, &a->dbeta, END);
    writes(c, &a->sums, END);
}

COST(maxpool_fwd)
{
    reads(c, &a->x, END);
    writes(c, &a->y, &a->index, END);
}

COST(maxpool_bwd)
{
    reads(c, &a->dy, &a->index, END);
    writes(c, &a->dx, END);
}

COST(avgpool_fwd)
{
    reads(c, &a->x, END);
    writes(c, &a->y, END);
}

COST(avgpool_bwd)
{
    reads(c, &a->dy, END);
    writes(c, &a->dx, END);
}

COST(patch_tokens_fwd)
{
    reads(c, &a->patches, &a->class_token, &a->position, END);
    writes(c, &a->y, END);
}

COST(patch_tokens_bwd)
{
    reads(c, &a->dy, END);
    writes(c, &a->dpatches, &a->dclass_token, &a->dposition, END);
}

COST(linear_fwd)
{
    reads(c, &a->x, &a->w, &a->bias, END);
    writes(c, &a->y, &a->preact, END);
    c->flops = product(&a->y, a->x.dim[1]);
}

COST(linear_bwd)
{
    reads(c, &a->dy, &a->x, &a->w, &a->preact, END);
    adds(c, &a->dbias, END);
    if (a->accumulate) reads(c, &a->dx, END);
    writes(c, &a->dw, &a->dx, END);
    c->read_bytes += (double)ct_tensor_bytes(&a->dw);
    c->flops = product(&a->dw, a->dy.dim[0]) * (ct_tensor_present(&a->dx) ? 2 : 1);
    c->dtype = a->dy.dtype;
}

COST(activation_fwd)
{
    reads(c, &a->x, END);
    writes(c, &a->y, END);
}

COST(activation_bwd)
{
    reads(c, &a->dy, &a->x, END);
    writes(c, &a->dx, END);
}

COST(layernorm_fwd)
{
    reads(c, &a->x, &a->residual, &a->gamma, &a->beta, END);
    writes(c, &a->y, &a->sum, &a->mean, &a->rstd, END);
}

COST(layernorm_bwd)
{
    reads(c, &a->dy, &a->x, &a->dskip, &a->gamma, &a->mean, &a->rstd, END);
    adds(c, &a->dgamma, &a->dbeta, END);
    writes(c, &a->dx, END);
}

COST(add)
{
    reads(c, &a->a, &a->b, END);
    writes(c, &a->y, END);
}

COST(dropout)
{
    reads(c, &a->x, END);
    writes(c, &a->y, END);
}

COST(l2norm_fwd)
{
    reads(c, &a->x, END);
    writes(c, &a->y, &a->inv_norm, END);
}

COST(l2norm_bwd)
{
    reads(c, &a->dy, &a->y, &a->inv_norm, END);
    writes(c, &a->dx, END);
}

/* Three rows are gathered for each row written; the tables themselves are larger than what is read.
 */
COST(embedding_fwd)
{
    reads(c, &a->y, &a->y, &a->ids, &a->positions, END);
    writes(c, &a->y, END);
}

COST(embedding_bwd)
{
    reads(c, &a->dy, &a->ids, &a->positions, END);
    writes(c, &a->dy, END);
}

/* Lengths are not known here: products over all pairs of a sequence, were all equally long. */
static double attention_product(const ct_tensor *qkv, const ct_tensor *cu_seqlens)
{
    double tokens = (double)qkv->dim[0], width = (double)(qkv->dim[2] * qkv->dim[3]);
    return 2.0 * tokens * width * tokens / (double)(cu_seqlens->dim[0] - 1);
}

COST(attention_fwd)
{
    reads(c, &a->qkv, &a->cu_seqlens, END);
    writes(c, &a->o, &a->lse, END);
    c->flops = 2 * attention_product(&a->qkv, &a->cu_seqlens);
}

COST(attention_bwd)
{
    reads(c, &a->qkv, &a->d_o, &a->o, &a->lse, &a->cu_seqlens, END);
    writes(c, &a->dqkv, END);
    c->flops = 5 * attention_product(&a->qkv, &a->cu_seqlens);
}

COST(gather_rows_fwd)
{
    reads(c, &a->y, &a->index, END);
    writes(c, &a->y, END);
}

COST(gather_rows_bwd)
{
    reads(c, &a->dy, &a->index, END);
    writes(c, &a->dx, END);
}

/* Similarities of `rows` of all N pairs with all N. */
static double similarity_flops(const ct_tensor *image, int64_t rows)
{
    return 2.0 * (double)rows * (double)ct_tensor_count(image);
}

/* The similarities of own rows and of own columns, and one product of each side's. */
static double loss_backward_flops(const ct_tensor *image, const ct_tensor *dimage)
{
    const double rectangle = similarity_flops(image, dimage->dim[0]),
                 square = similarity_flops(dimage, dimage->dim[0]);
    return 4 * rectangle - square;
}

COST(clip_loss_fwd)
{
    reads(c, &a->image, &a->text, &a->photo_ids, END);
    writes(c, &a->row_lse, &a->col_lse, &a->target, END);
    c->flops = similarity_flops(&a->image, a->row_lse.dim[0]);
    c->dtype = a->image.dtype;
}

COST(clip_loss_merge)
{
    reads(c, &a->parts, END);
    writes(c, &a->lse, END);
}

COST(clip_loss_total)
{
    reads(c, &a->row_lse, &a->col_lse, &a->target, END);
    writes(c, &a->loss, END);
}

COST(clip_loss_bwd)
{
    reads(c, &a->image, &a->text, &a->row_lse, &a->col_lse, &a->photo_ids, END);
    writes(c, &a->dimage, &a->dtext, END);
    c->flops = loss_backward_flops(&a->image, &a->dimage);
}

COST(siglip_loss_fwd)
{
    reads(c, &a->image, &a->text, &a->photo_ids, END);
    writes(c, &a->loss, END);
    c->flops = similarity_flops(&a->image, a->rows);
    c->dtype = a->image.dtype;
}

COST(siglip_loss_bwd)
{
    reads(c, &a->image, &a->text, &a->photo_ids, END);
    writes(c, &a->dimage, &a->dtext, END);
    c->flops = loss_backward_flops(&a->image, &a->dimage);
}

COST(cast)
{
    reads(c, &a->x, END);
    writes(c, &a->y, END);
}

COST(grad_norm)
{
    writes(c, &a->norm, END);
    for (int i = 0; i < a->segment_count; i++) reads(c, &a->segments[i].grad, END);
}

COST(grad_stats)
{
    reads(c, &a->norms, END);
    writes(c, &a->stats, END);
}

COST(adamw)
{
    for (int i = 0; i < a->segment_count; i++) {
        const ct_optimizer_segment *s = &a->segments[i];
        reads(c, &s->grad, END);
        adds(c, &s->value, &s->exp_avg, &s->exp_avg_sq, END);
        writes(c, &s->weight, END);
    }
    c->rank = 0;
}

ct_cost ct_cost_of(ct_op op, const void *args)
{
    ct_cost cost = {0};
    switch (op) {
#define CASE(name)                                                                                 \
    case CT_OP_##name:                                                                             \
        cost_##name((const ct_##name##_args *)args, &cost);                                        \
        break;
        CT_OPS(CASE)
#undef CASE
    case CT_OP_COUNT:
        break;
    }
    return cost;
}
