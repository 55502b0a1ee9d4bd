#include "model/clip.h"

#include <math.h>
#include <stdlib.h>

#include "model/distilbert.h"
#include "model/projection.h"
#include "model/resnet.h"

#define L2NORM_EPS 1e-12f /* torch.nn.functional.normalize's default */

enum {
    MAX_POSITIONS = 512, /* rows of distilbert-base's position table */
    IMAGE_DROPOUT_LAYER = 0,
    TEXT_DROPOUT_LAYER = 1
};

/* What one side (images or texts) hands from tower to loss and back; a row each. */
typedef struct branch {
    ct_tensor features, dfeatures;   /* (N, F) */
    ct_tensor projected;             /* (N, dim) */
    ct_tensor embedding, dembedding; /* (N, dim) */
    ct_tensor inv_norm;              /* (N) */
} branch;

struct ct_clip {
    ct_clip_limits limits;
    const ct_config *config;
    ct_device *device;
    ct_params *params;
    ct_resnet *resnet;
    ct_distilbert *bert;
    ct_projection *image_projection, *text_projection;
    const ct_param *logit_scale;

    void *memory;     /* of the activation stack */
    ct_arena stack;   /* loss | staged inputs | rows of the two branches | towers' activations */
    size_t stack_top; /* above the loss, which outlives a step */
    ct_tensor loss;   /* (1) */
};

/* ---- the passes ----------------------------------------------------------------------------- */

static ct_exec make_exec(ct_clip *clip, bool planning, bool training, int64_t step)
{
    return (ct_exec){.device = clip->device,
                     .activations = &clip->stack,
                     .planning = planning,
                     .training = training,
                     .seed = (uint64_t)clip->config->seed,
                     .step = step};
}

/* Pushes `tensor` and fills it from the host. */
static ct_status stage(const ct_exec *exec, ct_tensor *tensor, const void *host)
{
    CT_TRY(ct_exec_push(exec, tensor));
    if (exec->planning) return CT_OK;
    return exec->device->backend->upload(exec->device, tensor->data, host, ct_tensor_bytes(tensor));
}

static ct_status stage_images(const ct_clip *clip, const ct_exec *exec, const ct_clip_input *input,
                              ct_tensor *pixels)
{
    const int64_t size = clip->config->image.size;
    *pixels = ct_tensor4(NULL, CT_U8, input->count, size, size, 3);
    return stage(exec, pixels, input->images);
}

static ct_status stage_texts(const ct_exec *exec, const ct_clip_input *input, ct_text_input *text)
{
    *text = (ct_text_input){.ids = ct_tensor1(NULL, CT_I32, input->total_tokens),
                            .positions = ct_tensor1(NULL, CT_I32, input->total_tokens),
                            .cu_seqlens = ct_tensor1(NULL, CT_I32, input->count + 1),
                            .max_seqlen = input->max_seqlen};
    CT_TRY(stage(exec, &text->ids, input->tokens));
    CT_TRY(stage(exec, &text->positions, input->positions));
    return stage(exec, &text->cu_seqlens, input->cu_seqlens);
}

static ct_status push_branch(const ct_clip *clip, const ct_exec *exec, int64_t count,
                             int64_t features, branch *out)
{
    const int64_t dim = clip->config->projection.dim;
    out->features = out->dfeatures = ct_tensor2(NULL, CT_F32, count, features);
    out->projected = out->embedding = out->dembedding = ct_tensor2(NULL, CT_F32, count, dim);
    out->inv_norm = ct_tensor1(NULL, CT_F32, count);
    CT_TRY(ct_exec_push(exec, &out->features));
    CT_TRY(ct_exec_push(exec, &out->projected));
    CT_TRY(ct_exec_push(exec, &out->embedding));
    CT_TRY(ct_exec_push(exec, &out->inv_norm));
    if (!exec->training) return CT_OK;
    CT_TRY(ct_exec_push(exec, &out->dfeatures));
    return ct_exec_push(exec, &out->dembedding);
}

