#include "model/vit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/layers.h"
#include "model/reducer.h"

#define NORM_EPS         1e-6f
#define INIT_SCALE       0.02f
#define CLASS_INIT_SCALE 1e-6f

/* The stream x is kept as two terms, whose sum the next norm forms: what came in, and what the last
 * branch adds.
 *
 * norm1(in = stream + added) ─► qkv ─► attention ─► proj ─► added
 * norm2(mid = in + added)    ─► fc1 ─► GELU ─► fc2 ─► added */
typedef struct layer {
    ct_norm norm1, norm2;
    ct_linear qkv, proj, fc1, fc2;

    /* Saved by forward. */
    size_t mark;              /* of the stack before the layer's forward */
    ct_tensor norm1_out;      /* (T, D) */
    ct_tensor qkv_rows;       /* (T, 3, H, d) */
    ct_tensor o, lse;         /* (T, H, d), (T, H) */
    ct_tensor norm2_out;      /* (T, D) */
    ct_tensor preact, active; /* (T, ffn), before and after the GELU */
} layer;

struct ct_vit {
    ct_vit_config config;
    ct_device *device;
    const ct_param *class_token, *position, *filter, *filter_bias;
    layer *layers;
    ct_norm norm;
    void *starts; /* (batch + 1) i32 on the device: where each photo's tokens begin, and the end */

    /* Saved by forward. Two (T, D) pieces lie under all the rest: in evaluation they hold the
     * stream's two terms in turn, in training the first holds the stream's gradient. */
    size_t mark;
    void *slot[2];
    ct_tensor x;       /* (N, S, S, 3) */
    ct_tensor patches; /* (N, S/p, S/p, D), shape only */
    ct_tensor stream;  /* (T, D), shape only */
};

/* ---- construction ------------------------------------------------------------------------- */

static int64_t patches_of(const ct_vit_config *config)
{
    const int64_t side = config->size / config->patch;
    return side * side;
}

static ct_status add_linear(ct_params *params, const char *prefix, const char *name,
                            int64_t outputs, int64_t inputs, ct_linear *out)
{
    static const ct_linear_init init = {CT_INIT_NORMAL, INIT_SCALE, 0.0f};
    char path[64];
    snprintf(path, sizeof path, "%s%s", prefix, name);
    return ct_linear_create(params, CT_GROUP_IMAGE, path, outputs, inputs, init, out);
}

static ct_status add_norm(ct_params *params, const char *prefix, const char *name, int64_t width,
                          ct_norm *out)
{
    char path[64];
    snprintf(path, sizeof path, "%s%s", prefix, name);
    return ct_norm_create(params, CT_GROUP_IMAGE, path, width, NORM_EPS, out);
}

static ct_status add_layer(ct_params *params, const ct_vit_config *config, int64_t index,
                           layer *out)
{
    const int64_t width = config->width, ffn = config->ffn;
    char prefix[40];
    snprintf(prefix, sizeof prefix, "image.blocks.%d.", (int)index);
    CT_TRY(add_norm(params, prefix, "norm1.", width, &out->norm1));
    CT_TRY(add_linear(params, prefix, "attn.qkv.", 3 * width, width, &out->qkv));
    CT_TRY(add_linear(params, prefix, "attn.proj.", width, width, &out->proj));
    CT_TRY(add_norm(params, prefix, "norm2.", width, &out->norm2));
    CT_TRY(add_linear(params, prefix, "mlp.fc1.", ffn, width, &out->fc1));
    return add_linear(params, prefix, "mlp.fc2.", width, ffn, &out->fc2);
}

/* torch.nn.Conv2d draws filters and biases from U(-1/sqrt(n), 1/sqrt(n)), n inputs of each. */
static ct_status add_patch_embedding(ct_vit *vit, ct_params *params)
{
    const int64_t patch = vit->config.patch, width = vit->config.width;
    ct_param param = {.value = ct_tensor4(NULL, CT_F32, width, patch, patch, 3),
                      .group = CT_GROUP_IMAGE,
                      .operand = true,
                      .decay = true,
                      .filter = true,
                      .init = CT_INIT_UNIFORM,
                      .init_scale = 1.0f / sqrtf((float)(3 * patch * patch)),
                      .max_value = INFINITY};
    CT_TRY(ct_layer_param(params, "image.patch_embed.proj.", "weight", param, &vit->filter));
    param.value = ct_tensor1(NULL, CT_F32, width);
    param.operand = param.decay = param.filter = false;
    return ct_layer_param(params, "image.patch_embed.proj.", "bias", param, &vit->filter_bias);
}

