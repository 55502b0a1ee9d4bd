#include "model/resnet.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/layers.h"
#include "model/reducer.h"

#define BN_EPS      1e-5f /* torch.nn.BatchNorm2d's defaults */
#define BN_MOMENTUM 0.1f

enum { STEM_WIDTH = 64, STAGES = 4, MAX_UNITS = 3, POOL_WINDOW = 3, POOL_STRIDE = 2, POOL_PAD = 1 };

/* Convolution, batch normalisation, optional residual, optional ReLU. */
typedef struct conv_bn {
    const ct_param *filter, *gamma, *beta, *running_mean, *running_var;
    int stride, pad;
    bool relu;

    /* Saved by forward. */
    bool residual;
    ct_tensor x, conv, mean, rstd, y;
} conv_bn;

/* y = relu(units(x) + shortcut(x)), the last unit adding the shortcut; the shortcut is x itself or
 * a 1x1 convolution of it where the shape changes. */
typedef struct block {
    conv_bn unit[MAX_UNITS];
    int unit_count; /* 2: basic, 3: bottleneck */
    conv_bn downsample;
    bool has_downsample;
    size_t mark; /* of the stack before the block's forward */
} block;

struct ct_resnet {
    conv_bn stem;
    block *blocks;
    int block_count;
    int64_t features;

    /* Saved by forward. Two slots of the largest block output lie under all the rest: in evaluation
     * blocks read one and write the other, in training the gradients of backward do. */
    size_t mark;
    ct_tensor pool_index, out;
    void *slot[2];
};

typedef struct architecture {
    int blocks[STAGES];
    bool bottleneck;
} architecture;

static const architecture architectures[] = {
    [CT_RESNET18] = {{2, 2, 2, 2}, false},
    [CT_RESNET34] = {{3, 4, 6, 3}, false},
    [CT_RESNET50] = {{3, 4, 6, 3}, true},
    [CT_RESNET101] = {{3, 4, 23, 3}, true},
};

/* ---- construction ------------------------------------------------------------------------- */

/* The filter is <prefix><conv>weight, the normalisation <prefix><norm>weight, .bias, ... */
static ct_status add_unit(ct_params *params, const char *prefix, const char *conv, const char *norm,
                          int64_t outputs, int64_t inputs, int kernel, int stride, bool relu,
                          conv_bn *unit)
{
    *unit = (conv_bn){.stride = stride, .pad = kernel / 2, .relu = relu};
    char path[64];
    const ct_param filter = {.value = ct_tensor4(NULL, CT_F32, outputs, kernel, kernel, inputs),
                             .group = CT_GROUP_IMAGE,
                             .operand = true,
                             .decay = true,
                             .filter = true,
                             .init = CT_INIT_NORMAL,
                             .init_scale = sqrtf(2.0f / (float)(outputs * kernel * kernel)),
                             .max_value = INFINITY};
    const ct_param ones = {.value = ct_tensor1(NULL, CT_F32, outputs),
                           .group = CT_GROUP_IMAGE,
                           .init = CT_INIT_CONSTANT,
                           .init_scale = 1.0f,
                           .max_value = INFINITY};
    ct_param zeros = ones, ones_buffer = ones, zeros_buffer = ones;
    zeros.init_scale = zeros_buffer.init_scale = 0.0f;
    ones_buffer.buffer = zeros_buffer.buffer = true;

    snprintf(path, sizeof path, "%s%s", prefix, conv);
    CT_TRY(ct_layer_param(params, path, "weight", filter, &unit->filter));
    snprintf(path, sizeof path, "%s%s", prefix, norm);
    CT_TRY(ct_layer_param(params, path, "weight", ones, &unit->gamma));
    CT_TRY(ct_layer_param(params, path, "bias", zeros, &unit->beta));
    CT_TRY(ct_layer_param(params, path, "running_mean", zeros_buffer, &unit->running_mean));
    return ct_layer_param(params, path, "running_var", ones_buffer, &unit->running_var);
}