static ct_status push_image_branch(const ct_clip *clip, const ct_exec *exec, int64_t count,
                                   branch *out)
{
    return push_branch(clip, exec, count, ct_resnet_features(clip->resnet), out);
}

static ct_status push_text_branch(const ct_clip *clip, const ct_exec *exec, int64_t count,
                                  branch *out)
{
    return push_branch(clip, exec, count, clip->config->text.width, out);
}

/* The branch from its features to its embedding, and back. */
static ct_status head_forward(ct_projection *projection, const ct_exec *exec, const branch *b)
{
    CT_TRY(ct_projection_forward(projection, exec, &b->features, &b->projected));
    return ct_op_l2norm_fwd(exec, &(ct_l2norm_fwd_args){.y = b->embedding,
                                                        .inv_norm = b->inv_norm,
                                                        .x = b->projected,
                                                        .eps = L2NORM_EPS});
}

static ct_status head_backward(ct_projection *projection, const ct_exec *exec, const branch *b)
{
    CT_TRY(ct_op_l2norm_bwd(exec, &(ct_l2norm_bwd_args){.dx = b->dembedding,
                                                        .dy = b->dembedding,
                                                        .y = b->embedding,
                                                        .inv_norm = b->inv_norm}));
    return ct_projection_backward(projection, exec, &b->dfeatures, &b->dembedding);
}

static ct_status image_forward(const ct_clip *clip, const ct_exec *exec, const ct_tensor *pixels,
                               const branch *b)
{
    ct_image_normalize_fwd_args normalize = {.x = *pixels, .y = *pixels};
    normalize.y.dtype = CT_F32;
    for (int c = 0; c < 3; c++) {
        normalize.mean[c] = (float)clip->config->image.mean[c];
        normalize.std[c] = (float)clip->config->image.std[c];
    }
    CT_TRY(ct_exec_push(exec, &normalize.y));
    CT_TRY(ct_op_image_normalize_fwd(exec, &normalize));
    CT_TRY(ct_resnet_forward(clip->resnet, exec, &normalize.y, &b->features));
    return head_forward(clip->image_projection, exec, b);
}

static ct_status image_backward(const ct_clip *clip, const ct_exec *exec, const branch *b)
{
    CT_TRY(head_backward(clip->image_projection, exec, b));
    return ct_resnet_backward(clip->resnet, exec, &b->dfeatures);
}

static ct_status text_forward(const ct_clip *clip, const ct_exec *exec, const ct_text_input *text,
                              const branch *b)
{
    CT_TRY(ct_distilbert_forward(clip->bert, exec, text, &b->features));
    return head_forward(clip->text_projection, exec, b);
}

static ct_status text_backward(const ct_clip *clip, const ct_exec *exec, const branch *b)
{
    CT_TRY(head_backward(clip->text_projection, exec, b));
    return ct_distilbert_backward(clip->bert, exec, &b->dfeatures);
}

/* The loss of the two branches' embeddings, and its gradient with respect to them. */
static ct_status loss_forward_backward(const ct_clip *clip, const ct_exec *exec,
                                       const ct_tensor *photo_ids, const branch *image,
                                       const branch *text)
{
    const size_t mark = ct_arena_mark(exec->activations);
    const ct_same_image same_image = (ct_same_image)clip->config->loss.same_image;
    ct_tensor row_lse = ct_tensor1(NULL, CT_F32, photo_ids->dim[0]), col_lse = row_lse;
    CT_TRY(ct_exec_push(exec, &row_lse));
    CT_TRY(ct_exec_push(exec, &col_lse));
    CT_TRY(
        ct_op_clip_loss_fwd(exec, &(ct_clip_loss_fwd_args){.loss = clip->loss,
                                                           .row_lse = row_lse,
                                                           .col_lse = col_lse,
                                                           .image = image->embedding,
                                                           .text = text->embedding,
                                                           .logit_scale = clip->logit_scale->value,
                                                           .photo_ids = *photo_ids,
                                                           .same_image = same_image}));
    CT_TRY(
        ct_op_clip_loss_bwd(exec, &(ct_clip_loss_bwd_args){.dimage = image->dembedding,
                                                           .dtext = text->dembedding,
                                                           .dlogit_scale = clip->logit_scale->grad,
                                                           .image = image->embedding,
                                                           .text = text->embedding,
                                                           .logit_scale = clip->logit_scale->value,
                                                           .photo_ids = *photo_ids,
                                                           .row_lse = row_lse,
                                                           .col_lse = col_lse,
                                                           .same_image = same_image}));
    ct_arena_release(exec->activations, mark);
    return CT_OK;
}

