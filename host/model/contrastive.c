#include "model/contrastive.h"

#include <math.h>

#include "model/reducer.h"

ct_status ct_contrastive_create(ct_params *params, const ct_config *config, ct_contrastive *out)
{
    const ct_param logit_scale = {.name = "logit_scale",
                                  .value = ct_tensor1(NULL, CT_F32, 1),
                                  .group = CT_GROUP_HEAD,
                                  .init = CT_INIT_CONSTANT,
                                  .init_scale = (float)log(config->loss.logit_scale_init),
                                  .max_value = (float)log(config->loss.logit_scale_max)};
    const ct_param logit_bias = {.name = "logit_bias",
                                 .value = ct_tensor1(NULL, CT_F32, 1),
                                 .group = CT_GROUP_HEAD,
                                 .init = CT_INIT_CONSTANT,
                                 .init_scale = (float)config->loss.logit_bias_init,
                                 .max_value = INFINITY};
    *out = (ct_contrastive){.same_image = (ct_same_image)config->loss.same_image,
                            .label_smoothing = (float)config->loss.label_smoothing};
    CT_TRY(ct_params_add(params, &logit_scale, &out->logit_scale));
    if (config->loss.kind == CT_LOSS_SOFTMAX) return CT_OK;
    return ct_params_add(params, &logit_bias, &out->logit_bias);
}

/* The batch of all ranks, of which this one has rows [first, first + rows). */
typedef struct gathered {
    ct_tensor image, text, photo_ids; /* (N, D), (N, D), (N) */
    int64_t count, first, rows;
} gathered;

/* *out = the ranks' x, one after the other, pushed on the stack; x itself where there is one rank.
 */
static ct_status gather(const ct_exec *exec, const ct_tensor *x, ct_tensor *out)
{
    const int ranks = ct_comm_size(exec->device->comm);
    *out = *x;
    if (ranks == 1) return CT_OK;
    out->dim[0] = ranks * x->dim[0];
    CT_TRY(ct_exec_push(exec, out));
    return ct_exec_all_gather(exec, out, x);
}

static ct_status gather_batch(const ct_exec *exec, const ct_contrastive_batch *batch, gathered *out)
{
    out->rows = batch->image.dim[0];
    out->first = ct_comm_rank(exec->device->comm) * out->rows;
    CT_TRY(gather(exec, &batch->image, &out->image));
    CT_TRY(gather(exec, &batch->text, &out->text));
    CT_TRY(gather(exec, &batch->photo_ids, &out->photo_ids));
    out->count = out->image.dim[0];
    return CT_OK;
}

static ct_status push_list(const ct_exec *exec, int64_t count, ct_tensor *out)
{
    *out = ct_tensor1(NULL, CT_F32, count);
    return ct_exec_push(exec, out);
}

/* col_lse (N), in which this rank has all columns over its own rows, becomes complete: each rank
 * merges all parts of its own columns, and those go to all. */
static ct_status merge_columns(const ct_exec *exec, const gathered *all, const ct_tensor *col_lse)
{
    const int ranks = ct_comm_size(exec->device->comm);
    if (ranks == 1) return CT_OK;
    const size_t mark = ct_arena_mark(exec->activations);
    const ct_tensor sent = ct_tensor2(col_lse->data, CT_F32, ranks, all->rows);
    const ct_tensor own = ct_tensor_rows(col_lse, all->first, all->rows);
    ct_tensor parts = sent;
    CT_TRY(ct_exec_push(exec, &parts));
    CT_TRY(ct_exec_all_to_all(exec, &parts, &sent));
    CT_TRY(ct_op_clip_loss_merge(exec, &(ct_clip_loss_merge_args){.lse = own, .parts = parts}));
    CT_TRY(ct_exec_all_gather(exec, col_lse, &own));
    ct_arena_release(exec->activations, mark);
    return CT_OK;
}

