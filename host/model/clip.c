#include "model/clip.h"

#include <math.h>
#include <stdlib.h>

#include "model/inputs.h"
#include "model/projection.h"
#include "model/resnet.h"

#define L2NORM_EPS 1e-12f /* torch.nn.functional.normalize's default */

enum {
    MAX_POSITIONS = 512, /* rows of distilbert-base's position table */
    IMAGE_DROPOUT_LAYER = 0,
    TEXT_DROPOUT_LAYER = 1,
    LOSS_SCALE_STATE = 2 /* scale, finite steps: see ct_grad_norm_args */
};

#define LOSS_SCALE_START 65536.0f

/* What one side (images or texts) hands from tower to loss and back; a row each. */
typedef struct branch {
    ct_tensor features, dfeatures;   /* (N, F) */
    ct_tensor projected;             /* (N, dim) */
    ct_tensor embedding, dembedding; /* (N, dim) */
    ct_tensor inv_norm;              /* (N) */
} branch;

struct ct_clip {
    ct_clip_limits limits;   /* of what is asked for */
    ct_clip_limits capacity; /* the same rounded up as inputs.h has it: what is planned for */
    const ct_config *config;
    ct_device *device;
    ct_params *params;
    ct_resnet *resnet;
    ct_distilbert *bert;
    ct_projection *image_projection, *text_projection;
    const ct_param *logit_scale;
    const ct_param *loss_scale; /* NULL: none is needed */

    void *memory;     /* of the activation stack */
    ct_arena stack;   /* loss | inputs | rows of the two branches | towers' activations */
    size_t stack_top; /* above the loss and the inputs, which outlive a step */
    ct_tensor loss;   /* (1) */
    ct_inputs inputs;
    bool staged; /* the inputs are those of a training batch */
};

/* ---- the passes ----------------------------------------------------------------------------- */

static ct_exec make_exec(ct_clip *clip, bool planning, bool training)
{
    return (ct_exec){.device = clip->device,
                     .activations = &clip->stack,
                     .planning = planning,
                     .training = training,
                     .seed = (uint64_t)clip->config->seed,
                     .step = clip->inputs.step};
}