static ct_status add_block(ct_params *params, const char *prefix, bool bottleneck, int64_t inputs,
                           int64_t width, int stride, block *out)
{
    const int64_t outputs = bottleneck ? 4 * width : width;
    conv_bn *unit = out->unit;
    if (bottleneck) {
        out->unit_count = 3;
        CT_TRY(add_unit(params, prefix, "conv1.", "bn1.", width, inputs, 1, 1, true, &unit[0]));
        CT_TRY(add_unit(params, prefix, "conv2.", "bn2.", width, width, 3, stride, true, &unit[1]));
        CT_TRY(add_unit(params, prefix, "conv3.", "bn3.", outputs, width, 1, 1, true, &unit[2]));
    } else {
        out->unit_count = 2;
        CT_TRY(
            add_unit(params, prefix, "conv1.", "bn1.", width, inputs, 3, stride, true, &unit[0]));
        CT_TRY(add_unit(params, prefix, "conv2.", "bn2.", outputs, width, 3, 1, true, &unit[1]));
    }
    out->has_downsample = stride != 1 || inputs != outputs;
    if (!out->has_downsample) return CT_OK;
    return add_unit(params, prefix, "downsample.0.", "downsample.1.", outputs, inputs, 1, stride,
                    false, &out->downsample);
}

static ct_status build(ct_resnet *resnet, ct_params *params, const architecture *arch)
{
    for (int s = 0; s < STAGES; s++) resnet->block_count += arch->blocks[s];
    CT_TRY(ct_alloc((size_t)resnet->block_count, sizeof *resnet->blocks, "ResNet blocks",
                    &resnet->blocks));
    CT_TRY(add_unit(params, "image.", "conv1.", "bn1.", STEM_WIDTH, 3, 7, 2, true, &resnet->stem));
    block *next = resnet->blocks;
    int64_t inputs = STEM_WIDTH;
    for (int s = 0; s < STAGES; s++) {
        const int64_t width = (int64_t)STEM_WIDTH << s;
        for (int b = 0; b < arch->blocks[s]; b++, next++) {
            char prefix[32];
            snprintf(prefix, sizeof prefix, "image.layer%d.%d.", s + 1, b);
            const int stride = s > 0 && b == 0 ? 2 : 1;
            CT_TRY(add_block(params, prefix, arch->bottleneck, inputs, width, stride, next));
            inputs = arch->bottleneck ? 4 * width : width;
        }
    }
    resnet->features = inputs;
    return CT_OK;
}

ct_status ct_resnet_create(ct_params *params, ct_image_encoder encoder, ct_resnet **out)
{
    ct_resnet *resnet;
    CT_TRY(ct_alloc(1, sizeof *resnet, "the image tower", &resnet));
    ct_status status = build(resnet, params, &architectures[encoder]);
    if (status != CT_OK) {
        ct_resnet_destroy(resnet);
        return status;
    }
    *out = resnet;
    return CT_OK;
}

void ct_resnet_destroy(ct_resnet *resnet)
{
    if (!resnet) return;
    free(resnet->blocks);
    free(resnet);
}

int64_t ct_resnet_features(const ct_resnet *resnet)
{
    return resnet->features;
}

/* ---- shapes ------------------------------------------------------------------------------- */

static ct_tensor window_output(const ct_tensor *x, int64_t channels, int64_t window, int stride,
                               int pad)
{
    return ct_tensor4(NULL, x->dtype, x->dim[0], (x->dim[1] + 2 * pad - window) / stride + 1,
                      (x->dim[2] + 2 * pad - window) / stride + 1, channels);
}

static ct_tensor unit_output(const conv_bn *unit, const ct_tensor *x)
{
    const int64_t *filter = unit->filter->value.dim;
    return window_output(x, filter[0], filter[1], unit->stride, unit->pad);
}

static ct_tensor pool_output(const ct_tensor *x)
{
    return window_output(x, x->dim[3], POOL_WINDOW, POOL_STRIDE, POOL_PAD);
}

static ct_tensor block_output(const block *b, const ct_tensor *x)
{
    ct_tensor y = *x;
    for (int i = 0; i < b->unit_count; i++) y = unit_output(&b->unit[i], &y);
    return y;
}

static size_t slot_bytes(const ct_resnet *resnet, const ct_tensor *x)
{
    ct_tensor y = unit_output(&resnet->stem, x);
    y = pool_output(&y);
    size_t bytes = ct_tensor_bytes(&y);
    for (int i = 0; i < resnet->block_count; i++) {
        y = block_output(&resnet->blocks[i], &y);
        if (ct_tensor_bytes(&y) > bytes) bytes = ct_tensor_bytes(&y);
    }
    return bytes;
}

/* ---- forward ------------------------------------------------------------------------------ */

static int64_t rows_of(const ct_tensor *x)
{
    return x->dim[0] * x->dim[1] * x->dim[2];
}

