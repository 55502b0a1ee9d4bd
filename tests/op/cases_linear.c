#include "kinds.h"

static const ct_case cases[] = {
    /* M, K, N, bias, activation, dx, activation before, adds */
    {&ct_kind_linear, "linear_tiny", {2, 3, 5, 1, CT_ACT_NONE, 1}},
    {&ct_kind_linear, "linear_plain", {17, 32, 24, 0, CT_ACT_NONE, 1}},
    {&ct_kind_linear, "linear_row", {1, 64, 48, 1, CT_ACT_NONE, 1}},
    {&ct_kind_linear, "linear_column", {33, 16, 1, 1, CT_ACT_NONE, 1}},
    {&ct_kind_linear, "linear_long", {3, 2048, 8, 1, CT_ACT_NONE, 1}},
    {&ct_kind_linear, "linear_no_dx", {19, 8, 16, 1, CT_ACT_NONE, 0}},
    {&ct_kind_linear, "linear_relu", {9, 16, 16, 1, CT_ACT_RELU, 1}},
    {&ct_kind_linear, "linear_gelu", {13, 32, 67, 1, CT_ACT_GELU, 1}},
    {&ct_kind_linear, "linear_gelu_no_bias", {13, 32, 16, 0, CT_ACT_GELU, 1}},
    {&ct_kind_linear, "linear_gelu_tanh", {13, 32, 67, 1, CT_ACT_GELU_TANH, 1}},
    {&ct_kind_linear, "linear_gelu_tanh_no_dx", {9, 40, 24, 1, CT_ACT_GELU_TANH, 0}},
    {&ct_kind_linear, "linear_quick_gelu", {5, 24, 33, 1, CT_ACT_QUICK_GELU, 1}},
    {&ct_kind_linear, "linear_adds", {13, 40, 24, 1, CT_ACT_NONE, 1, CT_ACT_NONE, 1}},
    {&ct_kind_linear, "linear_adds_odd", {5, 33, 7, 0, CT_ACT_NONE, 1, CT_ACT_NONE, 1}},
    {&ct_kind_linear, "linear_after_relu", {9, 16, 24, 1, CT_ACT_NONE, 1, CT_ACT_RELU}},
    {&ct_kind_linear, "linear_after_gelu", {13, 32, 20, 1, CT_ACT_NONE, 1, CT_ACT_GELU}},
    {&ct_kind_linear, "linear_after_gelu_tanh", {13, 64, 24, 1, CT_ACT_NONE, 1, CT_ACT_GELU_TANH}},
    {&ct_kind_linear,
     "linear_after_gelu_tanh_odd",
     {7, 33, 20, 0, CT_ACT_NONE, 1, CT_ACT_GELU_TANH}},
    {&ct_kind_linear,
     "linear_after_gelu_tanh_no_dx",
     {9, 24, 16, 1, CT_ACT_NONE, 0, CT_ACT_GELU_TANH}},
    {&ct_kind_linear, "linear_between", {11, 40, 16, 1, CT_ACT_GELU, 1, CT_ACT_QUICK_GELU}},

    /* count, activation, alias */
    {&ct_kind_activation, "relu", {1000, CT_ACT_RELU, 0}},
    {&ct_kind_activation, "gelu", {1003, CT_ACT_GELU, 0}},
    {&ct_kind_activation, "gelu_tanh", {1003, CT_ACT_GELU_TANH, 0}},
    {&ct_kind_activation, "gelu_tanh_in_place", {517, CT_ACT_GELU_TANH, 1}},
    {&ct_kind_activation, "quick_gelu", {1003, CT_ACT_QUICK_GELU, 0}},
    {&ct_kind_activation, "gelu_in_place", {10007, CT_ACT_GELU, 1}},
    {&ct_kind_activation, "activation_none", {37, CT_ACT_NONE, 0}},
    {&ct_kind_activation, "activation_none_in_place", {37, CT_ACT_NONE, 1}},
};
CT_DEFINE_CASE_TABLE(linear, cases);