static ct_status push_branch(const ct_clip *clip, const ct_exec *exec, int64_t count,
                             int64_t features, branch *out)
{
    const int64_t dim = clip->config->projection.dim;
    const ct_dtype dtype = clip->device->compute_dtype;
    out->features = out->dfeatures = ct_tensor2(NULL, dtype, count, features);
    out->projected = out->embedding = out->dembedding = ct_tensor2(NULL, dtype, count, dim);
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

static ct_status image_forward(const ct_clip *clip, const ct_exec *exec, const branch *b)
{
    const ct_tensor *pixels = &clip->inputs.pixels;
    ct_image_normalize_fwd_args normalize = {.x = *pixels, .y = *pixels};
    normalize.y.dtype = clip->device->compute_dtype;
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

static ct_status text_forward(const ct_clip *clip, const ct_exec *exec, const branch *b)
{
    CT_TRY(ct_distilbert_forward(clip->bert, exec, &clip->inputs.text, &b->features));
    return head_forward(clip->text_projection, exec, b);
}

static ct_status text_backward(const ct_clip *clip, const ct_exec *exec, const branch *b)
{
    CT_TRY(head_backward(clip->text_projection, exec, b));
    return ct_distilbert_backward(clip->bert, exec, &b->dfeatures);
}

/* The loss of the two branches' embeddings, and its gradient with respect to them. */
static ct_status loss_forward_backward(const ct_clip *clip, const ct_exec *exec,
                                       const branch *image, const branch *text)
{
    const size_t mark = ct_arena_mark(exec->activations);
    const ct_tensor *photo_ids = &clip->inputs.photo_ids;
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
    ct_clip_loss_bwd_args backward = {.dimage = image->dembedding,
                                      .dtext = text->dembedding,
                                      .dlogit_scale = clip->logit_scale->grad,
                                      .image = image->embedding,
                                      .text = text->embedding,
                                      .logit_scale = clip->logit_scale->value,
                                      .photo_ids = *photo_ids,
                                      .row_lse = row_lse,
                                      .col_lse = col_lse,
                                      .same_image = same_image};
    if (clip->loss_scale) backward.loss_scale = clip->loss_scale->value;
    CT_TRY(ct_op_clip_loss_bwd(exec, &backward));
    ct_arena_release(exec->activations, mark);
    return CT_OK;
}

static ct_status training_pass(const ct_clip *clip, const ct_exec *exec)
{
    const int64_t count = clip->inputs.photo_ids.dim[0];
    branch image, text;
    CT_TRY(push_image_branch(clip, exec, count, &image));
    CT_TRY(push_text_branch(clip, exec, count, &text));

    /* The stack grows by the image tower, then the text tower: backward goes the other way. */
    CT_TRY(image_forward(clip, exec, &image));
    CT_TRY(text_forward(clip, exec, &text));
    CT_TRY(loss_forward_backward(clip, exec, &image, &text));
    CT_TRY(text_backward(clip, exec, &text));
    return image_backward(clip, exec, &image);
}

/* *out = the embeddings in f32, which is what the host reads. */
static ct_status widen(const ct_exec *exec, const branch *b, ct_tensor *out)
{
    *out = b->embedding;
    if (out->dtype == CT_F32) return CT_OK;
    out->dtype = CT_F32;
    CT_TRY(ct_exec_push(exec, out));
    return ct_op_cast(exec, &(ct_cast_args){.y = *out, .x = b->embedding});
}

static ct_status image_pass(const ct_clip *clip, const ct_exec *exec, ct_tensor *embedding)
{
    branch image;
    CT_TRY(push_image_branch(clip, exec, clip->inputs.pixels.dim[0], &image));
    CT_TRY(image_forward(clip, exec, &image));
    return widen(exec, &image, embedding);
}

static ct_status text_pass(const ct_clip *clip, const ct_exec *exec, ct_tensor *embedding)
{
    branch text;
    CT_TRY(push_text_branch(clip, exec, clip->inputs.text.cu_seqlens.dim[0] - 1, &text));
    CT_TRY(text_forward(clip, exec, &text));
    return widen(exec, &text, embedding);
}

/* ---- construction --------------------------------------------------------------------------- */

static ct_status check_limits(const ct_clip_limits *limits)
{
    if (limits->batch < 1 || limits->tokens < limits->batch || limits->tokens > INT32_MAX)
        return ct_fail(CT_ERR_ARGUMENT, "a batch of %d with %lld tokens cannot be planned for",
                       limits->batch, (long long)limits->tokens);
    if (limits->max_seqlen < 1 || limits->max_seqlen > MAX_POSITIONS)
        return ct_fail(CT_ERR_ARGUMENT, "captions of %d tokens: expected 1 to %d",
                       limits->max_seqlen, MAX_POSITIONS);
    return CT_OK;
}

/* f16 holds little below 6e-8, where many gradients are: they are computed times a factor. */
static ct_status add_loss_scale(ct_clip *clip)
{
    const ct_param loss_scale = {.name = "loss_scale",
                                 .value = ct_tensor1(NULL, CT_F32, LOSS_SCALE_STATE),
                                 .group = CT_GROUP_HEAD,
                                 .buffer = true,
                                 .optional = true,
                                 .init = CT_INIT_CONSTANT,
                                 .max_value = INFINITY};
    if (clip->device->compute_dtype != CT_F16 || !clip->limits.training) return CT_OK;
    return ct_params_add(clip->params, &loss_scale, &clip->loss_scale);
}

static ct_status start_loss_scale(ct_clip *clip)
{
    static const float start[LOSS_SCALE_STATE] = {LOSS_SCALE_START, 0};
    if (!clip->loss_scale) return CT_OK;
    return ct_param_upload(clip->params, clip->loss_scale, &clip->loss_scale->value, start);
}

static ct_status build(ct_clip *clip, int32_t vocab_size)
{
    static const ct_activation activations[] = {
        [CT_TEXT_GELU] = CT_ACT_GELU, [CT_TEXT_GELU_TANH] = CT_ACT_GELU_TANH};
    const ct_config *config = clip->config;
    const ct_distilbert_config bert = {.vocab_size = vocab_size,
                                       .max_positions = MAX_POSITIONS,
                                       .width = config->text.width,
                                       .depth = config->text.depth,
                                       .heads = config->text.heads,
                                       .ffn = config->text.ffn,
                                       .dropout = (float)config->text.dropout,
                                       .attention_dropout = (float)config->text.attention_dropout,
                                       .activation = activations[config->text.activation]};
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
    CT_TRY(ct_params_add(clip->params, &logit_scale, &clip->logit_scale));
    return add_loss_scale(clip);
}

/* Lays the stack over `memory` (NULL: only measures), with the loss and the inputs at its bottom.
 */
static ct_status start_stack(ct_clip *clip, void *memory, size_t bytes)
{
    ct_arena_init(&clip->stack, memory, bytes);
    clip->loss = ct_tensor1(NULL, CT_F32, 1);
    CT_TRY(ct_arena_push(&clip->stack, ct_tensor_bytes(&clip->loss), &clip->loss.data));
    CT_TRY(ct_inputs_place(&clip->inputs, &clip->capacity, clip->config->image.size, &clip->stack));
    clip->stack_top = ct_arena_mark(&clip->stack);
    return CT_OK;
}

/* Announces every pass at its largest and leaves in the stack's peak how much they need. */
static ct_status plan(ct_clip *clip)
{
    ct_tensor unused;
    CT_TRY(start_stack(clip, NULL, 0));
    if (clip->limits.training) {
        const ct_exec training = make_exec(clip, true, true);
        CT_TRY(training_pass(clip, &training));
        ct_arena_release(&clip->stack, clip->stack_top);
    }
    const ct_exec evaluation = make_exec(clip, true, false);
    CT_TRY(image_pass(clip, &evaluation, &unused));
    ct_arena_release(&clip->stack, clip->stack_top);
    CT_TRY(text_pass(clip, &evaluation, &unused));
    return clip->device->backend->commit(clip->device);
}

static ct_status allocate(ct_clip *clip)
{
    CT_TRY(ct_params_allocate(clip->params, clip->device, (uint64_t)clip->config->seed,
                              clip->limits.training));
    CT_TRY(start_loss_scale(clip));
    CT_TRY(plan(clip));
    const size_t bytes = clip->stack.peak_bytes;
    CT_TRY(clip->device->backend->alloc(clip->device, bytes, "activations", &clip->memory));
    return start_stack(clip, clip->memory, bytes);
}

ct_status ct_clip_create(const ct_config *config, int32_t vocab_size, ct_device *device,
                         const ct_clip_limits *limits, ct_clip **out)
{
    CT_TRY(check_limits(limits));
    ct_clip *clip;
    CT_TRY(ct_alloc(1, sizeof *clip, "the model", &clip));
    clip->limits = *limits;
    clip->capacity = ct_inputs_capacity(device, limits);
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
static ct_exec begin(ct_clip *clip, bool training)
{
    ct_arena_release(&clip->stack, clip->stack_top);
    return make_exec(clip, false, training);
}

ct_status ct_clip_stage(ct_clip *clip, const ct_clip_input *input, int64_t step)
{
    if (!clip->limits.training)
        return ct_fail(CT_ERR_ARGUMENT, "the model was created for evaluation only");
    clip->staged = false;
    CT_TRY(check_count(clip, input));
    CT_TRY(check_texts(clip, input));
    CT_TRY(ct_inputs_upload_images(&clip->inputs, clip->device, input));
    CT_TRY(ct_inputs_upload_texts(&clip->inputs, clip->device, &clip->capacity, input));
    CT_TRY(ct_inputs_upload_training(&clip->inputs, clip->device, input, step));
    clip->staged = true;
    return CT_OK;
}

/* tokens < 2^31, max_seqlen <= 512, count <= 2^20 (train.batch_size). */
uint64_t ct_clip_staged_key(const ct_clip *clip)
{
    const ct_text_input *text = &clip->inputs.text;
    return (uint64_t)clip->inputs.photo_ids.dim[0] << 41 | (uint64_t)text->max_seqlen << 31 |
           (uint64_t)text->ids.dim[0];
}

ct_status ct_clip_forward_backward(ct_clip *clip)
{
    if (!clip->staged) return ct_fail(CT_ERR_INTERNAL, "a training step without a staged batch");
    const ct_exec exec = begin(clip, true);
    CT_TRY(ct_params_zero_grads(clip->params));
    return training_pass(clip, &exec);
}

ct_status ct_clip_loss(ct_clip *clip, float *loss)
{
    return clip->device->backend->download(clip->device, loss, clip->loss.data, sizeof *loss);
}

static ct_status download(const ct_clip *clip, const ct_tensor *embedding, float *out)
{
    return clip->device->backend->download(clip->device, out, embedding->data,
                                           ct_tensor_bytes(embedding));
}

ct_status ct_clip_encode_images(ct_clip *clip, const ct_clip_input *input, float *out)
{
    ct_tensor embedding;
    clip->staged = false;
    CT_TRY(check_count(clip, input));
    CT_TRY(ct_inputs_upload_images(&clip->inputs, clip->device, input));
    const ct_exec exec = begin(clip, false);
    CT_TRY(image_pass(clip, &exec, &embedding));
    return download(clip, &embedding, out);
}

ct_status ct_clip_encode_texts(ct_clip *clip, const ct_clip_input *input, float *out)
{
    ct_tensor embedding;
    clip->staged = false;
    CT_TRY(check_count(clip, input));
    CT_TRY(check_texts(clip, input));
    CT_TRY(ct_inputs_upload_texts(&clip->inputs, clip->device, &clip->capacity, input));
    const ct_exec exec = begin(clip, false);
    CT_TRY(text_pass(clip, &exec, &embedding));
    return download(clip, &embedding, out);
}