static ct_conv2d_fwd_args convolution_args(const conv_bn *unit)
{
    return (ct_conv2d_fwd_args){.y = unit->conv,
                                .x = unit->x,
                                .w = unit->filter->weight,
                                .stride = unit->stride,
                                .pad = unit->pad};
}

/* unit->conv, and the unit's mean and rstd over the photos of all ranks with sync_bn, else of this
 * one, from moments that the convolution itself gives. */
static ct_status convolve_with_statistics(const conv_bn *unit, const ct_exec *exec)
{
    const ct_comm *comm = exec->sync_batchnorm ? exec->device->comm : NULL;
    const int ranks = comm ? comm->size : 1;
    const size_t mark = ct_arena_mark(exec->activations);
    const int64_t channels = unit->conv.dim[3];
    ct_tensor all = ct_tensor3(NULL, CT_F32, ranks, 2, channels);
    CT_TRY(ct_exec_push(exec, &all));
    const ct_tensor part = ct_tensor_rows(&all, comm ? comm->rank : 0, 1);
    ct_conv2d_fwd_args args = convolution_args(unit);
    args.moments = ct_tensor2(part.data, CT_F32, 2, channels);
    CT_TRY(ct_op_conv2d_fwd(exec, &args));
    if (comm) CT_TRY(ct_exec_all_gather(exec, &all, &args.moments));
    CT_TRY(ct_op_batchnorm_merge(
        exec, &(ct_batchnorm_merge_args){.mean = unit->mean,
                                         .rstd = unit->rstd,
                                         .running_mean = unit->running_mean->value,
                                         .running_var = unit->running_var->value,
                                         .moments = all,
                                         .count = ranks * rows_of(&unit->conv),
                                         .eps = BN_EPS,
                                         .momentum = exec->repeated ? 0 : BN_MOMENTUM}));
    ct_arena_release(exec->activations, mark);
    return CT_OK;
}

static ct_batchnorm_statistics statistics_of(const ct_exec *exec)
{
    if (!exec->training) return CT_BATCHNORM_RUNNING;
    return exec->sync_batchnorm || exec->device->fuses_moments ? CT_BATCHNORM_GIVEN
                                                               : CT_BATCHNORM_BATCH;
}

/* y has been pushed (or is a slot); residual NULL: none. */
static ct_status unit_forward(conv_bn *unit, const ct_exec *exec, const ct_tensor *x,
                              const ct_tensor *residual, const ct_tensor *y)
{
    const size_t mark = ct_arena_mark(exec->activations);
    unit->x = *x;
    unit->y = unit->conv = *y;
    unit->mean = unit->rstd = ct_tensor1(NULL, CT_F32, y->dim[3]);
    unit->residual = residual;
    CT_TRY(ct_exec_push(exec, &unit->conv));
    CT_TRY(ct_exec_push(exec, &unit->mean));
    CT_TRY(ct_exec_push(exec, &unit->rstd));
    const ct_batchnorm_statistics statistics = statistics_of(exec);
    const ct_conv2d_fwd_args convolution = convolution_args(unit);
    CT_TRY(statistics == CT_BATCHNORM_GIVEN ? convolve_with_statistics(unit, exec)
                                            : ct_op_conv2d_fwd(exec, &convolution));
    CT_TRY(ct_op_batchnorm_fwd(
        exec, &(ct_batchnorm_fwd_args){.y = *y,
                                       .mean = unit->mean,
                                       .rstd = unit->rstd,
                                       .running_mean = unit->running_mean->value,
                                       .running_var = unit->running_var->value,
                                       .x = unit->conv,
                                       .residual = residual ? *residual : (ct_tensor){0},
                                       .gamma = unit->gamma->value,
                                       .beta = unit->beta->value,
                                       .eps = BN_EPS,
                                       .momentum = exec->repeated ? 0 : BN_MOMENTUM,
                                       .statistics = statistics,
                                       .relu = unit->relu}));
    ct_layer_forget(exec, mark);
    return CT_OK;
}

/* *y = the unit's output, pushed on the stack. */
static ct_status unit_push_forward(conv_bn *unit, const ct_exec *exec, const ct_tensor *x,
                                   ct_tensor *y)
{
    *y = unit_output(unit, x);
    CT_TRY(ct_exec_push(exec, y));
    return unit_forward(unit, exec, x, NULL, y);
}

/* Room for an output that the next block reads: on the stack, or in evaluation in a slot. */
static ct_status place_output(const ct_exec *exec, void *slot, ct_tensor *y)
{
    y->data = slot;
    return exec->training ? ct_exec_push(exec, y) : CT_OK;
}