static ct_status softmax(const ct_contrastive *loss, const ct_exec *exec,
                         const ct_contrastive_batch *batch, const gathered *all)
{
    ct_tensor row_lse, col_lse, target;
    CT_TRY(push_list(exec, all->count, &row_lse));
    CT_TRY(push_list(exec, all->count, &col_lse));
    CT_TRY(push_list(exec, all->rows, &target));
    const ct_tensor own_rows = ct_tensor_rows(&row_lse, all->first, all->rows);
    CT_TRY(ct_op_clip_loss_fwd(exec,
                               &(ct_clip_loss_fwd_args){.row_lse = own_rows,
                                                        .col_lse = col_lse,
                                                        .target = target,
                                                        .image = all->image,
                                                        .text = all->text,
                                                        .logit_scale = loss->logit_scale->value,
                                                        .photo_ids = all->photo_ids,
                                                        .first = all->first,
                                                        .same_image = loss->same_image,
                                                        .label_smoothing = loss->label_smoothing}));
    CT_TRY(merge_columns(exec, all, &col_lse));
    if (all->rows < all->count) CT_TRY(ct_exec_all_gather(exec, &row_lse, &own_rows));
    CT_TRY(ct_op_clip_loss_total(
        exec, &(ct_clip_loss_total_args){.loss = batch->loss,
                                         .row_lse = own_rows,
                                         .col_lse = ct_tensor_rows(&col_lse, all->first, all->rows),
                                         .target = target,
                                         .count = all->count}));
    return ct_op_clip_loss_bwd(exec,
                               &(ct_clip_loss_bwd_args){.dimage = batch->dimage,
                                                        .dtext = batch->dtext,
                                                        .dlogit_scale = loss->logit_scale->grad,
                                                        .image = all->image,
                                                        .text = all->text,
                                                        .logit_scale = loss->logit_scale->value,
                                                        .photo_ids = all->photo_ids,
                                                        .row_lse = row_lse,
                                                        .col_lse = col_lse,
                                                        .loss_scale = batch->loss_scale,
                                                        .first = all->first,
                                                        .same_image = loss->same_image,
                                                        .label_smoothing = loss->label_smoothing});
}

static ct_status sigmoid(const ct_contrastive *loss, const ct_exec *exec,
                         const ct_contrastive_batch *batch, const gathered *all)
{
    CT_TRY(ct_op_siglip_loss_fwd(exec,
                                 &(ct_siglip_loss_fwd_args){.loss = batch->loss,
                                                            .image = all->image,
                                                            .text = all->text,
                                                            .logit_scale = loss->logit_scale->value,
                                                            .logit_bias = loss->logit_bias->value,
                                                            .photo_ids = all->photo_ids,
                                                            .first = all->first,
                                                            .rows = all->rows,
                                                            .same_image = loss->same_image}));
    return ct_op_siglip_loss_bwd(exec,
                                 &(ct_siglip_loss_bwd_args){.dimage = batch->dimage,
                                                            .dtext = batch->dtext,
                                                            .dlogit_scale = loss->logit_scale->grad,
                                                            .dlogit_bias = loss->logit_bias->grad,
                                                            .image = all->image,
                                                            .text = all->text,
                                                            .logit_scale = loss->logit_scale->value,
                                                            .logit_bias = loss->logit_bias->value,
                                                            .photo_ids = all->photo_ids,
                                                            .loss_scale = batch->loss_scale,
                                                            .first = all->first,
                                                            .same_image = loss->same_image});
}

ct_status ct_contrastive_forward_backward(const ct_contrastive *loss, const ct_exec *exec,
                                          const ct_contrastive_batch *batch)
{
    const size_t mark = ct_arena_mark(exec->activations);
    const ct_param *last = loss->logit_bias ? loss->logit_bias : loss->logit_scale;
    gathered all;
    CT_TRY(gather_batch(exec, batch, &all));
    CT_TRY(loss->logit_bias ? sigmoid(loss, exec, batch, &all) : softmax(loss, exec, batch, &all));
    if (all.rows < all.count) CT_TRY(ct_exec_all_reduce(exec, &batch->loss));
    ct_arena_release(exec->activations, mark);
    return ct_gradients_done(exec, loss->logit_scale, last);
}