static ct_status add_tokens(ct_vit *vit, ct_params *params)
{
    ct_param param = {.value = ct_tensor3(NULL, CT_F32, 1, 1, vit->config.width),
                      .group = CT_GROUP_IMAGE,
                      .operand = true,
                      .init = CT_INIT_NORMAL,
                      .init_scale = CLASS_INIT_SCALE,
                      .max_value = INFINITY};
    CT_TRY(ct_layer_param(params, "image.", "cls_token", param, &vit->class_token));
    param.value.dim[1] = 1 + patches_of(&vit->config);
    param.init_scale = INIT_SCALE;
    return ct_layer_param(params, "image.", "pos_embed", param, &vit->position);
}

static ct_status build(ct_vit *vit, ct_params *params)
{
    const ct_vit_config *config = &vit->config;
    CT_TRY(add_tokens(vit, params));
    CT_TRY(add_patch_embedding(vit, params));
    CT_TRY(ct_alloc((size_t)config->depth, sizeof *vit->layers, "ViT blocks", &vit->layers));
    for (int64_t i = 0; i < config->depth; i++)
        CT_TRY(add_layer(params, config, i, &vit->layers[i]));
    return add_norm(params, "image.", "norm.", config->width, &vit->norm);
}

static ct_status upload_starts(ct_vit *vit)
{
    const ct_backend *backend = vit->device->backend;
    const size_t count = (size_t)vit->config.batch + 1, bytes = count * sizeof(int32_t);
    const int64_t tokens = 1 + patches_of(&vit->config);
    int32_t *host;
    if (vit->config.batch * tokens > INT32_MAX)
        return ct_fail(CT_ERR_CONFIG,
                       "%d photos of %lld tokens go through the image tower at once, more than "
                       "2147483647 in all; use a smaller train.micro_batch_size",
                       vit->config.batch, (long long)tokens);
    CT_TRY(ct_alloc(count, sizeof *host, "the places of photos' tokens", &host));
    for (size_t n = 0; n < count; n++) host[n] = (int32_t)((int64_t)n * tokens);
    ct_status status =
        backend->alloc(vit->device, bytes, "the places of photos' tokens", &vit->starts);
    if (status == CT_OK) status = backend->upload(vit->device, vit->starts, host, bytes);
    free(host);
    return status;
}

ct_status ct_vit_create(ct_params *params, ct_device *device, const ct_vit_config *config,
                        ct_vit **out)
{
    ct_vit *vit;
    CT_TRY(ct_alloc(1, sizeof *vit, "the image tower", &vit));
    vit->config = *config;
    vit->device = device;
    ct_status status = build(vit, params);
    if (status == CT_OK) status = upload_starts(vit);
    if (status != CT_OK) {
        ct_vit_destroy(vit);
        return status;
    }
    *out = vit;
    return CT_OK;
}

void ct_vit_destroy(ct_vit *vit)
{
    if (!vit) return;
    vit->device->backend->free(vit->device, vit->starts);
    free(vit->layers);
    free(vit);
}

/* ---- forward ------------------------------------------------------------------------------ */

/* (T, columns) like the stream. */
static ct_tensor rows(const ct_vit *vit, int64_t columns)
{
    return ct_tensor2(NULL, vit->stream.dtype, vit->stream.dim[0], columns);
}

static ct_tensor starts_of(const ct_vit *vit, int64_t count)
{
    return ct_tensor1(vit->starts, CT_I32, count);
}

/* A term of the stream: on the stack, or in evaluation in a slot that is free. */
static ct_status place_term(const ct_vit *vit, const ct_exec *exec, void *slot, ct_tensor *term)
{
    *term = vit->stream;
    term->data = slot;
    return exec->training ? ct_exec_push(exec, term) : CT_OK;
}

