#include "model/clip.h"

#include <math.h>
#include <stdlib.h>

#include "model/contrastive.h"
#include "model/image_tower.h"
#include "model/inputs.h"
#include "model/projection.h"
#include "model/reducer.h"

#define L2NORM_EPS 1e-12f /* torch.nn.functional.normalize's default */

enum {
    MAX_POSITIONS = 512, /* rows of distilbert-base's position table */
    IMAGE_DROPOUT_LAYER = 0,
    TEXT_DROPOUT_LAYER = 1,
    LOSS_SCALE_STATE = 2 /* scale, finite steps: see ct_grad_norm_args */
};

#define LOSS_SCALE_START 65536.0f

/* Embeddings of a whole batch, or of a micro-batch's rows, and the loss's gradient. */
typedef struct embeddings {
    ct_tensor value, grad; /* (N, dim); grad in training only */
} embeddings;

/* What one side (images or texts) hands from tower to loss and back; a row each. */
typedef struct branch {
    ct_tensor features, dfeatures; /* (N, F) */
    ct_tensor projected;           /* (N, dim) */
    ct_tensor inv_norm;            /* (N) */
    embeddings embedding;
} branch;

struct ct_clip {
    ct_clip_limits limits;
    int32_t pass; /* most pairs that go through a tower at once */
    const ct_config *config;
    ct_device *device;
    ct_params *params;
    ct_image_tower *image_tower;
    ct_distilbert *bert;
    ct_projection *image_projection, *text_projection;
    ct_contrastive contrastive;
    const ct_param *loss_scale; /* NULL: none is needed */
    ct_reducer *reducer;        /* NULL: one rank */
    ct_tensor running;          /* running statistics that ranks share; absent: none, or one rank */

    void *memory;     /* of the activation stack */
    ct_arena stack;   /* loss | inputs | embeddings | rows of the branches | towers' activations */
    size_t stack_top; /* above the loss and the inputs, which outlive a step */
    ct_tensor loss;   /* (1) */
    ct_inputs inputs;
    bool staged; /* the inputs are those of a training batch */
};

/* ---- the passes ----------------------------------------------------------------------------- */

/* Micro-batches are numbered through all ranks, so that no two have the same dropout masks, and R
 * ranks have those of one rank with micro-batches as large as a rank's batch. */
static ct_exec make_exec(ct_clip *clip, bool planning, bool training)
{
    const ct_comm *comm = clip->device->comm;
    const int32_t micros = ct_inputs_micro_count(&clip->inputs, clip->inputs.photo_ids.dim[0]);
    return (ct_exec){.device = clip->device,
                     .activations = &clip->stack,
                     .planning = planning,
                     .training = training,
                     .seed = (uint64_t)clip->config->seed,
                     .micro_before = training ? ct_comm_rank(comm) * micros : 0,
                     .sync_batchnorm = comm && clip->config->distributed.sync_bn,
                     .step = clip->inputs.step};
}

static ct_status push_embeddings(const ct_clip *clip, const ct_exec *exec, int64_t count,
                                 embeddings *out)
{
    *out = (embeddings){.value = ct_tensor2(NULL, clip->device->compute_dtype, count,
                                            clip->config->projection.dim)};
    CT_TRY(ct_exec_push(exec, &out->value));
    if (!exec->training) return CT_OK;
    out->grad = out->value;
    return ct_exec_push(exec, &out->grad);
}

static embeddings rows_of(const embeddings *whole, int64_t first, int64_t count)
{
    embeddings rows = {.value = ct_tensor_rows(&whole->value, first, count)};
    if (ct_tensor_present(&whole->grad)) rows.grad = ct_tensor_rows(&whole->grad, first, count);
    return rows;
}