static ct_status training_pass(const ct_clip *clip, const ct_exec *exec, const ct_clip_input *input)
{
    ct_tensor pixels, photo_ids = ct_tensor1(NULL, CT_I32, input->count);
    ct_text_input texts;
    branch image, text;
    CT_TRY(stage_images(clip, exec, input, &pixels));
    CT_TRY(stage_texts(exec, input, &texts));
    CT_TRY(stage(exec, &photo_ids, input->photo_ids));
    CT_TRY(push_image_branch(clip, exec, input->count, &image));
    CT_TRY(push_text_branch(clip, exec, input->count, &text));

    /* The stack grows by the image tower, then the text tower: backward goes the other way. */
    CT_TRY(image_forward(clip, exec, &pixels, &image));
    CT_TRY(text_forward(clip, exec, &texts, &text));
    CT_TRY(loss_forward_backward(clip, exec, &photo_ids, &image, &text));
    CT_TRY(text_backward(clip, exec, &text));
    return image_backward(clip, exec, &image);
}

static ct_status image_pass(const ct_clip *clip, const ct_exec *exec, const ct_clip_input *input,
                            branch *image)
{
    ct_tensor pixels;
    CT_TRY(stage_images(clip, exec, input, &pixels));
    CT_TRY(push_image_branch(clip, exec, input->count, image));
    return image_forward(clip, exec, &pixels, image);
}

static ct_status text_pass(const ct_clip *clip, const ct_exec *exec, const ct_clip_input *input,
                           branch *text)
{
    ct_text_input texts;
    CT_TRY(stage_texts(exec, input, &texts));
    CT_TRY(push_text_branch(clip, exec, input->count, text));
    return text_forward(clip, exec, &texts, text);
}

/* ---- construction --------------------------------------------------------------------------- */

static ct_status check_limits(const ct_config *config, const ct_device *device,
                              const ct_clip_limits *limits)
{
    if (config->precision != CT_PRECISION_F32)
        return ct_fail(CT_ERR_UNSUPPORTED, "precision: bf16 is not for the %s device, use f32",
                       device->backend->name);
    if (limits->batch < 1 || limits->tokens < limits->batch || limits->tokens > INT32_MAX)
        return ct_fail(CT_ERR_ARGUMENT, "a batch of %d with %lld tokens cannot be planned for",
                       limits->batch, (long long)limits->tokens);
    if (limits->max_seqlen < 1 || limits->max_seqlen > MAX_POSITIONS)
        return ct_fail(CT_ERR_ARGUMENT, "captions of %d tokens: expected 1 to %d",
                       limits->max_seqlen, MAX_POSITIONS);
    return CT_OK;
}

