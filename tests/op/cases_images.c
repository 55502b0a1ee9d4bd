#include "kinds.h"

static const ct_case cases[] = {
    /* N, H, W */
    {&ct_kind_image_normalize, "image_normalize_odd", {1, 3, 5}},
    {&ct_kind_image_normalize, "image_normalize_batch", {3, 17, 16}},

    /* N, H, W, Ci, Co, KH, KW, stride, pad, bias, moments, adds */
    {&ct_kind_conv2d, "conv_tiny", {1, 3, 3, 2, 3, 3, 3, 1, 1, 1}},
    {&ct_kind_conv2d, "conv_stem", {2, 21, 19, 3, 16, 7, 7, 2, 3, 0}},
    {&ct_kind_conv2d, "conv_3x3", {2, 9, 7, 16, 32, 3, 3, 1, 1, 0}},
    {&ct_kind_conv2d, "conv_3x3_stride", {2, 9, 9, 16, 16, 3, 3, 2, 1, 0}},
    {&ct_kind_conv2d, "conv_3x3_even_stride", {1, 8, 8, 16, 16, 3, 3, 2, 1, 0}},
    {&ct_kind_conv2d, "conv_1x1", {3, 7, 5, 32, 48, 1, 1, 1, 0, 0}},
    {&ct_kind_conv2d, "conv_1x1_stride", {2, 8, 8, 16, 32, 1, 1, 2, 0, 0}},
    {&ct_kind_conv2d, "conv_1x1_pixel", {1, 1, 1, 5, 7, 1, 1, 1, 0, 1}},
    {&ct_kind_conv2d, "conv_odd_channels", {2, 6, 5, 13, 21, 3, 3, 1, 1, 1}},
    {&ct_kind_conv2d, "conv_patches", {2, 16, 16, 3, 24, 8, 8, 8, 0, 1}},
    {&ct_kind_conv2d, "conv_moments", {3, 9, 7, 16, 32, 3, 3, 1, 1, 0, 1}},
    {&ct_kind_conv2d, "conv_moments_stride", {2, 9, 9, 8, 24, 1, 1, 2, 0, 0, 1}},
    {&ct_kind_conv2d, "conv_moments_odd", {2, 6, 5, 13, 21, 3, 3, 1, 1, 0, 1}},
    {&ct_kind_conv2d, "conv_moments_pixel", {1, 1, 1, 16, 8, 1, 1, 1, 0, 0, 1}},
    {&ct_kind_conv2d, "conv_adds", {2, 9, 7, 16, 24, 3, 3, 1, 1, 0, 0, 1}},
    {&ct_kind_conv2d, "conv_adds_stride", {2, 8, 8, 16, 32, 1, 1, 2, 0, 0, 0, 1}},
    {&ct_kind_conv2d, "conv_adds_odd", {2, 6, 5, 13, 21, 3, 3, 1, 1, 0, 0, 1}},
    {&ct_kind_conv2d, "conv_1x3", {1, 5, 9, 4, 6, 1, 3, 1, 0, 0}},

    /* N, H, W, C, relu, residual, alias, mean */
    {&ct_kind_batchnorm, "batchnorm_plain", {2, 3, 5, 16, 0, 0, CT_BATCHNORM_APART, 0}},
    {&ct_kind_batchnorm, "batchnorm_relu", {2, 5, 5, 33, 1, 0, CT_BATCHNORM_APART, 0}},
    {&ct_kind_batchnorm, "batchnorm_residual", {3, 4, 5, 7, 0, 1, CT_BATCHNORM_APART, 0}},
    {&ct_kind_batchnorm, "batchnorm_residual_relu", {2, 7, 3, 24, 1, 1, CT_BATCHNORM_APART, 0}},
    {&ct_kind_batchnorm, "batchnorm_large", {4, 14, 14, 64, 1, 1, CT_BATCHNORM_APART, 0}},
    {&ct_kind_batchnorm, "batchnorm_far_mean", {4, 14, 14, 16, 0, 0, CT_BATCHNORM_APART, 1000}},
    {&ct_kind_batchnorm, "batchnorm_four_rows", {2, 1, 2, 5, 0, 0, CT_BATCHNORM_APART, 0}},
    {&ct_kind_batchnorm, "batchnorm_dx_is_dy", {2, 5, 5, 19, 1, 0, CT_BATCHNORM_DX_IS_DY, 0}},
    {&ct_kind_batchnorm,
     "batchnorm_dx_is_dy_residual",
     {2, 5, 5, 19, 1, 1, CT_BATCHNORM_DX_IS_DY, 0}},
    {&ct_kind_batchnorm,
     "batchnorm_dresidual_is_dy",
     {2, 5, 5, 19, 1, 1, CT_BATCHNORM_DRESIDUAL_IS_DY, 0}},

    /* N, H, W, C, relu, residual, alias, mean, ranks */
    {&ct_kind_batchnorm_sync, "batchnorm_sync_1", {2, 3, 5, 16, 1, 1, CT_BATCHNORM_APART, 0, 1}},
    {&ct_kind_batchnorm_sync, "batchnorm_sync_2", {4, 5, 5, 33, 1, 0, CT_BATCHNORM_APART, 0, 2}},
    {&ct_kind_batchnorm_sync, "batchnorm_sync_3", {3, 7, 3, 24, 1, 1, CT_BATCHNORM_APART, 0, 3}},
    {&ct_kind_batchnorm_sync, "batchnorm_sync_plain", {2, 1, 3, 5, 0, 0, CT_BATCHNORM_APART, 0, 2}},
    {&ct_kind_batchnorm_sync,
     "batchnorm_sync_residual",
     {2, 4, 5, 8, 0, 1, CT_BATCHNORM_APART, 0, 2}},
    {&ct_kind_batchnorm_sync,
     "batchnorm_sync_single_rows",
     {3, 1, 1, 9, 0, 0, CT_BATCHNORM_APART, 0, 3}},
    {&ct_kind_batchnorm_sync,
     "batchnorm_sync_large",
     {4, 14, 14, 64, 1, 1, CT_BATCHNORM_DRESIDUAL_IS_DY, 0, 2}},
    {&ct_kind_batchnorm_sync,
     "batchnorm_sync_far_mean",
     {6, 14, 7, 16, 0, 0, CT_BATCHNORM_APART, 1000, 3}},
    {&ct_kind_batchnorm_sync,
     "batchnorm_sync_dx_is_dy",
     {2, 5, 5, 19, 1, 0, CT_BATCHNORM_DX_IS_DY, 0, 2}},
    {&ct_kind_batchnorm_sync,
     "batchnorm_sync_dx_is_dy_residual",
     {2, 5, 5, 24, 1, 1, CT_BATCHNORM_DX_IS_DY, 0, 2}},
    {&ct_kind_batchnorm_sync,
     "batchnorm_sync_dresidual_is_dy",
     {2, 5, 5, 19, 1, 1, CT_BATCHNORM_DRESIDUAL_IS_DY, 0, 2}},

    /* N, H, W, C, relu, residual */
    {&ct_kind_batchnorm_eval, "batchnorm_eval", {1, 3, 4, 17, 0, 0}},
    {&ct_kind_batchnorm_eval, "batchnorm_eval_residual_relu", {2, 3, 4, 17, 1, 1}},

    /* N, H, W, C, window, stride, pad, equal */
    {&ct_kind_maxpool, "maxpool_stem", {2, 9, 11, 16, 3, 2, 1, 0}},
    {&ct_kind_maxpool, "maxpool_even", {1, 8, 8, 5, 3, 2, 1, 0}},
    {&ct_kind_maxpool, "maxpool_2x2", {2, 6, 7, 33, 2, 2, 0, 0}},
    {&ct_kind_maxpool, "maxpool_gaps", {1, 8, 8, 3, 2, 3, 0, 0}},
    {&ct_kind_maxpool, "maxpool_overlap", {1, 5, 5, 3, 3, 1, 1, 0}},
    {&ct_kind_maxpool, "maxpool_ties", {2, 9, 11, 16, 3, 2, 1, 1}},

    /* N, H, W, C */
    {&ct_kind_avgpool, "avgpool_head", {3, 7, 7, 40}},
    {&ct_kind_avgpool, "avgpool_pixel", {1, 1, 1, 3}},
    {&ct_kind_avgpool, "avgpool_wide", {2, 5, 3, 129}},
};
CT_DEFINE_CASE_TABLE(images, cases);