/* `features`: how many there are of a row. */
static ct_status push_branch(const ct_exec *exec, const embeddings *embedding, int64_t features,
                             branch *out)
{
    const ct_tensor *value = &embedding->value;
    *out = (branch){.embedding = *embedding, .projected = *value};
    out->features = out->dfeatures = ct_tensor2(NULL, value->dtype, value->dim[0], features);
    out->inv_norm = ct_tensor1(NULL, CT_F32, value->dim[0]);
    CT_TRY(ct_exec_push(exec, &out->features));
    CT_TRY(ct_exec_push(exec, &out->projected));
    CT_TRY(ct_exec_push(exec, &out->inv_norm));
    return exec->training ? ct_exec_push(exec, &out->dfeatures) : CT_OK;
}

/* The branch from its features to its embedding, and back. */
static ct_status head_forward(ct_projection *projection, const ct_exec *exec, const branch *b)
{
    CT_TRY(ct_projection_forward(projection, exec, &b->features, &b->projected));
    return ct_op_l2norm_fwd(exec, &(ct_l2norm_fwd_args){.y = b->embedding.value,
                                                        .inv_norm = b->inv_norm,
                                                        .x = b->projected,
                                                        .eps = L2NORM_EPS});
}

static ct_status head_backward(ct_projection *projection, const ct_exec *exec, const branch *b)
{
    CT_TRY(ct_op_l2norm_bwd(exec, &(ct_l2norm_bwd_args){.dx = b->embedding.grad,
                                                        .dy = b->embedding.grad,
                                                        .y = b->embedding.value,
                                                        .inv_norm = b->inv_norm}));
    return ct_projection_backward(projection, exec, &b->dfeatures, &b->embedding.grad);
}

/* Of the micro-batch that exec names, into these rows of the batch's embeddings. */
static ct_status image_forward(const ct_clip *clip, const ct_exec *exec, const embeddings *rows,
                               branch *b)
{
    const ct_tensor pixels = ct_inputs_pixels(&clip->inputs, exec->micro);
    ct_image_normalize_fwd_args normalize = {.x = pixels, .y = pixels};
    normalize.y.dtype = clip->device->compute_dtype;
    for (int c = 0; c < 3; c++) {
        normalize.mean[c] = (float)clip->config->image.mean[c];
        normalize.std[c] = (float)clip->config->image.std[c];
    }
    CT_TRY(push_branch(exec, rows, ct_image_tower_features(clip->image_tower), b));
    CT_TRY(ct_exec_push(exec, &normalize.y));
    CT_TRY(ct_op_image_normalize_fwd(exec, &normalize));
    CT_TRY(ct_image_tower_forward(clip->image_tower, exec, &normalize.y, &b->features));
    return head_forward(clip->image_projection, exec, b);
}

static ct_status image_backward(const ct_clip *clip, const ct_exec *exec, const branch *b)
{
    CT_TRY(head_backward(clip->image_projection, exec, b));
    return ct_image_tower_backward(clip->image_tower, exec, &b->dfeatures);
}

static ct_status text_forward(const ct_clip *clip, const ct_exec *exec, const embeddings *rows,
                              branch *b)
{
    const ct_text_input texts = ct_inputs_text(&clip->inputs, exec->micro);
    CT_TRY(push_branch(exec, rows, clip->config->text.width, b));
    CT_TRY(ct_distilbert_forward(clip->bert, exec, &texts, &b->features));
    return head_forward(clip->text_projection, exec, b);
}

static ct_status text_backward(const ct_clip *clip, const ct_exec *exec, const branch *b)
{
    CT_TRY(head_backward(clip->text_projection, exec, b));
    return ct_distilbert_backward(clip->bert, exec, &b->dfeatures);
}

/* The loss of the batch's embeddings, and its gradient with respect to them. */
static ct_status loss_pass(const ct_clip *clip, const ct_exec *exec, const embeddings *image,
                           const embeddings *text)
{
    ct_contrastive_batch batch = {.loss = clip->loss,
                                  .dimage = image->grad,
                                  .dtext = text->grad,
                                  .image = image->value,
                                  .text = text->value,
                                  .photo_ids = clip->inputs.photo_ids};
    if (clip->loss_scale) batch.loss_scale = clip->loss_scale->value;
    return ct_contrastive_forward_backward(&clip->contrastive, exec, &batch);
}

