#include "model/distilbert.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/layers.h"
#include "model/reducer.h"

#define NORM_EPS   1e-12f
#define INIT_SCALE 0.02f

/* Makes q, k and v, added one after the other, adjacent in ct_params: one (3 width, width) matrix
 * and one (3 width) bias. (16 floats would do for that; 64 suits the tiles of matrix products too.)
 */
#define WIDTH_MULTIPLE 64

/* x ─► qkv ─► attention ─► out_lin ─► + x ─► sa_layer_norm ─► hidden
 * hidden ─► lin1 ─► GELU ─► lin2 ─► dropout ─► + hidden ─► output_layer_norm ─► y */
typedef struct layer {
    ct_linear qkv, out_lin, lin1, lin2;
    ct_norm attention_norm, output_norm;

    /* Saved by forward. */
    size_t mark;        /* of the stack before the layer's forward */
    ct_tensor x;        /* (T, D) */
    ct_tensor qkv_rows; /* (T, 3, H, d) */
    ct_tensor o, lse;   /* (T, H, d), (T, H) */
    ct_tensor hidden;   /* (T, D) */
    ct_tensor preact;   /* (T, ffn), before and */
    ct_tensor active;   /* (T, ffn) after the GELU */
} layer;

struct ct_distilbert {
    ct_distilbert_config config;
    const ct_param *word, *position;
    ct_norm embedding_norm;
    layer *layers;

    /* Saved by forward. One (T, D) piece lies under all the rest: in evaluation it holds the hidden
     * state, which each layer overwrites, in training the hidden state's gradient. */
    size_t mark;
    ct_text_input input;
    ct_tensor stream;
};

/* Dropout sites: the embeddings', then two a layer. */
static int embedding_site(void)
{
    return CT_DISTILBERT_DROPOUT_LAYER;
}
static int attention_site(int64_t index)
{
    return CT_DISTILBERT_DROPOUT_LAYER + 1 + 2 * (int)index;
}
static int output_site(int64_t index)
{
    return CT_DISTILBERT_DROPOUT_LAYER + 2 + 2 * (int)index;
}

/* ---- construction ------------------------------------------------------------------------- */

static const ct_linear_init text_init = {CT_INIT_NORMAL, INIT_SCALE, 0.0f};

/* The three weights one after the other, then the three biases, so that each three are adjacent. */
static ct_status add_qkv(ct_params *params, const char *prefix, int64_t width, ct_linear *out)
{
    static const char *const weight_name[] = {"attention.q_lin.weight", "attention.k_lin.weight",
                                              "attention.v_lin.weight"};
    static const char *const bias_name[] = {"attention.q_lin.bias", "attention.k_lin.bias",
                                            "attention.v_lin.bias"};
    ct_param param = {.value = ct_tensor2(NULL, CT_F32, width, width),
                      .group = CT_GROUP_TEXT,
                      .operand = true,
                      .decay = true,
                      .init = CT_INIT_NORMAL,
                      .init_scale = INIT_SCALE,
                      .max_value = INFINITY};
    const ct_param *weight[3], *bias[3];
    for (int i = 0; i < 3; i++)
        CT_TRY(ct_layer_param(params, prefix, weight_name[i], param, &weight[i]));
    param.value = ct_tensor1(NULL, CT_F32, width);
    param.operand = param.decay = false;
    param.init_scale = 0.0f;
    for (int i = 0; i < 3; i++)
        CT_TRY(ct_layer_param(params, prefix, bias_name[i], param, &bias[i]));
    *out = (ct_linear){.weight = weight[0], .bias = bias[0], .outputs = 3 * width, .inputs = width};
    return CT_OK;
}

static ct_status add_linear(ct_params *params, const char *prefix, const char *name,
                            int64_t outputs, int64_t inputs, ct_linear *out)
{
    char path[96];
    snprintf(path, sizeof path, "%s%s", prefix, name);
    return ct_linear_create(params, CT_GROUP_TEXT, path, outputs, inputs, text_init, out);
}

static ct_status add_norm(ct_params *params, const char *prefix, const char *name, int64_t width,
                          ct_norm *out)
{
    char path[96];
    snprintf(path, sizeof path, "%s%s", prefix, name);
    return ct_norm_create(params, CT_GROUP_TEXT, path, width, NORM_EPS, out);
}

