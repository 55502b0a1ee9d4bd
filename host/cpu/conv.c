/* 2-D convolutions through oneDNN; the gradient of the bias is a sum of columns. */
#include <assert.h>

#include "cpu/internal.h"
#include "cpu/onednn.h"

static ct_conv_shape shape_of(const ct_tensor *x, const ct_tensor *w, const ct_tensor *y,
                              int stride, int pad)
{
    ct_conv_shape s = {.n = x->dim[0],
                       .h = x->dim[1],
                       .w = x->dim[2],
                       .ci = x->dim[3],
                       .ho = y->dim[1],
                       .wo = y->dim[2],
                       .co = w->dim[0],
                       .kh = w->dim[1],
                       .kw = w->dim[2],
                       .stride = stride,
                       .pad = pad};
    assert(w->dim[3] == s.ci && y->dim[0] == s.n && y->dim[3] == s.co);
    assert(s.ho == (s.h + 2 * pad - s.kh) / stride + 1);
    assert(s.wo == (s.w + 2 * pad - s.kw) / stride + 1);
    return s;
}

ct_status ct_cpu_conv2d_fwd(ct_device *device, const ct_conv2d_fwd_args *args)
{
    ct_cpu_device *cpu = ct_cpu(device);
    ct_conv_shape shape = shape_of(&args->x, &args->w, &args->y, args->stride, args->pad);
    shape.bias = ct_tensor_present(&args->bias);
    const ct_conv *conv;
    CT_TRY(ct_onednn_conv(cpu->onednn, CT_CONV_FWD, &shape, &conv));
    void *scratch;
    CT_TRY(ct_cpu_workspace(cpu, ct_onednn_conv_scratch_bytes(conv), &scratch));
    if (!cpu->preparing)
        CT_TRY(ct_onednn_conv_run(conv, ct_f32(&args->x), ct_f32(&args->w), ct_f32(&args->bias),
                                  ct_f32(&args->y), scratch));
    if (!ct_tensor_present(&args->moments)) return CT_OK;
    return ct_cpu_batchnorm_moments(
        device, &(ct_batchnorm_moments_args){.moments = args->moments, .x = args->y});
}

ct_status ct_cpu_conv2d_bwd_data(ct_device *device, const ct_conv2d_bwd_data_args *args)
{
    ct_cpu_device *cpu = ct_cpu(device);
    ct_conv_shape shape = shape_of(&args->dx, &args->w, &args->dy, args->stride, args->pad);
    const ct_conv *conv;
    CT_TRY(ct_onednn_conv(cpu->onednn, CT_CONV_BWD_DATA, &shape, &conv));
    /* oneDNN has no gradient of data that is added to something. */
    const size_t conv_bytes = ct_cpu_aligned(ct_onednn_conv_scratch_bytes(conv));
    uint8_t *scratch;
    CT_TRY(ct_cpu_workspace(cpu, conv_bytes + (args->accumulate ? ct_tensor_bytes(&args->dx) : 0),
                            &scratch));
    if (cpu->preparing) return CT_OK;
    ct_tensor dx = args->dx;
    if (args->accumulate) dx.data = scratch + conv_bytes;
    CT_TRY(
        ct_onednn_conv_run(conv, ct_f32(&dx), ct_f32(&args->w), NULL, ct_f32(&args->dy), scratch));
    if (!args->accumulate) return CT_OK;
    return ct_cpu_add(device, &(ct_add_args){.y = args->dx, .a = args->dx, .b = dx});
}

ct_status ct_cpu_conv2d_bwd_filter(ct_device *device, const ct_conv2d_bwd_filter_args *args)
{
    ct_cpu_device *cpu = ct_cpu(device);
    ct_conv_shape shape = shape_of(&args->x, &args->dw, &args->dy, args->stride, args->pad);
    const ct_conv *conv;
    CT_TRY(ct_onednn_conv(cpu->onednn, CT_CONV_BWD_FILTER, &shape, &conv));
    size_t conv_bytes = ct_onednn_conv_scratch_bytes(conv);
    size_t sums_bytes = ct_cpu_column_sums_bytes(cpu, shape.co);
    void *scratch; /* of one, then of the other */
    CT_TRY(ct_cpu_workspace(cpu, conv_bytes > sums_bytes ? conv_bytes : sums_bytes, &scratch));
    if (cpu->preparing) return CT_OK;
    CT_TRY(ct_onednn_conv_run(conv, ct_f32(&args->x), ct_f32(&args->dw), NULL, ct_f32(&args->dy),
                              scratch));
    if (ct_tensor_present(&args->dbias))
        ct_cpu_column_sums(cpu, ct_f32(&args->dbias), ct_f32(&args->dy),
                           shape.n * shape.ho * shape.wo, shape.co, scratch);
    return CT_OK;
}