typedef ct_status forward_call(const ct_clip *, const ct_exec *, const embeddings *, branch *);
typedef ct_status backward_call(const ct_clip *, const ct_exec *, const branch *);

/* One side's tower, a micro-batch at a time; backward NULL: what it would need is dropped. */
static ct_status micro_passes(const ct_clip *clip, const ct_exec *exec, const embeddings *whole,
                              forward_call *forward, backward_call *backward)
{
    const int64_t count = whole->value.dim[0];
    const int32_t micros = ct_inputs_micro_count(&clip->inputs, count);
    const size_t mark = ct_arena_mark(exec->activations);
    ct_exec micro = *exec;
    micro.repeated = backward != NULL;
    for (; micro.micro < micros; micro.micro++) {
        micro.reducer = micro.micro + 1 < micros ? NULL : exec->reducer; /* gradients are partial */
        const embeddings rows = rows_of(whole, (int64_t)micro.micro * clip->inputs.micro,
                                        ct_inputs_micro_size(&clip->inputs, count, micro.micro));
        branch b;
        CT_TRY(forward(clip, &micro, &rows, &b));
        if (backward) CT_TRY(backward(clip, &micro, &b));
        ct_arena_release(exec->activations, mark);
    }
    return CT_OK;
}

/* Gradients of a batch whose activations do not fit (Gao et al. 2021, GradCache): embeddings of all
 * micro-batches, keeping nothing else; the loss of the whole batch; then each micro-batch forward
 * again, and backward from its rows of the loss's gradient. */
static ct_status cached_pass(const ct_clip *clip, const ct_exec *exec, const embeddings *image,
                             const embeddings *text)
{
    CT_TRY(micro_passes(clip, exec, image, image_forward, NULL));
    CT_TRY(micro_passes(clip, exec, text, text_forward, NULL));
    CT_TRY(loss_pass(clip, exec, image, text));
    CT_TRY(micro_passes(clip, exec, image, image_forward, image_backward));
    return micro_passes(clip, exec, text, text_forward, text_backward);
}

/* The stack grows by the image tower, then the text tower: backward goes the other way. */
static ct_status whole_pass(const ct_clip *clip, const ct_exec *exec, const embeddings *image,
                            const embeddings *text)
{
    branch images, texts;
    CT_TRY(image_forward(clip, exec, image, &images));
    CT_TRY(text_forward(clip, exec, text, &texts));
    CT_TRY(loss_pass(clip, exec, image, text));
    CT_TRY(text_backward(clip, exec, &texts));
    return image_backward(clip, exec, &images);
}

static ct_status rank_pass(const ct_clip *clip, const ct_exec *exec)
{
    const int64_t count = clip->inputs.photo_ids.dim[0];
    embeddings image, text;
    CT_TRY(push_embeddings(clip, exec, count, &image));
    CT_TRY(push_embeddings(clip, exec, count, &text));
    return ct_inputs_micro_count(&clip->inputs, count) > 1 ? cached_pass(clip, exec, &image, &text)
                                                           : whole_pass(clip, exec, &image, &text);
}

/* Each rank's running statistics have moved by its own photos: all take the mean, so that every
 * rank evaluates, and saves, the same model. */
static ct_status average_statistics(const ct_clip *clip, const ct_exec *exec)
{
    if (!ct_tensor_present(&clip->running) || exec->sync_batchnorm || exec->planning) return CT_OK;
    return ct_comm_all_reduce_mean(exec->device->comm, &clip->running);
}

static ct_status training_pass(const ct_clip *clip, const ct_exec *exec)
{
    if (!clip->reducer) return rank_pass(clip, exec);
    ct_exec reducing = *exec;
    reducing.reducer = clip->reducer;
    ct_reducer_begin(clip->reducer);
    CT_TRY(rank_pass(clip, &reducing));
    CT_TRY(average_statistics(clip, exec));
    return ct_reducer_finish(clip->reducer, exec);
}

