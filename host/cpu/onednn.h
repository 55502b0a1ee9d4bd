/* All that the project uses of oneDNN, whose C interface differs between versions 2 and 3: f32
 * convolutions on NHWC activations and (Co, KH, KW, Ci) weights, and the matrix product
 * (ct_cpu_gemm of internal.h).
 *
 * A convolution is built once per shape and direction and kept. Its activations stay NHWC; its
 * weights are reordered on every call between our layout and the one oneDNN prefers, which costs
 * little next to the convolution.
 */
#ifndef CT_CPU_ONEDNN_H
#define CT_CPU_ONEDNN_H

#include "cpu/internal.h"

typedef enum ct_conv_direction {
    CT_CONV_FWD,        /* activations and weights -> result = */
    CT_CONV_BWD_DATA,   /* gradient of the result and weights -> gradient of the activations = */
    CT_CONV_BWD_FILTER, /* gradient of the result and activations -> gradient of the weights += */
    CT_CONV_DIRECTIONS
} ct_conv_direction;

/* bias: 1 when CT_CONV_FWD adds one, else 0. Only int64_t members, so that two shapes are equal
 * when their bytes are. */
typedef struct ct_conv_shape {
    int64_t n, h, w, ci, ho, wo, co, kh, kw, stride, pad, bias;
} ct_conv_shape;

typedef struct ct_onednn ct_onednn;
typedef struct ct_conv ct_conv;

CT_NODISCARD ct_status ct_onednn_create(int threads, ct_onednn **out);
void ct_onednn_destroy(ct_onednn *onednn);

/* *out = the convolution for `shape`, built when it is first asked for; owned by `onednn`. */
CT_NODISCARD ct_status ct_onednn_conv(ct_onednn *onednn, ct_conv_direction direction,
                                      const ct_conv_shape *shape, const ct_conv **out);

/* Bytes of scratch memory that ct_onednn_conv_run needs. */
size_t ct_onednn_conv_scratch_bytes(const ct_conv *conv);

/* x: activations (N, H, W, Ci) or their gradient; w: weights (Co, KH, KW, Ci) or their gradient;
 * y: the result (N, Ho, Wo, Co) or its gradient. The direction tells which one is written. bias:
 * (Co), only read when the shape has one. */
CT_NODISCARD ct_status ct_onednn_conv_run(const ct_conv *conv, float *x, float *w, float *bias,
                                          float *y, void *scratch);

/* Number of convolutions built so far. */
int ct_onednn_conv_count(const ct_onednn *onednn);

#endif
