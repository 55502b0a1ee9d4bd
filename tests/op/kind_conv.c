#include <math.h>

#include "kinds.h"

enum { P_N, P_H, P_W, P_CI, P_CO, P_KH, P_KW, P_STRIDE, P_PAD, P_BIAS, P_MOMENTS, P_ADDS };
enum { X, W, BIAS, Y, MOMENTS };

static int64_t out_size(int64_t in, int64_t kernel, const int64_t *p)
{
    return (in + 2 * p[P_PAD] - kernel) / p[P_STRIDE] + 1;
}

static void conv_setup(ct_case_run *run)
{
    const int64_t *p = run->p;
    const int64_t ho = out_size(p[P_H], p[P_KH], p), wo = out_size(p[P_W], p[P_KW], p);
    ct_slot *x = ct_case_slot(run, X, "x", CT_SLOT_INPUT, CT_CASE_COMPUTE,
                              (const int64_t[]){p[P_N], p[P_H], p[P_W], p[P_CI], 0}, false);
    ct_slot *w = ct_case_slot(run, W, "w", CT_SLOT_PARAM, CT_CASE_COMPUTE,
                              (const int64_t[]){p[P_CO], p[P_KH], p[P_KW], p[P_CI], 0}, false);
    ct_slot *bias = ct_case_slot(run, BIAS, "bias", CT_SLOT_PARAM, CT_F32,
                                 (const int64_t[]){p[P_CO], 0}, !p[P_BIAS]);
    ct_slot *y = ct_case_slot(run, Y, "y", CT_SLOT_OUTPUT, CT_CASE_COMPUTE,
                              (const int64_t[]){p[P_N], ho, wo, p[P_CO], 0}, false);
    ct_slot *moments = ct_case_slot(run, MOMENTS, "moments", CT_SLOT_SAVED, CT_F32,
                                    (const int64_t[]){2, p[P_CO], 0}, !p[P_MOMENTS]);
    moments->terms = (double)(p[P_N] * ho * wo);
    x->adds = p[P_ADDS];
    y->terms = (double)(p[P_KH] * p[P_KW] * p[P_CI] + 1);
    x->grad_terms = (double)(p[P_KH] * p[P_KW] * p[P_CO]);
    w->grad_terms = bias->grad_terms = (double)(p[P_N] * ho * wo);
}

/* Calls visit(run, x index, w index, y index) for every product of the convolution. */
static void each_product(ct_case_run *run, void (*visit)(ct_case_run *, int64_t, int64_t, int64_t))
{
    const int64_t *p = run->p;
    const int64_t ho = out_size(p[P_H], p[P_KH], p), wo = out_size(p[P_W], p[P_KW], p);
    for (int64_t position = 0; position < p[P_N] * ho * wo; position++) {
        const int64_t n = position / (ho * wo), oh = position / wo % ho, ow = position % wo;
        for (int64_t tap = 0; tap < p[P_KH] * p[P_KW]; tap++) {
            const int64_t h = oh * p[P_STRIDE] - p[P_PAD] + tap / p[P_KW];
            const int64_t w = ow * p[P_STRIDE] - p[P_PAD] + tap % p[P_KW];
            if (h < 0 || h >= p[P_H] || w < 0 || w >= p[P_W]) continue;
            const int64_t x = ((n * p[P_H] + h) * p[P_W] + w) * p[P_CI];
            for (int64_t co = 0; co < p[P_CO]; co++)
                for (int64_t ci = 0; ci < p[P_CI]; ci++)
                    visit(run, x + ci, (co * p[P_KH] * p[P_KW] + tap) * p[P_CI] + ci,
                          position * p[P_CO] + co);
        }
    }
}

static void forward_product(ct_case_run *run, int64_t x, int64_t w, int64_t y)
{
    run->slot[Y].v[y] += run->slot[X].v[x] * run->slot[W].v[w];
}