static ct_status block_forward(block *b, const ct_exec *exec, const ct_tensor *x, void *slot,
                               ct_tensor *y)
{
    b->mark = ct_arena_mark(exec->activations);
    *y = block_output(b, x);
    CT_TRY(place_output(exec, slot, y));
    ct_tensor hidden = *x, shortcut = *x;
    const int last = b->unit_count - 1;
    for (int i = 0; i < last; i++) {
        const ct_tensor input = hidden;
        CT_TRY(unit_push_forward(&b->unit[i], exec, &input, &hidden));
    }
    if (b->has_downsample) CT_TRY(unit_push_forward(&b->downsample, exec, x, &shortcut));
    CT_TRY(unit_forward(&b->unit[last], exec, &hidden, &shortcut, y));
    ct_layer_forget(exec, b->mark);
    return CT_OK;
}

/* *y = the pooled output of the first convolution. */
static ct_status stem_forward(ct_resnet *resnet, const ct_exec *exec, const ct_tensor *x,
                              ct_tensor *y)
{
    const ct_tensor stem_shape = unit_output(&resnet->stem, x);
    *y = pool_output(&stem_shape);
    CT_TRY(place_output(exec, resnet->slot[0], y));
    const size_t mark = ct_arena_mark(exec->activations);
    resnet->pool_index = *y;
    resnet->pool_index.dtype = CT_U8;
    CT_TRY(ct_exec_push(exec, &resnet->pool_index));
    ct_tensor stem;
    CT_TRY(unit_push_forward(&resnet->stem, exec, x, &stem));
    CT_TRY(ct_op_maxpool_fwd(exec, &(ct_maxpool_fwd_args){.y = *y,
                                                          .index = resnet->pool_index,
                                                          .x = stem,
                                                          .window = POOL_WINDOW,
                                                          .stride = POOL_STRIDE,
                                                          .pad = POOL_PAD}));
    ct_layer_forget(exec, mark);
    return CT_OK;
}

ct_status ct_resnet_forward(ct_resnet *resnet, const ct_exec *exec, const ct_tensor *x,
                            const ct_tensor *features)
{
    resnet->mark = ct_arena_mark(exec->activations);
    const size_t bytes = slot_bytes(resnet, x);
    for (int i = 0; i < 2; i++) CT_TRY(ct_arena_push(exec->activations, bytes, &resnet->slot[i]));
    ct_tensor y;
    CT_TRY(stem_forward(resnet, exec, x, &y));
    for (int i = 0; i < resnet->block_count; i++) {
        const ct_tensor input = y;
        CT_TRY(block_forward(&resnet->blocks[i], exec, &input, resnet->slot[(i + 1) % 2], &y));
    }
    resnet->out = y;
    CT_TRY(ct_op_avgpool_fwd(exec, &(ct_avgpool_fwd_args){.y = *features, .x = y}));
    ct_layer_forget(exec, resnet->mark);
    return CT_OK;
}

/* ---- backward ----------------------------------------------------------------------------- */

/* The sums of all ranks' photos that the gradient needs; dgamma and dbeta += this rank's. */
static ct_status sum_gradients(const conv_bn *unit, const ct_exec *exec, const ct_tensor *dy,
                               ct_batchnorm_bwd_args *args)
{
    args->sums = ct_tensor2(NULL, CT_F32, 2, dy->dim[3]);
    args->count = exec->device->comm->size * rows_of(dy);
    CT_TRY(ct_exec_push(exec, &args->sums));
    CT_TRY(ct_op_batchnorm_bwd_sums(exec, &(ct_batchnorm_bwd_sums_args){.sums = args->sums,
                                                                        .dgamma = unit->gamma->grad,
                                                                        .dbeta = unit->beta->grad,
                                                                        .dy = *dy,
                                                                        .x = unit->conv,
                                                                        .y = unit->y,
                                                                        .mean = unit->mean,
                                                                        .rstd = unit->rstd,
                                                                        .relu = unit->relu}));
    return ct_exec_all_reduce(exec, &args->sums);
}

/* dy is overwritten; when a residual was added it then holds the residual's gradient. dx NULL: not
 * needed; `accumulate`: added to what it holds. */
