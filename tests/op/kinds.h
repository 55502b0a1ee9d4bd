/* The kinds that the case tables refer to, and what each parameter of a case means. */
#ifndef CT_TESTS_OP_KINDS_H
#define CT_TESTS_OP_KINDS_H

#include "case.h"

/* {N, H, W} */
extern const ct_kind ct_kind_image_normalize;
/* {N, H, W, Ci, Co, KH, KW, stride, pad, bias, moments, adds}; adds: to what dx holds */
extern const ct_kind ct_kind_conv2d;
/* {N, H, W, C, relu, residual, alias, mean}; alias: ct_batchnorm_alias; mean: that of x, in
 * standard deviations */
extern const ct_kind ct_kind_batchnorm;
/* {N, H, W, C, relu, residual, alias, mean, ranks}; the batch of N is that of all ranks, which have
 * N/ranks each */
extern const ct_kind ct_kind_batchnorm_sync;
/* {N, H, W, C, relu, residual} */
extern const ct_kind ct_kind_batchnorm_eval;
/* {N, H, W, C, window, stride, pad, equal}; equal: few distinct values, so that there are ties */
extern const ct_kind ct_kind_maxpool;
/* {N, H, W, C} */
extern const ct_kind ct_kind_avgpool;
/* {M, K, N, bias, activation, dx, before, adds}; dx 0: the gradient of x is not wanted; before: the
 * activation that x goes through first; adds: to what dx holds */
extern const ct_kind ct_kind_linear;
/* {count, activation, alias}; alias 1: y is x and dx is dy */
extern const ct_kind ct_kind_activation;

typedef enum ct_batchnorm_alias {
    CT_BATCHNORM_APART,
    CT_BATCHNORM_DX_IS_DY,
    CT_BATCHNORM_DRESIDUAL_IS_DY
} ct_batchnorm_alias;

#endif
