#include "model/contrastive.h"

#include <math.h>

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

static ct_status softmax(const ct_contrastive *loss, const ct_exec *exec,
                         const ct_contrastive_batch *batch)
{
    const int64_t count = batch->image.dim[0];
    ct_clip_loss_fwd_args forward = {.row_lse = ct_tensor1(NULL, CT_F32, count),
                                     .col_lse = ct_tensor1(NULL, CT_F32, count),
                                     .target = ct_tensor1(NULL, CT_F32, count),
                                     .image = batch->image,
                                     .text = batch->text,
                                     .logit_scale = loss->logit_scale->value,
                                     .photo_ids = batch->photo_ids,
                                     .same_image = loss->same_image,
                                     .label_smoothing = loss->label_smoothing};
    CT_TRY(ct_exec_push(exec, &forward.row_lse));
    CT_TRY(ct_exec_push(exec, &forward.col_lse));
    CT_TRY(ct_exec_push(exec, &forward.target));
    CT_TRY(ct_op_clip_loss_fwd(exec, &forward));
    CT_TRY(ct_op_clip_loss_total(exec, &(ct_clip_loss_total_args){.loss = batch->loss,
                                                                  .row_lse = forward.row_lse,
                                                                  .col_lse = forward.col_lse,
                                                                  .target = forward.target,
                                                                  .count = count}));
    return ct_op_clip_loss_bwd(exec,
                               &(ct_clip_loss_bwd_args){.dimage = batch->dimage,
                                                        .dtext = batch->dtext,
                                                        .dlogit_scale = loss->logit_scale->grad,
                                                        .image = batch->image,
                                                        .text = batch->text,
                                                        .logit_scale = loss->logit_scale->value,
                                                        .photo_ids = batch->photo_ids,
                                                        .row_lse = forward.row_lse,
                                                        .col_lse = forward.col_lse,
                                                        .loss_scale = batch->loss_scale,
                                                        .same_image = loss->same_image,
                                                        .label_smoothing = loss->label_smoothing});
}

static ct_status sigmoid(const ct_contrastive *loss, const ct_exec *exec,
                         const ct_contrastive_batch *batch)
{
    CT_TRY(ct_op_siglip_loss_fwd(exec,
                                 &(ct_siglip_loss_fwd_args){.loss = batch->loss,
                                                            .image = batch->image,
                                                            .text = batch->text,
                                                            .logit_scale = loss->logit_scale->value,
                                                            .logit_bias = loss->logit_bias->value,
                                                            .photo_ids = batch->photo_ids,
                                                            .rows = batch->image.dim[0],
                                                            .same_image = loss->same_image}));
    return ct_op_siglip_loss_bwd(exec,
                                 &(ct_siglip_loss_bwd_args){.dimage = batch->dimage,
                                                            .dtext = batch->dtext,
                                                            .dlogit_scale = loss->logit_scale->grad,
                                                            .dlogit_bias = loss->logit_bias->grad,
                                                            .image = batch->image,
                                                            .text = batch->text,
                                                            .logit_scale = loss->logit_scale->value,
                                                            .logit_bias = loss->logit_bias->value,
                                                            .photo_ids = batch->photo_ids,
                                                            .loss_scale = batch->loss_scale,
                                                            .same_image = loss->same_image});
}

ct_status ct_contrastive_forward_backward(const ct_contrastive *loss, const ct_exec *exec,
                                          const ct_contrastive_batch *batch)
{
    const size_t mark = ct_arena_mark(exec->activations);
    CT_TRY(loss->logit_bias ? sigmoid(loss, exec, batch) : softmax(loss, exec, batch));
    ct_arena_release(exec->activations, mark);
    return CT_OK;
}