static ct_status add_layer(ct_params *params, const ct_distilbert_config *config, int64_t index,
                           layer *out)
{
    const int64_t width = config->width, ffn = config->ffn;
    char prefix[48];
    snprintf(prefix, sizeof prefix, "text.transformer.layer.%d.", (int)index);
    CT_TRY(add_qkv(params, prefix, width, &out->qkv));
    CT_TRY(add_linear(params, prefix, "attention.out_lin.", width, width, &out->out_lin));
    CT_TRY(add_norm(params, prefix, "sa_layer_norm.", width, &out->attention_norm));
    CT_TRY(add_linear(params, prefix, "ffn.lin1.", ffn, width, &out->lin1));
    CT_TRY(add_linear(params, prefix, "ffn.lin2.", width, ffn, &out->lin2));
    return add_norm(params, prefix, "output_layer_norm.", width, &out->output_norm);
}

static ct_status build(ct_distilbert *bert, ct_params *params)
{
    const ct_distilbert_config *config = &bert->config;
    const char *prefix = "text.embeddings.";
    ct_param table = {.value = ct_tensor2(NULL, CT_F32, config->vocab_size, config->width),
                      .group = CT_GROUP_TEXT,
                      .operand = true,
                      .decay = true,
                      .init = CT_INIT_NORMAL,
                      .init_scale = INIT_SCALE,
                      .max_value = INFINITY};
    CT_TRY(ct_layer_param(params, prefix, "word_embeddings.weight", table, &bert->word));
    table.value.dim[0] = config->max_positions;
    CT_TRY(ct_layer_param(params, prefix, "position_embeddings.weight", table, &bert->position));
    CT_TRY(add_norm(params, prefix, "LayerNorm.", config->width, &bert->embedding_norm));
    CT_TRY(ct_alloc((size_t)config->depth, sizeof *bert->layers, "text layers", &bert->layers));
    for (int64_t i = 0; i < config->depth; i++)
        CT_TRY(add_layer(params, config, i, &bert->layers[i]));
    return CT_OK;
}

ct_status ct_distilbert_create(ct_params *params, const ct_distilbert_config *config,
                               ct_distilbert **out)
{
    if (config->width % WIDTH_MULTIPLE != 0)
        return ct_fail(CT_ERR_CONFIG, "text.width must be a multiple of %d, not %lld",
                       WIDTH_MULTIPLE, (long long)config->width);
    if (config->heads < 1 || config->width % config->heads != 0)
        return ct_fail(CT_ERR_CONFIG, "text.heads must divide text.width %lld, %lld does not",
                       (long long)config->width, (long long)config->heads);
    ct_distilbert *bert;
    CT_TRY(ct_alloc(1, sizeof *bert, "the text tower", &bert));
    bert->config = *config;
    ct_status status = build(bert, params);
    if (status != CT_OK) {
        ct_distilbert_destroy(bert);
        return status;
    }
    *out = bert;
    return CT_OK;
}

void ct_distilbert_destroy(ct_distilbert *bert)
{
    if (!bert) return;
    free(bert->layers);
    free(bert);
}

/* ---- forward ------------------------------------------------------------------------------ */

/* (T, columns) like the stream. */
static ct_tensor rows(const ct_distilbert *bert, int64_t columns)
{
    return ct_tensor2(NULL, bert->stream.dtype, bert->stream.dim[0], columns);
}

/* Hidden state *y: on the stack, or in evaluation in the one piece that each layer overwrites. */
static ct_status place_output(const ct_distilbert *bert, const ct_exec *exec, ct_tensor *y)
{
    *y = bert->stream;
    return exec->training ? ct_exec_push(exec, y) : CT_OK;
}

static ct_status embedding_forward(ct_distilbert *bert, const ct_exec *exec, ct_tensor *y)
{
    CT_TRY(place_output(bert, exec, y));
    const size_t mark = ct_arena_mark(exec->activations);
    ct_tensor sum = rows(bert, bert->config.width);
    CT_TRY(ct_exec_push(exec, &sum));
    CT_TRY(ct_op_embedding_fwd(exec, &(ct_embedding_fwd_args){.y = sum,
                                                              .ids = bert->input.ids,
                                                              .positions = bert->input.positions,
                                                              .word = bert->word->weight,
                                                              .position = bert->position->weight}));
    CT_TRY(ct_norm_forward(&bert->embedding_norm, exec, &sum, NULL, y));
    CT_TRY(ct_dropout_apply(exec, y, y, bert->config.dropout, embedding_site()));
    ct_layer_forget(exec, mark);
    return CT_OK;
}