/* *out = the embeddings in f32, which is what the host reads. */
static ct_status widen(const ct_exec *exec, const embeddings *embedding, ct_tensor *out)
{
    *out = embedding->value;
    if (out->dtype == CT_F32) return CT_OK;
    out->dtype = CT_F32;
    CT_TRY(ct_exec_push(exec, out));
    return ct_op_cast(exec, &(ct_cast_args){.y = *out, .x = embedding->value});
}

/* Evaluation of one micro-batch. */
static ct_status encode_pass(const ct_clip *clip, const ct_exec *exec, int64_t count,
                             forward_call *forward, ct_tensor *out)
{
    embeddings embedding;
    branch b;
    CT_TRY(push_embeddings(clip, exec, count, &embedding));
    CT_TRY(forward(clip, exec, &embedding, &b));
    return widen(exec, &embedding, out);
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
    CT_TRY(ct_params_create(&clip->params));
    CT_TRY(
        ct_image_tower_create(clip->params, clip->device, config, clip->pass, &clip->image_tower));
    CT_TRY(ct_distilbert_create(clip->params, &bert, &clip->bert));
    CT_TRY(ct_projection_create(clip->params, "image_projection.", kind,
                                ct_image_tower_features(clip->image_tower), dim, dropout,
                                IMAGE_DROPOUT_LAYER, &clip->image_projection));
    CT_TRY(ct_projection_create(clip->params, "text_projection.", kind, bert.width, dim, dropout,
                                TEXT_DROPOUT_LAYER, &clip->text_projection));
    CT_TRY(ct_contrastive_create(clip->params, config, &clip->contrastive));
    return add_loss_scale(clip);
}

/* Lays the stack over `memory` (NULL: only measures), with the loss and the inputs at its bottom.
 */
static ct_status start_stack(ct_clip *clip, void *memory, size_t bytes)
{
    ct_arena_init(&clip->stack, memory, bytes);
    clip->loss = ct_tensor1(NULL, CT_F32, 1);
    CT_TRY(ct_arena_push(&clip->stack, ct_tensor_bytes(&clip->loss), &clip->loss.data));
    CT_TRY(ct_inputs_place(&clip->inputs, clip->config->image.size, &clip->stack));
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
    CT_TRY(encode_pass(clip, &evaluation, clip->pass, image_forward, &unused));
    ct_arena_release(&clip->stack, clip->stack_top);
    CT_TRY(encode_pass(clip, &evaluation, clip->pass, text_forward, &unused));
    return clip->device->backend->commit(clip->device);
}

/* From the first of the image tower's buffers to its last: they were added, and lie, one after the
 * other. */
static ct_tensor running_statistics(const ct_params *params)
{
    const ct_param *first = NULL, *last = NULL;
    for (int i = 0; i < ct_params_count(params); i++) {
        const ct_param *param = ct_params_at(params, i);
        if (!param->buffer || param->group != CT_GROUP_IMAGE) continue;
        first = first ? first : param;
        last = param;
    }
    if (!first) return (ct_tensor){0};
    const float *begin = ct_f32(&first->value), *final = ct_f32(&last->value);
    return ct_tensor1(first->value.data, CT_F32, final + ct_tensor_count(&last->value) - begin);
}