/* Of y as it is stored. A variance may be formed from sums of squares, where mean^2 cancels. */
static void reference_moments(ct_case_run *run)
{
    const ct_slot *y = &run->slot[Y];
    ct_slot *moments = &run->slot[MOMENTS];
    const int64_t channels = run->p[P_CO], rows = y->count / channels;
    moments->magnitude = 0;
    for (int64_t c = 0; c < channels; c++) {
        double mean = 0, variance = 0;
        for (int64_t i = c; i < y->count; i += channels)
            mean += ct_case_stored(run, y, y->v[i]) / (double)rows;
        for (int64_t i = c; i < y->count; i += channels) {
            const double apart = ct_case_stored(run, y, y->v[i]) - mean;
            variance += apart * apart / (double)rows;
        }
        moments->v[c] = mean;
        moments->v[channels + c] = variance;
        moments->magnitude = fmax(moments->magnitude, mean * mean + variance);
    }
}

static void conv_ref_fwd(ct_case_run *run)
{
    const int64_t co = run->p[P_CO];
    ct_slot *y = &run->slot[Y];
    for (int64_t i = 0; i < y->count; i++) y->v[i] = 0;
    each_product(run, forward_product);
    for (int64_t i = 0; run->p[P_BIAS] && i < y->count; i++)
        y->v[i] = ct_case_stored(run, y, y->v[i]) + run->slot[BIAS].v[i % co];
    if (run->p[P_MOMENTS]) reference_moments(run);
}

static void backward_product(ct_case_run *run, int64_t x, int64_t w, int64_t y)
{
    run->slot[X].g[x] += run->slot[Y].g[y] * run->slot[W].v[w];
    run->slot[W].g[w] += run->slot[Y].g[y] * run->slot[X].v[x];
}

static void conv_ref_bwd(ct_case_run *run)
{
    for (int s = X; s <= BIAS; s++)
        for (int64_t i = 0; i < run->slot[s].count; i++) run->slot[s].g[i] = 0;
    each_product(run, backward_product);
    ct_slot *w = &run->slot[W];
    for (int64_t i = 0; i < w->count; i++) w->g[i] = ct_case_stored(run, w, w->g[i]);
    for (int64_t i = 0; run->p[P_BIAS] && i < run->slot[Y].count; i++)
        run->slot[BIAS].g[i % run->p[P_CO]] += run->slot[Y].g[i];
}

static ct_status conv_fwd(ct_case_run *run)
{
    return ct_op_conv2d_fwd(&run->exec, &(ct_conv2d_fwd_args){.y = run->slot[Y].t,
                                                              .moments = run->slot[MOMENTS].t,
                                                              .x = run->slot[X].t,
                                                              .w = run->slot[W].t,
                                                              .bias = run->slot[BIAS].t,
                                                              .stride = (int)run->p[P_STRIDE],
                                                              .pad = (int)run->p[P_PAD]});
}

static ct_status conv_bwd(ct_case_run *run)
{
    const int stride = (int)run->p[P_STRIDE], pad = (int)run->p[P_PAD];
    CT_TRY(ct_op_conv2d_bwd_data(&run->exec,
                                 &(ct_conv2d_bwd_data_args){.dx = run->slot[X].d,
                                                            .dy = run->slot[Y].d,
                                                            .w = run->slot[W].t,
                                                            .stride = stride,
                                                            .pad = pad,
                                                            .accumulate = run->p[P_ADDS]}));
    return ct_op_conv2d_bwd_filter(&run->exec,
                                   &(ct_conv2d_bwd_filter_args){.dw = run->slot[W].d,
                                                                .dbias = run->slot[BIAS].d,
                                                                .dy = run->slot[Y].d,
                                                                .x = run->slot[X].t,
                                                                .stride = stride,
                                                                .pad = pad});
}

static double conv_flops(const int64_t *p, bool backward)
{
    double outputs =
        (double)(p[P_N] * out_size(p[P_H], p[P_KH], p) * out_size(p[P_W], p[P_KW], p) * p[P_CO]);
    return (backward ? 4 : 2) * outputs * (double)(p[P_KH] * p[P_KW] * p[P_CI]);
}

const ct_kind ct_kind_conv2d = {
    .name = "conv2d",
    .setup = conv_setup,
    .ref_fwd = conv_ref_fwd,
    .ref_bwd = conv_ref_bwd,
    .fwd = conv_fwd,
    .bwd = conv_bwd,
    .flops = conv_flops,
    .products = true,
};
