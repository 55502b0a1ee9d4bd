/* The layers that the towers and the projections are made of: parameters by name, and forward and
 * backward calls that save on the activation stack what backward needs. A layer is a plain struct
 * inside the module that uses it; the registry owns its parameters. */
#ifndef CT_MODEL_LAYERS_H
#define CT_MODEL_LAYERS_H

#include "model/params.h"

/* Adds `param` under the name <prefix><name>. */
CT_NODISCARD ct_status ct_layer_param(ct_params *params, const char *prefix, const char *name,
                                      ct_param param, const ct_param **out);

/* In evaluation nothing is kept for backward: releases the stack down to `mark`. */
static inline void ct_layer_forget(const ct_exec *exec, size_t mark)
{
    if (!exec->training) ct_arena_release(exec->activations, mark);
}

/* ---- linear ------------------------------------------------------------------------------- */

/* `outputs` may span several adjacent parameters, of which weight and bias are the first. */
typedef struct ct_linear {
    const ct_param *weight, *bias; /* bias NULL: none */
    int64_t outputs, inputs;
} ct_linear;

/* Weights and biases are drawn with the same kind of distribution, each at its own scale. */
typedef struct ct_linear_init {
    ct_init_kind kind;
    float weight_scale, bias_scale;
} ct_linear_init;

/* <prefix>weight (outputs, inputs) and <prefix>bias (outputs). */
CT_NODISCARD ct_status ct_linear_create(ct_params *params, ct_param_group group, const char *prefix,
                                        int64_t outputs, int64_t inputs, ct_linear_init init,
                                        ct_linear *out);

/* y = act(x w^T + bias): x (M, inputs), y and preact (M, outputs); preact NULL: not kept. */
CT_NODISCARD ct_status ct_linear_forward(const ct_linear *linear, const ct_exec *exec,
                                         const ct_tensor *x, const ct_tensor *y,
                                         const ct_tensor *preact, ct_activation act);

/* dx (M, inputs) =. */
CT_NODISCARD ct_status ct_linear_backward(const ct_linear *linear, const ct_exec *exec,
                                          const ct_tensor *dx, const ct_tensor *dy,
                                          const ct_tensor *x);

/* dx += : the other path's gradient is there already. */
CT_NODISCARD ct_status ct_linear_backward_add(const ct_linear *linear, const ct_exec *exec,
                                              const ct_tensor *dx, const ct_tensor *dy,
                                              const ct_tensor *x);

/* Where x = act(preact), what ct_linear_forward of the layer before made and kept: dpreact (M,
 * inputs) = is the gradient of that layer's product. */
CT_NODISCARD ct_status ct_linear_backward_through(const ct_linear *linear, const ct_exec *exec,
                                                  const ct_tensor *dpreact, const ct_tensor *dy,
                                                  const ct_tensor *x, const ct_tensor *preact,
                                                  ct_activation act);

/* ---- layer normalisation ------------------------------------------------------------------ */

typedef struct ct_norm {
    const ct_param *gamma, *beta;
    float eps;
    ct_tensor x, mean, rstd; /* saved by forward */
} ct_norm;

/* <prefix>weight and <prefix>bias, (width) each: ones and zeros. */
CT_NODISCARD ct_status ct_norm_create(ct_params *params, ct_param_group group, const char *prefix,
                                      int64_t width, float eps, ct_norm *out);

/* y = norm(x + residual), all (T, D); residual NULL: none, else x becomes the sum. x stays valid
 * until backward. Pushes the statistics. */
CT_NODISCARD ct_status ct_norm_forward(ct_norm *norm, const ct_exec *exec, const ct_tensor *x,
                                       const ct_tensor *residual, const ct_tensor *y);

/* d: the gradient of y, becomes the gradient of x (and of residual). */
CT_NODISCARD ct_status ct_norm_backward(const ct_norm *norm, const ct_exec *exec,
                                        const ct_tensor *d);

/* Where the sum that was normalised goes on beside the norm: dy is the gradient of y;
 * dsum, the gradient that came the other way, becomes the whole gradient of the sum. */
CT_NODISCARD ct_status ct_norm_backward_skip(const ct_norm *norm, const ct_exec *exec,
                                             const ct_tensor *dy, const ct_tensor *dsum);

/* ---- dropout ------------------------------------------------------------------------------ */

/* The key of the dropout site with this ordinal, below 2^12, in the micro-batch, below 2^20, that
 * exec names; the step's number joins it on the device. */
static inline ct_rng_key ct_dropout_key(const ct_exec *exec, int layer)
{
    const uint64_t micro = (uint64_t)exec->micro_before + (uint64_t)exec->micro;
    return ct_rng_make(exec->seed, CT_RNG_DROPOUT, 0, micro << 12 | (uint64_t)layer);
}

/* y = dropout(x) in training, forward and backward alike; y may be x. With p 0, or in evaluation,
 * y must be x and nothing happens. */
CT_NODISCARD ct_status ct_dropout_apply(const ct_exec *exec, const ct_tensor *y, const ct_tensor *x,
                                        float p, int layer);

/* Backward where d, the gradient of a sum, is needed further on: *branch = the gradient before the
 * dropout on one of the terms, pushed on the stack, or d itself with p 0. */
CT_NODISCARD ct_status ct_dropout_branch(const ct_exec *exec, ct_tensor *branch, const ct_tensor *d,
                                         float p, int layer);

#endif