static ct_status build(ct_clip *clip, int32_t vocab_size)
{
    const ct_config *config = clip->config;
    const ct_distilbert_config bert = {.vocab_size = vocab_size,
                                       .max_positions = MAX_POSITIONS,
                                       .width = config->text.width,
                                       .depth = config->text.depth,
                                       .heads = config->text.heads,
                                       .ffn = config->text.ffn,
                                       .dropout = (float)config->text.dropout,
                                       .attention_dropout = (float)config->text.attention_dropout};
    const ct_projection_kind kind = config->projection.kind;
    const int64_t dim = config->projection.dim;
    const float dropout = (float)config->projection.dropout;
    const ct_param logit_scale = {.name = "logit_scale",
                                  .value = ct_tensor1(NULL, CT_F32, 1),
                                  .group = CT_GROUP_HEAD,
                                  .init = CT_INIT_CONSTANT,
                                  .init_scale = (float)log(config->loss.logit_scale_init),
                                  .max_value = (float)log(config->loss.logit_scale_max)};
    CT_TRY(ct_params_create(&clip->params));
    CT_TRY(ct_resnet_create(clip->params, config->image.encoder, &clip->resnet));
    CT_TRY(ct_distilbert_create(clip->params, &bert, &clip->bert));
    CT_TRY(ct_projection_create(clip->params, "image_projection.", kind,
                                ct_resnet_features(clip->resnet), dim, dropout, IMAGE_DROPOUT_LAYER,
                                &clip->image_projection));
    CT_TRY(ct_projection_create(clip->params, "text_projection.", kind, bert.width, dim, dropout,
                                TEXT_DROPOUT_LAYER, &clip->text_projection));
    return ct_params_add(clip->params, &logit_scale, &clip->logit_scale);
}

/* Lays the stack over `memory` (NULL: only measures), with the loss at its bottom. */
static ct_status start_stack(ct_clip *clip, void *memory, size_t bytes)
{
    ct_arena_init(&clip->stack, memory, bytes);
    clip->loss = ct_tensor1(NULL, CT_F32, 1);
    CT_TRY(ct_arena_push(&clip->stack, ct_tensor_bytes(&clip->loss), &clip->loss.data));
    clip->stack_top = ct_arena_mark(&clip->stack);
    return CT_OK;
}

/* Announces every pass at its largest and leaves in the stack's peak how much they need. */
static ct_status plan(ct_clip *clip)
{
    const ct_clip_input largest = {.count = clip->limits.batch,
                                   .total_tokens = (int32_t)clip->limits.tokens,
                                   .max_seqlen = clip->limits.max_seqlen};
    branch unused;
    CT_TRY(start_stack(clip, NULL, 0));
    if (clip->limits.training) {
        const ct_exec training = make_exec(clip, true, true, 0);
        CT_TRY(training_pass(clip, &training, &largest));
        ct_arena_release(&clip->stack, clip->stack_top);
    }
    const ct_exec evaluation = make_exec(clip, true, false, 0);
    CT_TRY(image_pass(clip, &evaluation, &largest, &unused));
    ct_arena_release(&clip->stack, clip->stack_top);
    CT_TRY(text_pass(clip, &evaluation, &largest, &unused));
    return clip->device->backend->commit(clip->device);
}

static ct_status allocate(ct_clip *clip)
{
    CT_TRY(ct_params_allocate(clip->params, clip->device, (uint64_t)clip->config->seed,
                              clip->limits.training));
    CT_TRY(plan(clip));
    const size_t bytes = clip->stack.peak_bytes;
    CT_TRY(clip->device->backend->alloc(clip->device, bytes, "activations", &clip->memory));
    return start_stack(clip, clip->memory, bytes);
}

ct_status ct_clip_create(const ct_config *config, int32_t vocab_size, ct_device *device,
                         const ct_clip_limits *limits, ct_clip **out)
{
    CT_TRY(check_limits(config, device, limits));
    ct_clip *clip;
    CT_TRY(ct_alloc(1, sizeof *clip, "the model", &clip));
    clip->limits = *limits;
    clip->config = config;
    clip->device = device;
    ct_status status = build(clip, vocab_size);
    if (status == CT_OK) status = allocate(clip);
    if (status != CT_OK) {
        ct_clip_destroy(clip);
        return status;
    }
    *out = clip;
    return CT_OK;
}