static ct_tensor class_token(const ct_vit *vit, const ct_tensor *of)
{
    return ct_tensor1(of->data, of->dtype, vit->config.width);
}

static ct_tensor positions(const ct_vit *vit, const ct_tensor *of)
{
    return ct_tensor2(of->data, of->dtype, 1 + patches_of(&vit->config), vit->config.width);
}

/* (T, D) as (N, 1 + P, D). */
static ct_tensor sequences(const ct_vit *vit, const ct_tensor *stream)
{
    return ct_tensor3(stream->data, stream->dtype, vit->x.dim[0], 1 + patches_of(&vit->config),
                      vit->config.width);
}

/* *stream = the tokens of the photos. */
static ct_status tokens_forward(ct_vit *vit, const ct_exec *exec, ct_tensor *stream)
{
    CT_TRY(place_term(vit, exec, vit->slot[0], stream));
    const size_t mark = ct_arena_mark(exec->activations);
    ct_tensor patches = vit->patches;
    CT_TRY(ct_exec_push(exec, &patches));
    CT_TRY(ct_op_conv2d_fwd(exec, &(ct_conv2d_fwd_args){.y = patches,
                                                        .x = vit->x,
                                                        .w = vit->filter->weight,
                                                        .bias = vit->filter_bias->value,
                                                        .stride = (int)vit->config.patch}));
    CT_TRY(ct_op_patch_tokens_fwd(
        exec,
        &(ct_patch_tokens_fwd_args){.y = sequences(vit, stream),
                                    .patches = patches,
                                    .class_token = class_token(vit, &vit->class_token->weight),
                                    .position = positions(vit, &vit->position->weight)}));
    ct_arena_release(exec->activations, mark);
    return CT_OK;
}

/* added = proj(attention(norm1(stream + added))), and the sum is in what was `added`; with `added`
 * absent the stream has one term. */
static ct_status attention_forward(const ct_vit *vit, layer *l, const ct_exec *exec,
                                   ct_tensor *stream, ct_tensor *added)
{
    const ct_vit_config *config = &vit->config;
    const int64_t tokens = vit->stream.dim[0], heads = config->heads, depth = config->width / heads;
    const bool first = !ct_tensor_present(added);
    const ct_tensor sum = first ? *stream : *added, residual = *stream;
    CT_TRY(place_term(vit, exec, first ? vit->slot[1] : residual.data, added));
    *stream = sum;
    const size_t mark = ct_arena_mark(exec->activations);

    ct_tensor qkv = rows(vit, 3 * config->width), o = rows(vit, config->width);
    l->norm1_out = o;
    l->lse = ct_tensor2(NULL, CT_F32, tokens, heads);
    CT_TRY(ct_exec_push(exec, &l->norm1_out));
    CT_TRY(ct_exec_push(exec, &qkv));
    CT_TRY(ct_exec_push(exec, &o));
    CT_TRY(ct_exec_push(exec, &l->lse));
    l->qkv_rows = ct_tensor4(qkv.data, qkv.dtype, tokens, 3, heads, depth);
    l->o = ct_tensor3(o.data, o.dtype, tokens, heads, depth);

    CT_TRY(ct_norm_forward(&l->norm1, exec, &sum, first ? NULL : &residual, &l->norm1_out));
    CT_TRY(ct_linear_forward(&l->qkv, exec, &l->norm1_out, &qkv, NULL, CT_ACT_NONE));
    CT_TRY(ct_op_attention_fwd(
        exec, &(ct_attention_fwd_args){.o = l->o,
                                       .lse = l->lse,
                                       .qkv = l->qkv_rows,
                                       .cu_seqlens = starts_of(vit, vit->x.dim[0] + 1),
                                       .max_seqlen = (int)(1 + patches_of(config)),
                                       .scale = 1.0f / sqrtf((float)depth)}));
    CT_TRY(ct_linear_forward(&l->proj, exec, &o, added, NULL, CT_ACT_NONE));
    ct_layer_forget(exec, mark);
    return CT_OK;
}