static ct_status unit_backward(const conv_bn *unit, const ct_exec *exec, const ct_tensor *dx,
                               bool accumulate, const ct_tensor *dy)
{
    const size_t mark = ct_arena_mark(exec->activations);
    ct_tensor dconv = *dy;
    if (unit->residual) CT_TRY(ct_exec_push(exec, &dconv));
    ct_batchnorm_bwd_args args = {.dx = dconv,
                                  .dresidual = unit->residual ? *dy : (ct_tensor){0},
                                  .dgamma = unit->gamma->grad,
                                  .dbeta = unit->beta->grad,
                                  .dy = *dy,
                                  .x = unit->conv,
                                  .y = unit->y,
                                  .gamma = unit->gamma->value,
                                  .mean = unit->mean,
                                  .rstd = unit->rstd,
                                  .relu = unit->relu};
    if (exec->sync_batchnorm) CT_TRY(sum_gradients(unit, exec, dy, &args));
    CT_TRY(ct_op_batchnorm_bwd(exec, &args));
    CT_TRY(ct_op_conv2d_bwd_filter(exec, &(ct_conv2d_bwd_filter_args){.dw = unit->filter->grad,
                                                                      .dy = dconv,
                                                                      .x = unit->x,
                                                                      .stride = unit->stride,
                                                                      .pad = unit->pad}));
    if (dx)
        CT_TRY(ct_op_conv2d_bwd_data(exec, &(ct_conv2d_bwd_data_args){.dx = *dx,
                                                                      .dy = dconv,
                                                                      .w = unit->filter->weight,
                                                                      .stride = unit->stride,
                                                                      .pad = unit->pad,
                                                                      .accumulate = accumulate}));
    ct_arena_release(exec->activations, mark);
    return CT_OK;
}

/* The gradients of the block's two ways add up in one tensor: its input's gradient by way of the
 * shortcut first, then the first unit's convolution adds its own. Without a downsample the
 * shortcut's is dy itself as the last unit leaves it, so *dx becomes dy; with one it is written to
 * `room`, so *dx becomes that. What lies under the block's activations stays. */
static ct_status block_backward(const block *b, const ct_exec *exec, const ct_tensor *dy,
                                const ct_tensor *room, ct_tensor *dx)
{
    ct_tensor d = *dy; /* gradient of what unit i returned */
    for (int i = b->unit_count - 1; i > 0; i--) {
        ct_tensor dinput = b->unit[i].x;
        CT_TRY(ct_exec_push(exec, &dinput));
        CT_TRY(unit_backward(&b->unit[i], exec, &dinput, false, &d));
        d = dinput;
    }
    *dx = b->has_downsample ? *room : *dy;
    if (b->has_downsample) CT_TRY(unit_backward(&b->downsample, exec, dx, false, dy));
    CT_TRY(unit_backward(&b->unit[0], exec, dx, true, &d));
    ct_arena_release(exec->activations, b->mark);
    const conv_bn *last = b->has_downsample ? &b->downsample : &b->unit[b->unit_count - 1];
    return ct_gradients_done(exec, b->unit[0].filter, last->beta);
}

static ct_status stem_backward(const ct_resnet *resnet, const ct_exec *exec, const ct_tensor *dy)
{
    ct_tensor dstem = resnet->stem.y;
    CT_TRY(ct_exec_push(exec, &dstem));
    CT_TRY(ct_op_maxpool_bwd(exec, &(ct_maxpool_bwd_args){.dx = dstem,
                                                          .dy = *dy,
                                                          .index = resnet->pool_index,
                                                          .window = POOL_WINDOW,
                                                          .stride = POOL_STRIDE,
                                                          .pad = POOL_PAD}));
    return unit_backward(&resnet->stem, exec, NULL, false, &dstem);
}

ct_status ct_resnet_backward(ct_resnet *resnet, const ct_exec *exec, const ct_tensor *dfeatures)
{
    ct_tensor dy = resnet->out, dx;
    int at = 0; /* the slot that dy lies in */
    dy.data = resnet->slot[at];
    CT_TRY(ct_op_avgpool_bwd(exec, &(ct_avgpool_bwd_args){.dx = dy, .dy = *dfeatures}));
    for (int i = resnet->block_count - 1; i >= 0; i--) {
        const block *b = &resnet->blocks[i];
        ct_tensor room = b->unit[0].x;
        room.data = resnet->slot[1 - at];
        CT_TRY(block_backward(b, exec, &dy, &room, &dx));
        if (b->has_downsample) at = 1 - at;
        dy = dx;
    }
    CT_TRY(stem_backward(resnet, exec, &dy));
    ct_arena_release(exec->activations, resnet->mark);
    return ct_gradients_done(exec, resnet->stem.filter, resnet->stem.beta);
}