void ct_clip_destroy(ct_clip *clip)
{
    if (!clip) return;
    clip->device->backend->free(clip->device, clip->memory);
    ct_projection_destroy(clip->text_projection);
    ct_projection_destroy(clip->image_projection);
    ct_distilbert_destroy(clip->bert);
    ct_resnet_destroy(clip->resnet);
    ct_params_destroy(clip->params);
    free(clip);
}

ct_params *ct_clip_params(ct_clip *clip)
{
    return clip->params;
}

ct_clip_memory ct_clip_memory_use(const ct_clip *clip)
{
    return (ct_clip_memory){.parameter_bytes = ct_params_bytes(clip->params),
                            .activation_bytes = clip->stack.capacity_bytes,
                            .activation_peak_bytes = clip->stack.peak_bytes,
                            .workspace_bytes = clip->device->workspace_bytes};
}

/* ---- calls ---------------------------------------------------------------------------------- */

static ct_status check_count(const ct_clip *clip, const ct_clip_input *input)
{
    if (input->count < 1 || input->count > clip->limits.batch)
        return ct_fail(CT_ERR_ARGUMENT, "batch of %d, the model was planned for 1 to %d",
                       input->count, clip->limits.batch);
    return CT_OK;
}

static ct_status check_texts(const ct_clip *clip, const ct_clip_input *input)
{
    if (input->total_tokens < input->count || input->total_tokens > clip->limits.tokens)
        return ct_fail(CT_ERR_ARGUMENT, "%d tokens in %d captions, the model was planned for %lld",
                       input->total_tokens, input->count, (long long)clip->limits.tokens);
    if (input->max_seqlen < 1 || input->max_seqlen > clip->limits.max_seqlen)
        return ct_fail(CT_ERR_ARGUMENT, "a caption of %d tokens, the model was planned for 1 to %d",
                       input->max_seqlen, clip->limits.max_seqlen);
    return CT_OK;
}

/* Starts a pass: a failed one may have left the stack anywhere. */
static ct_exec begin(ct_clip *clip, bool training, int64_t step)
{
    ct_arena_release(&clip->stack, clip->stack_top);
    return make_exec(clip, false, training, step);
}

ct_status ct_clip_forward_backward(ct_clip *clip, const ct_clip_input *input, int64_t step)
{
    if (!clip->limits.training)
        return ct_fail(CT_ERR_ARGUMENT, "the model was created for evaluation only");
    CT_TRY(check_count(clip, input));
    CT_TRY(check_texts(clip, input));
    const ct_exec exec = begin(clip, true, step);
    CT_TRY(ct_params_zero_grads(clip->params));
    return training_pass(clip, &exec, input);
}

ct_status ct_clip_loss(ct_clip *clip, float *loss)
{
    return clip->device->backend->download(clip->device, loss, clip->loss.data, sizeof *loss);
}

static ct_status download_embedding(const ct_clip *clip, const branch *b, float *out)
{
    return clip->device->backend->download(clip->device, out, b->embedding.data,
                                           ct_tensor_bytes(&b->embedding));
}

ct_status ct_clip_encode_images(ct_clip *clip, const ct_clip_input *input, float *out)
{
    CT_TRY(check_count(clip, input));
    const ct_exec exec = begin(clip, false, 0);
    branch image;
    CT_TRY(image_pass(clip, &exec, input, &image));
    return download_embedding(clip, &image, out);
}

ct_status ct_clip_encode_texts(ct_clip *clip, const ct_clip_input *input, float *out)
{
    CT_TRY(check_count(clip, input));
    CT_TRY(check_texts(clip, input));
    const ct_exec exec = begin(clip, false, 0);
    branch text;
    CT_TRY(text_pass(clip, &exec, input, &text));
    return download_embedding(clip, &text, out);
}