/* added = fc2(GELU(fc1(norm2(stream + added)))), and the sum is in what was `added`. */
static ct_status ffn_forward(const ct_vit *vit, layer *l, const ct_exec *exec, ct_tensor *stream,
                             ct_tensor *added)
{
    const ct_tensor sum = *added, residual = *stream;
    CT_TRY(place_term(vit, exec, residual.data, added));
    *stream = sum;
    const size_t mark = ct_arena_mark(exec->activations);

    l->norm2_out = rows(vit, vit->config.width);
    l->preact = l->active = rows(vit, vit->config.ffn);
    CT_TRY(ct_exec_push(exec, &l->norm2_out));
    CT_TRY(ct_exec_push(exec, &l->active));
    if (exec->training) CT_TRY(ct_exec_push(exec, &l->preact));
    CT_TRY(ct_norm_forward(&l->norm2, exec, &sum, &residual, &l->norm2_out));
    CT_TRY(ct_linear_forward(&l->fc1, exec, &l->norm2_out, &l->active,
                             exec->training ? &l->preact : NULL, CT_ACT_GELU));
    CT_TRY(ct_linear_forward(&l->fc2, exec, &l->active, added, NULL, CT_ACT_NONE));
    ct_layer_forget(exec, mark);
    return CT_OK;
}

/* features = norm(stream + added) of the class tokens alone. */
static ct_status class_forward(ct_vit *vit, const ct_exec *exec, const ct_tensor *stream,
                               const ct_tensor *added, const ct_tensor *features)
{
    const ct_tensor index = starts_of(vit, features->dim[0]);
    ct_tensor sum = *features, residual = *features;
    CT_TRY(ct_exec_push(exec, &sum));
    CT_TRY(ct_exec_push(exec, &residual));
    CT_TRY(ct_op_gather_rows_fwd(
        exec, &(ct_gather_rows_fwd_args){.y = sum, .x = *added, .index = index}));
    CT_TRY(ct_op_gather_rows_fwd(
        exec, &(ct_gather_rows_fwd_args){.y = residual, .x = *stream, .index = index}));
    return ct_norm_forward(&vit->norm, exec, &sum, &residual, features);
}

ct_status ct_vit_forward(ct_vit *vit, const ct_exec *exec, const ct_tensor *x,
                         const ct_tensor *features)
{
    const ct_vit_config *config = &vit->config;
    const int64_t count = x->dim[0], side = config->size / config->patch;
    vit->mark = ct_arena_mark(exec->activations);
    vit->x = *x;
    vit->patches = ct_tensor4(NULL, x->dtype, count, side, side, config->width);
    vit->stream = ct_tensor2(NULL, x->dtype, count * (1 + side * side), config->width);
    for (int i = 0; i < 2; i++)
        CT_TRY(ct_arena_push(exec->activations, ct_tensor_bytes(&vit->stream), &vit->slot[i]));
    ct_tensor stream, added = {0};
    CT_TRY(tokens_forward(vit, exec, &stream));
    for (int64_t i = 0; i < config->depth; i++) {
        layer *l = &vit->layers[i];
        l->mark = ct_arena_mark(exec->activations);
        CT_TRY(attention_forward(vit, l, exec, &stream, &added));
        CT_TRY(ffn_forward(vit, l, exec, &stream, &added));
        ct_layer_forget(exec, l->mark);
    }
    CT_TRY(class_forward(vit, exec, &stream, &added, features));
    ct_layer_forget(exec, vit->mark);
    return CT_OK;
}

/* ---- backward ----------------------------------------------------------------------------- */

/* d (T, D): the gradient of the stream behind the layer, becomes that of norm2's sum. */
static ct_status ffn_backward(const ct_vit *vit, const layer *l, const ct_exec *exec,
                              const ct_tensor *d)
{
    const size_t mark = ct_arena_mark(exec->activations);
    ct_tensor dpreact = l->preact, dnorm = rows(vit, vit->config.width);
    CT_TRY(ct_exec_push(exec, &dpreact));
    CT_TRY(ct_exec_push(exec, &dnorm));
    CT_TRY(ct_linear_backward_through(&l->fc2, exec, &dpreact, d, &l->active, &l->preact,
                                      CT_ACT_GELU));
    CT_TRY(ct_linear_backward(&l->fc1, exec, &dnorm, &dpreact, &l->norm2_out));
    CT_TRY(ct_norm_backward_skip(&l->norm2, exec, &dnorm, d));
    ct_arena_release(exec->activations, mark);
    return CT_OK;
}