/* l->hidden = sa_layer_norm(attention(x) + x). */
static ct_status attention_forward(const ct_distilbert *bert, int64_t index, const ct_exec *exec)
{
    layer *l = &bert->layers[index];
    const ct_distilbert_config *config = &bert->config;
    const int64_t tokens = bert->stream.dim[0], heads = config->heads;
    const int64_t head_width = config->width / heads;
    ct_tensor sum = rows(bert, config->width);
    l->hidden = sum;
    CT_TRY(ct_exec_push(exec, &l->hidden));
    CT_TRY(ct_exec_push(exec, &sum));
    const size_t mark = ct_arena_mark(exec->activations);

    ct_tensor qkv = rows(bert, 3 * config->width), o = rows(bert, config->width);
    l->lse = ct_tensor2(NULL, CT_F32, tokens, heads);
    CT_TRY(ct_exec_push(exec, &qkv));
    CT_TRY(ct_exec_push(exec, &o));
    CT_TRY(ct_exec_push(exec, &l->lse));
    l->qkv_rows = ct_tensor4(qkv.data, qkv.dtype, tokens, 3, heads, head_width);
    l->o = ct_tensor3(o.data, o.dtype, tokens, heads, head_width);

    CT_TRY(ct_linear_forward(&l->qkv, exec, &l->x, &qkv, NULL, CT_ACT_NONE));
    CT_TRY(ct_op_attention_fwd(
        exec, &(ct_attention_fwd_args){.o = l->o,
                                       .lse = l->lse,
                                       .qkv = l->qkv_rows,
                                       .cu_seqlens = bert->input.cu_seqlens,
                                       .step = exec->step,
                                       .max_seqlen = bert->input.max_seqlen,
                                       .scale = 1.0f / sqrtf((float)head_width),
                                       .dropout = exec->training ? config->attention_dropout : 0.0f,
                                       .key = ct_dropout_key(exec, attention_site(index))}));
    CT_TRY(ct_linear_forward(&l->out_lin, exec, &o, &sum, NULL, CT_ACT_NONE));
    ct_layer_forget(exec, mark);
    return ct_norm_forward(&l->attention_norm, exec, &sum, &l->x, &l->hidden);
}

/* y = output_layer_norm(ffn(l->hidden) + l->hidden). */
static ct_status ffn_forward(const ct_distilbert *bert, int64_t index, const ct_exec *exec,
                             const ct_tensor *y)
{
    layer *l = &bert->layers[index];
    ct_tensor sum = rows(bert, bert->config.width);
    CT_TRY(ct_exec_push(exec, &sum));
    const size_t mark = ct_arena_mark(exec->activations);

    l->preact = l->active = rows(bert, bert->config.ffn);
    CT_TRY(ct_exec_push(exec, &l->active));
    if (exec->training) CT_TRY(ct_exec_push(exec, &l->preact));
    CT_TRY(ct_linear_forward(&l->lin1, exec, &l->hidden, &l->active,
                             exec->training ? &l->preact : NULL, bert->config.activation));
    CT_TRY(ct_linear_forward(&l->lin2, exec, &l->active, &sum, NULL, CT_ACT_NONE));
    ct_layer_forget(exec, mark);
    CT_TRY(ct_dropout_apply(exec, &sum, &sum, bert->config.dropout, output_site(index)));
    return ct_norm_forward(&l->output_norm, exec, &sum, &l->hidden, y);
}

static ct_status layer_forward(const ct_distilbert *bert, int64_t index, const ct_exec *exec,
                               const ct_tensor *x, ct_tensor *y)
{
    layer *l = &bert->layers[index];
    l->mark = ct_arena_mark(exec->activations);
    l->x = *x;
    CT_TRY(place_output(bert, exec, y));
    CT_TRY(attention_forward(bert, index, exec));
    CT_TRY(ffn_forward(bert, index, exec, y));
    ct_layer_forget(exec, l->mark);
    return CT_OK;
}

/* The rows of the sequences' first tokens: cu_seqlens without its last entry. */
static ct_tensor first_tokens(const ct_distilbert *bert)
{
    const ct_tensor *cu_seqlens = &bert->input.cu_seqlens;
    return ct_tensor1(cu_seqlens->data, CT_I32, cu_seqlens->dim[0] - 1);
}

ct_status ct_distilbert_forward(ct_distilbert *bert, const ct_exec *exec,
                                const ct_text_input *input, const ct_tensor *features)
{
    bert->mark = ct_arena_mark(exec->activations);
    bert->input = *input;
    bert->stream = ct_tensor2(NULL, features->dtype, input->ids.dim[0], bert->config.width);
    CT_TRY(ct_exec_push(exec, &bert->stream));
    ct_tensor y;
    CT_TRY(embedding_forward(bert, exec, &y));
    for (int64_t i = 0; i < bert->config.depth; i++) {
        const ct_tensor x = y;
        CT_TRY(layer_forward(bert, i, exec, &x, &y));
    }
    CT_TRY(ct_op_gather_rows_fwd(
        exec, &(ct_gather_rows_fwd_args){.y = *features, .x = y, .index = first_tokens(bert)}));
    ct_layer_forget(exec, bert->mark);
    return CT_OK;
}