static ct_status allocate(ct_clip *clip)
{
    const ct_config *config = clip->config;
    const bool ranks = clip->device->comm && clip->limits.training;
    if (ranks)
        ct_params_share(clip->params,
                        (config->distributed.bucket_mib << 20) / (int64_t)sizeof(float),
                        config->distributed.zero);
    CT_TRY(ct_params_allocate(clip->params, clip->device, (uint64_t)config->seed,
                              clip->limits.training));
    CT_TRY(start_loss_scale(clip));
    if (ranks) {
        clip->running = running_statistics(clip->params);
        CT_TRY(ct_reducer_create(config, clip->params, clip->device, &clip->reducer));
    }
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
    clip->config = config;
    clip->device = device;
    const int64_t pass = ct_config_pass_size(config, ct_comm_size(device->comm));
    clip->pass = pass < limits->batch ? (int32_t)pass : limits->batch;
    ct_status status = ct_inputs_create(&clip->inputs, device, limits, clip->pass);
    if (status == CT_OK) status = build(clip, vocab_size);
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
    ct_image_tower_destroy(clip->image_tower);
    ct_reducer_destroy(clip->reducer);
    ct_params_destroy(clip->params);
    ct_inputs_destroy(&clip->inputs);
    free(clip);
}

ct_params *ct_clip_params(ct_clip *clip)
{
    return clip->params;
}

int32_t ct_clip_pass_size(const ct_clip *clip)
{
    return clip->pass;
}

ct_clip_memory ct_clip_memory_use(const ct_clip *clip)
{
    return (ct_clip_memory){.parameter_bytes = ct_params_bytes(clip->params),
                            .activation_bytes = clip->stack.capacity_bytes,
                            .input_bytes = clip->stack_top,
                            .activation_peak_bytes = clip->stack.peak_bytes,
                            .workspace_bytes = clip->device->workspace_bytes};
}

/* ---- calls ---------------------------------------------------------------------------------- */

static ct_status check_count(const ct_clip_input *input, int32_t most)
{
    if (input->count >= 1 && input->count <= most) return CT_OK;
    return ct_fail(CT_ERR_ARGUMENT, "batch of %d, the model was planned for 1 to %d", input->count,
                   most);
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

void ct_clip_needs(const ct_clip *clip, const ct_clip_input *input, int32_t *rows,
                   int32_t *max_seqlen)
{
    *rows = ct_inputs_longest_micro(&clip->inputs, input);
    *max_seqlen = input->max_seqlen;
}

ct_status ct_clip_stage(ct_clip *clip, const ct_clip_input *input, int64_t step)
{
    if (!clip->limits.training)
        return ct_fail(CT_ERR_ARGUMENT, "the model was created for evaluation only");
    clip->staged = false;
    CT_TRY(check_count(input, clip->limits.batch));
    CT_TRY(check_texts(clip, input));
    CT_TRY(ct_inputs_upload_images(&clip->inputs, clip->device, input));
    CT_TRY(ct_inputs_upload_texts(&clip->inputs, clip->device, input));
    CT_TRY(ct_inputs_upload_training(&clip->inputs, clip->device, input, step));
    clip->staged = true;
    return CT_OK;
}

/* tokens < 2^31, max_seqlen <= 512, count <= 2^20 (train.batch_size). */
uint64_t ct_clip_staged_key(const ct_clip *clip)
{
    const ct_inputs *inputs = &clip->inputs;
    return (uint64_t)inputs->photo_ids.dim[0] << 41 | (uint64_t)inputs->max_seqlen << 31 |
           (uint64_t)inputs->ids.dim[1];
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
    CT_TRY(check_count(input, clip->pass));
    CT_TRY(ct_inputs_upload_images(&clip->inputs, clip->device, input));
    const ct_exec exec = begin(clip, false);
    CT_TRY(encode_pass(clip, &exec, input->count, image_forward, &embedding));
    return download(clip, &embedding, out);
}

ct_status ct_clip_encode_texts(ct_clip *clip, const ct_clip_input *input, float *out)
{
    ct_tensor embedding;
    clip->staged = false;
    CT_TRY(check_count(input, clip->pass));
    CT_TRY(check_texts(clip, input));
    CT_TRY(ct_inputs_upload_texts(&clip->inputs, clip->device, input));
    const ct_exec exec = begin(clip, false);
    CT_TRY(encode_pass(clip, &exec, input->count, text_forward, &embedding));
    return download(clip, &embedding, out);
}