/* d (T, D): the gradient of norm2's sum, becomes that of norm1's. */
static ct_status attention_backward(const ct_vit *vit, const layer *l, const ct_exec *exec,
                                    const ct_tensor *d)
{
    const ct_vit_config *config = &vit->config;
    const size_t mark = ct_arena_mark(exec->activations);
    const int64_t *dim = l->o.dim;
    ct_tensor drows = rows(vit, config->width); /* gradient of o, then of norm1's output */
    ct_tensor dqkv = rows(vit, 3 * config->width), dqkv_rows = l->qkv_rows;
    CT_TRY(ct_exec_push(exec, &drows));
    CT_TRY(ct_exec_push(exec, &dqkv));
    dqkv_rows.data = dqkv.data;
    const ct_tensor o = ct_tensor2(l->o.data, l->o.dtype, dim[0], config->width);
    CT_TRY(ct_linear_backward(&l->proj, exec, &drows, d, &o));
    CT_TRY(ct_op_attention_bwd(
        exec,
        &(ct_attention_bwd_args){.dqkv = dqkv_rows,
                                 .d_o = ct_tensor3(drows.data, drows.dtype, dim[0], dim[1], dim[2]),
                                 .o = l->o,
                                 .lse = l->lse,
                                 .qkv = l->qkv_rows,
                                 .cu_seqlens = starts_of(vit, vit->x.dim[0] + 1),
                                 .max_seqlen = (int)(1 + patches_of(config)),
                                 .scale = 1.0f / sqrtf((float)dim[2])}));
    CT_TRY(ct_linear_backward(&l->qkv, exec, &drows, &dqkv, &l->norm1_out));
    CT_TRY(ct_norm_backward_skip(&l->norm1, exec, &drows, d));
    ct_arena_release(exec->activations, mark);
    return CT_OK;
}

/* d (T, D): the gradient of the tokens. */
static ct_status tokens_backward(const ct_vit *vit, const ct_exec *exec, const ct_tensor *d)
{
    ct_tensor dpatches = vit->patches;
    CT_TRY(ct_exec_push(exec, &dpatches));
    CT_TRY(ct_op_patch_tokens_bwd(
        exec, &(ct_patch_tokens_bwd_args){.dpatches = dpatches,
                                          .dclass_token = class_token(vit, &vit->class_token->grad),
                                          .dposition = positions(vit, &vit->position->grad),
                                          .dy = sequences(vit, d)}));
    return ct_op_conv2d_bwd_filter(exec,
                                   &(ct_conv2d_bwd_filter_args){.dw = vit->filter->grad,
                                                                .dbias = vit->filter_bias->grad,
                                                                .dy = dpatches,
                                                                .x = vit->x,
                                                                .stride = (int)vit->config.patch});
}

ct_status ct_vit_backward(ct_vit *vit, const ct_exec *exec, const ct_tensor *dfeatures)
{
    ct_tensor d = vit->stream;
    d.data = vit->slot[0];
    CT_TRY(ct_norm_backward(&vit->norm, exec, dfeatures));
    CT_TRY(ct_op_gather_rows_bwd(
        exec, &(ct_gather_rows_bwd_args){
                  .dx = d, .dy = *dfeatures, .index = starts_of(vit, dfeatures->dim[0])}));
    CT_TRY(ct_gradients_done(exec, vit->norm.gamma, vit->norm.beta));
    for (int64_t i = vit->config.depth - 1; i >= 0; i--) {
        CT_TRY(ffn_backward(vit, &vit->layers[i], exec, &d));
        CT_TRY(attention_backward(vit, &vit->layers[i], exec, &d));
        CT_TRY(ct_gradients_done(exec, vit->layers[i].norm1.gamma, vit->layers[i].fc2.bias));
        ct_arena_release(exec->activations, vit->layers[i].mark);
    }
    CT_TRY(tokens_backward(vit, exec, &d));
    ct_arena_release(exec->activations, vit->mark);
    return ct_gradients_done(exec, vit->class_token, vit->filter_bias);
}