/* ---- backward ----------------------------------------------------------------------------- */

/* d (T, D): the gradient of the layer's output, becomes that of ffn's input, l->hidden. */
static ct_status ffn_backward(const ct_distilbert *bert, int64_t index, const ct_exec *exec,
                              const ct_tensor *d)
{
    const layer *l = &bert->layers[index];
    const size_t mark = ct_arena_mark(exec->activations);
    ct_tensor dbranch, dpreact = l->preact;
    CT_TRY(ct_exec_push(exec, &dpreact));
    CT_TRY(ct_norm_backward(&l->output_norm, exec, d));
    CT_TRY(ct_dropout_branch(exec, &dbranch, d, bert->config.dropout, output_site(index)));
    CT_TRY(ct_linear_backward_through(&l->lin2, exec, &dpreact, &dbranch, &l->active, &l->preact,
                                      bert->config.activation));
    CT_TRY(ct_linear_backward_add(&l->lin1, exec, d, &dpreact, &l->hidden));
    ct_arena_release(exec->activations, mark);
    return CT_OK;
}

/* d (T, D): the gradient of l->hidden, becomes that of the layer's input. */
static ct_status attention_backward(const ct_distilbert *bert, int64_t index, const ct_exec *exec,
                                    const ct_tensor *d)
{
    const layer *l = &bert->layers[index];
    const ct_distilbert_config *config = &bert->config;
    const size_t mark = ct_arena_mark(exec->activations);
    const int64_t *o_dim = l->o.dim;
    ct_tensor dqkv = rows(bert, 3 * config->width), drows = *d, qkv_rows = l->qkv_rows;
    CT_TRY(ct_exec_push(exec, &drows)); /* gradient of o */
    CT_TRY(ct_exec_push(exec, &dqkv));
    qkv_rows.data = dqkv.data;
    const ct_tensor o = ct_tensor2(l->o.data, l->o.dtype, o_dim[0], config->width);

    CT_TRY(ct_norm_backward(&l->attention_norm, exec, d));
    CT_TRY(ct_linear_backward(&l->out_lin, exec, &drows, d, &o));
    CT_TRY(ct_op_attention_bwd(
        exec, &(ct_attention_bwd_args){
                  .dqkv = qkv_rows,
                  .d_o = ct_tensor3(drows.data, drows.dtype, o_dim[0], o_dim[1], o_dim[2]),
                  .o = l->o,
                  .lse = l->lse,
                  .qkv = l->qkv_rows,
                  .cu_seqlens = bert->input.cu_seqlens,
                  .step = exec->step,
                  .max_seqlen = bert->input.max_seqlen,
                  .scale = 1.0f / sqrtf((float)o_dim[2]),
                  .dropout = config->attention_dropout,
                  .key = ct_dropout_key(exec, attention_site(index))}));
    CT_TRY(ct_linear_backward_add(&l->qkv, exec, d, &dqkv, &l->x));
    ct_arena_release(exec->activations, mark);
    return CT_OK;
}

static ct_status embedding_backward(const ct_distilbert *bert, const ct_exec *exec,
                                    const ct_tensor *d)
{
    CT_TRY(ct_dropout_apply(exec, d, d, bert->config.dropout, embedding_site()));
    CT_TRY(ct_norm_backward(&bert->embedding_norm, exec, d));
    return ct_op_embedding_bwd(exec, &(ct_embedding_bwd_args){.dword = bert->word->grad,
                                                              .dposition = bert->position->grad,
                                                              .dy = *d,
                                                              .ids = bert->input.ids,
                                                              .positions = bert->input.positions});
}

ct_status ct_distilbert_backward(ct_distilbert *bert, const ct_exec *exec,
                                 const ct_tensor *dfeatures)
{
    const ct_tensor d = bert->stream;
    CT_TRY(ct_op_gather_rows_bwd(
        exec, &(ct_gather_rows_bwd_args){.dx = d, .dy = *dfeatures, .index = first_tokens(bert)}));
    for (int64_t i = bert->config.depth - 1; i >= 0; i--) {
        CT_TRY(ffn_backward(bert, i, exec, &d));
        CT_TRY(attention_backward(bert, i, exec, &d));
        CT_TRY(
            ct_gradients_done(exec, bert->layers[i].qkv.weight, bert->layers[i].output_norm.beta));
        ct_arena_release(exec->activations, bert->layers[i].mark);
    }
    CT_TRY(embedding_backward(bert, exec, &d));
    ct_arena_release(exec->activations, bert->mark);
    return ct_gradients_done(exec, bert->word, bert->embedding_norm.beta);
}
