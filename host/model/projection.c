#include "model/projection.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/layers.h"
#include "model/reducer.h"

#define NORM_EPS 1e-5f /* torch.nn.LayerNorm's default */

struct ct_projection {
    ct_projection_kind kind;
    float dropout;
    int dropout_layer;
    ct_linear fc1; /* linear: the only one */
    ct_linear fc2;
    ct_norm norm;

    /* Saved by forward. */
    size_t mark;
    ct_tensor x;              /* (N, features) */
    ct_tensor hidden, active; /* (N, dim): fc1(x) and its GELU */
};

static ct_status add_linear(ct_projection *projection, ct_params *params, const char *prefix,
                            int64_t features, int64_t dim)
{
    projection->fc1 = (ct_linear){.outputs = dim, .inputs = features};
    const ct_param weight = {.value = ct_tensor2(NULL, CT_F32, dim, features),
                             .group = CT_GROUP_HEAD,
                             .operand = true,
                             .decay = true,
                             .init = CT_INIT_NORMAL,
                             .init_scale = 1.0f / sqrtf((float)features),
                             .max_value = INFINITY};
    return ct_layer_param(params, prefix, "weight", weight, &projection->fc1.weight);
}

/* torch.nn.Linear draws weight and bias from U(-1/sqrt(inputs), 1/sqrt(inputs)). */
static ct_status add_torch_linear(ct_params *params, const char *prefix, const char *name,
                                  int64_t outputs, int64_t inputs, ct_linear *out)
{
    char path[64];
    if (snprintf(path, sizeof path, "%s%s", prefix, name) >= (int)sizeof path)
        return ct_fail(CT_ERR_INTERNAL, "prefix too long: %s", prefix);
    const float scale = 1.0f / sqrtf((float)inputs);
    return ct_linear_create(params, CT_GROUP_HEAD, path, outputs, inputs,
                            (ct_linear_init){CT_INIT_UNIFORM, scale, scale}, out);
}

static ct_status add_mlp(ct_projection *projection, ct_params *params, const char *prefix,
                         int64_t features, int64_t dim)
{
    char path[64];
    CT_TRY(add_torch_linear(params, prefix, "fc1.", dim, features, &projection->fc1));
    CT_TRY(add_torch_linear(params, prefix, "fc2.", dim, dim, &projection->fc2));
    if (snprintf(path, sizeof path, "%snorm.", prefix) >= (int)sizeof path)
        return ct_fail(CT_ERR_INTERNAL, "prefix too long: %s", prefix);
    return ct_norm_create(params, CT_GROUP_HEAD, path, dim, NORM_EPS, &projection->norm);
}

ct_status ct_projection_create(ct_params *params, const char *prefix, ct_projection_kind kind,
                               int64_t features, int64_t dim, float dropout, int dropout_layer,
                               ct_projection **out)
{
    ct_projection *projection;
    CT_TRY(ct_alloc(1, sizeof *projection, "a projection", &projection));
    projection->kind = kind;
    projection->dropout = dropout;
    projection->dropout_layer = dropout_layer;
    ct_status status = kind == CT_PROJECTION_LINEAR
                           ? add_linear(projection, params, prefix, features, dim)
                           : add_mlp(projection, params, prefix, features, dim);
    if (status != CT_OK) {
        ct_projection_destroy(projection);
        return status;
    }
    *out = projection;
    return CT_OK;
}

void ct_projection_destroy(ct_projection *projection)
{
    free(projection);
}

ct_status ct_projection_forward(ct_projection *projection, const ct_exec *exec, const ct_tensor *x,
                                const ct_tensor *y)
{
    ct_projection *p = projection;
    p->mark = ct_arena_mark(exec->activations);
    p->x = *x;
    if (p->kind == CT_PROJECTION_LINEAR)
        return ct_linear_forward(&p->fc1, exec, x, y, NULL, CT_ACT_NONE);

    ct_tensor sum = *y;
    p->hidden = p->active = *y;
    CT_TRY(ct_exec_push(exec, &p->hidden));
    CT_TRY(ct_exec_push(exec, &p->active));
    CT_TRY(ct_exec_push(exec, &sum));
    CT_TRY(ct_linear_forward(&p->fc1, exec, x, &p->hidden, NULL, CT_ACT_NONE));
    CT_TRY(ct_op_activation_fwd(
        exec, &(ct_activation_fwd_args){.y = p->active, .x = p->hidden, .act = CT_ACT_GELU}));
    CT_TRY(ct_linear_forward(&p->fc2, exec, &p->active, &sum, NULL, CT_ACT_NONE));
    CT_TRY(ct_dropout_apply(exec, &sum, &sum, p->dropout, p->dropout_layer));
    CT_TRY(ct_norm_forward(&p->norm, exec, &sum, &p->hidden, y));
    ct_layer_forget(exec, p->mark);
    return CT_OK;
}

ct_status ct_projection_backward(ct_projection *projection, const ct_exec *exec,
                                 const ct_tensor *dx, const ct_tensor *dy)
{
    ct_projection *p = projection;
    if (p->kind == CT_PROJECTION_LINEAR) {
        CT_TRY(ct_linear_backward(&p->fc1, exec, dx, dy, &p->x));
        return ct_gradients_done(exec, p->fc1.weight, p->fc1.weight);
    }

    ct_tensor dhidden = *dy, dbranch;
    CT_TRY(ct_exec_push(exec, &dhidden));
    CT_TRY(ct_norm_backward(&p->norm, exec, dy));
    CT_TRY(ct_dropout_branch(exec, &dbranch, dy, p->dropout, p->dropout_layer));
    CT_TRY(ct_linear_backward(&p->fc2, exec, &dhidden, &dbranch, &p->active));
    CT_TRY(ct_op_activation_bwd(
        exec, &(ct_activation_bwd_args){
                  .dx = dhidden, .dy = dhidden, .x = p->hidden, .act = CT_ACT_GELU}));
    CT_TRY(ct_op_add(exec, &(ct_add_args){.y = dhidden, .a = dhidden, .b = *dy}));
    CT_TRY(ct_linear_backward(&p->fc1, exec, dx, &dhidden, &p->x));
    ct_arena_release(exec->activations, p->mark);
    return ct_gradients_done(exec, p->fc1.weight, p->norm.beta);
}
