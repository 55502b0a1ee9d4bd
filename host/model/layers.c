#include "model/layers.h"

#include <math.h>
#include <stdio.h>

ct_status ct_layer_param(ct_params *params, const char *prefix, const char *name, ct_param param,
                         const ct_param **out)
{
    int length = snprintf(param.name, sizeof param.name, "%s%s", prefix, name);
    if (length < 0 || (size_t)length >= sizeof param.name)
        return ct_fail(CT_ERR_INTERNAL, "parameter name too long: %s%s", prefix, name);
    return ct_params_add(params, &param, out);
}

/* ---- linear ------------------------------------------------------------------------------- */

ct_status ct_linear_create(ct_params *params, ct_param_group group, const char *prefix,
                           int64_t outputs, int64_t inputs, ct_linear_init init, ct_linear *out)
{
    *out = (ct_linear){.outputs = outputs, .inputs = inputs};
    const ct_param weight = {.value = ct_tensor2(NULL, CT_F32, outputs, inputs),
                             .group = group,
                             .operand = true,
                             .decay = true,
                             .init = init.kind,
                             .init_scale = init.weight_scale,
                             .max_value = INFINITY};
    const ct_param bias = {.value = ct_tensor1(NULL, CT_F32, outputs),
                           .group = group,
                           .init = init.kind,
                           .init_scale = init.bias_scale,
                           .max_value = INFINITY};
    CT_TRY(ct_layer_param(params, prefix, "weight", weight, &out->weight));
    return ct_layer_param(params, prefix, "bias", bias, &out->bias);
}

/* May span several parameters. */
static ct_tensor weight_of(const ct_linear *linear)
{
    const ct_tensor *weight = &linear->weight->weight;
    return ct_tensor2(weight->data, weight->dtype, linear->outputs, linear->inputs);
}

ct_status ct_linear_forward(const ct_linear *linear, const ct_exec *exec, const ct_tensor *x,
                            const ct_tensor *y, const ct_tensor *preact, ct_activation act)
{
    ct_linear_fwd_args args = {.y = *y, .x = *x, .w = weight_of(linear), .act = act};
    if (preact) args.preact = *preact;
    if (linear->bias) args.bias = ct_tensor1(linear->bias->value.data, CT_F32, linear->outputs);
    return ct_op_linear_fwd(exec, &args);
}

static ct_linear_bwd_args backward_args(const ct_linear *linear, const ct_tensor *dx,
                                        const ct_tensor *dy, const ct_tensor *x)
{
    ct_linear_bwd_args args = {
        .dx = *dx,
        .dw = ct_tensor2(linear->weight->grad.data, CT_F32, linear->outputs, linear->inputs),
        .dy = *dy,
        .x = *x,
        .w = weight_of(linear)};
    if (linear->bias) args.dbias = ct_tensor1(linear->bias->grad.data, CT_F32, linear->outputs);
    return args;
}

ct_status ct_linear_backward(const ct_linear *linear, const ct_exec *exec, const ct_tensor *dx,
                             const ct_tensor *dy, const ct_tensor *x)
{
    const ct_linear_bwd_args args = backward_args(linear, dx, dy, x);
    return ct_op_linear_bwd(exec, &args);
}

ct_status ct_linear_backward_add(const ct_linear *linear, const ct_exec *exec, const ct_tensor *dx,
                                 const ct_tensor *dy, const ct_tensor *x)
{
    ct_linear_bwd_args args = backward_args(linear, dx, dy, x);
    args.accumulate = true;
    return ct_op_linear_bwd(exec, &args);
}

ct_status ct_linear_backward_through(const ct_linear *linear, const ct_exec *exec,
                                     const ct_tensor *dpreact, const ct_tensor *dy,
                                     const ct_tensor *x, const ct_tensor *preact, ct_activation act)
{
    ct_linear_bwd_args args = backward_args(linear, dpreact, dy, x);
    args.preact = *preact;
    args.act = act;
    return ct_op_linear_bwd(exec, &args);
}

/* ---- layer normalisation ------------------------------------------------------------------ */

ct_status ct_norm_create(ct_params *params, ct_param_group group, const char *prefix, int64_t width,
                         float eps, ct_norm *out)
{
    *out = (ct_norm){.eps = eps};
    ct_param param = {.value = ct_tensor1(NULL, CT_F32, width),
                      .group = group,
                      .init = CT_INIT_CONSTANT,
                      .init_scale = 1.0f,
                      .max_value = INFINITY};
    CT_TRY(ct_layer_param(params, prefix, "weight", param, &out->gamma));
    param.init_scale = 0.0f;
    return ct_layer_param(params, prefix, "bias", param, &out->beta);
}

ct_status ct_norm_forward(ct_norm *norm, const ct_exec *exec, const ct_tensor *x,
                          const ct_tensor *residual, const ct_tensor *y)
{
    norm->x = *x;
    norm->mean = norm->rstd = ct_tensor1(NULL, CT_F32, x->dim[0]);
    CT_TRY(ct_exec_push(exec, &norm->mean));
    CT_TRY(ct_exec_push(exec, &norm->rstd));
    ct_layernorm_fwd_args args = {.y = *y,
                                  .mean = norm->mean,
                                  .rstd = norm->rstd,
                                  .x = *x,
                                  .gamma = norm->gamma->value,
                                  .beta = norm->beta->value,
                                  .eps = norm->eps};
    if (residual) {
        args.residual = *residual;
        args.sum = *x;
    }
    return ct_op_layernorm_fwd(exec, &args);
}

static ct_layernorm_bwd_args norm_backward_args(const ct_norm *norm, const ct_tensor *dx,
                                                const ct_tensor *dy)
{
    return (ct_layernorm_bwd_args){.dx = *dx,
                                   .dgamma = norm->gamma->grad,
                                   .dbeta = norm->beta->grad,
                                   .dy = *dy,
                                   .x = norm->x,
                                   .gamma = norm->gamma->value,
                                   .mean = norm->mean,
                                   .rstd = norm->rstd};
}

ct_status ct_norm_backward(const ct_norm *norm, const ct_exec *exec, const ct_tensor *d)
{
    const ct_layernorm_bwd_args args = norm_backward_args(norm, d, d);
    return ct_op_layernorm_bwd(exec, &args);
}

ct_status ct_norm_backward_skip(const ct_norm *norm, const ct_exec *exec, const ct_tensor *dy,
                                const ct_tensor *dsum)
{
    ct_layernorm_bwd_args args = norm_backward_args(norm, dsum, dy);
    args.dskip = *dsum;
    return ct_op_layernorm_bwd(exec, &args);
}

/* ---- dropout ------------------------------------------------------------------------------ */

ct_status ct_dropout_apply(const ct_exec *exec, const ct_tensor *y, const ct_tensor *x, float p,
                           int layer)
{
    if (p == 0.0f || !exec->training) return CT_OK;
    return ct_op_dropout(
        exec,
        &(ct_dropout_args){
            .y = *y, .x = *x, .step = exec->step, .key = ct_dropout_key(exec, layer), .p = p});
}

ct_status ct_dropout_branch(const ct_exec *exec, ct_tensor *branch, const ct_tensor *d, float p,
                            int layer)
{
    *branch = *d;
    if (p == 0.0f) return CT_OK;
    CT_TRY(ct_exec_push(exec, branch));
    return ct_dropout_apply(exec, branch, d, p, layer);
}
