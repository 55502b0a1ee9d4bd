#include <math.h>

#include "kinds.h"

/* ---- max ----------------------------------------------------------------------------------- */

enum { P_N, P_H, P_W, P_C, P_WINDOW, P_STRIDE, P_PAD, P_EQUAL };
enum { X, Y, INDEX };

static int64_t out_size(int64_t in, const int64_t *p)
{
    return (in + 2 * p[P_PAD] - p[P_WINDOW]) / p[P_STRIDE] + 1;
}

static void max_setup(ct_case_run *run)
{
    const int64_t *p = run->p, in[] = {p[P_N], p[P_H], p[P_W], p[P_C], 0};
    const int64_t out[] = {p[P_N], out_size(p[P_H], p), out_size(p[P_W], p), p[P_C], 0};
    ct_slot *x = ct_case_slot(run, X, "x", CT_SLOT_INPUT, CT_CASE_COMPUTE, in, false);
    ct_case_slot(run, Y, "y", CT_SLOT_OUTPUT, CT_CASE_COMPUTE, out, false);
    ct_case_slot(run, INDEX, "index", CT_SLOT_SAVED, CT_U8, out, false);
    x->grad_terms = (double)(p[P_WINDOW] * p[P_WINDOW]);
    run->kinked = p[P_EQUAL];
}

static void max_fill(ct_case_run *run)
{
    for (int64_t i = 0; run->p[P_EQUAL] && i < run->slot[X].count; i++)
        run->slot[X].v[i] = (double)ct_case_below(run, X, i, 3) - 1;
}

/* Element of x at place `place` of the window of y's element i; -1: padding. */
static int64_t window_element(const int64_t *p, int64_t i, int64_t place)
{
    const int64_t ho = out_size(p[P_H], p), wo = out_size(p[P_W], p);
    const int64_t c = i % p[P_C], position = i / p[P_C];
    const int64_t h = position / wo % ho * p[P_STRIDE] - p[P_PAD] + place / p[P_WINDOW];
    const int64_t w = position % wo * p[P_STRIDE] - p[P_PAD] + place % p[P_WINDOW];
    if (h < 0 || h >= p[P_H] || w < 0 || w >= p[P_W]) return -1;
    return ((position / (ho * wo) * p[P_H] + h) * p[P_W] + w) * p[P_C] + c;
}

static void max_ref_fwd(ct_case_run *run)
{
    const int64_t places = run->p[P_WINDOW] * run->p[P_WINDOW];
    for (int64_t i = 0; i < run->slot[Y].count; i++) {
        double best = -INFINITY;
        for (int64_t place = 0; place < places; place++) {
            const int64_t at = window_element(run->p, i, place);
            if (at < 0 || run->slot[X].v[at] <= best) continue;
            best = run->slot[X].v[at];
            run->slot[INDEX].v[i] = (double)place;
        }
        run->slot[Y].v[i] = best;
    }
}

static void max_ref_bwd(ct_case_run *run)
{
    for (int64_t i = 0; i < run->slot[X].count; i++) run->slot[X].g[i] = 0;
    const double *winner = run->decisions->slot[INDEX].v;
    for (int64_t i = 0; i < run->slot[Y].count; i++)
        run->slot[X].g[window_element(run->p, i, (int64_t)winner[i])] += run->slot[Y].g[i];
}

static ct_status max_fwd(ct_case_run *run)
{
    return ct_op_maxpool_fwd(&run->exec, &(ct_maxpool_fwd_args){.y = run->slot[Y].t,
                                                                .index = run->slot[INDEX].t,
                                                                .x = run->slot[X].t,
                                                                .window = (int)run->p[P_WINDOW],
                                                                .stride = (int)run->p[P_STRIDE],
                                                                .pad = (int)run->p[P_PAD]});
}

static ct_status max_bwd(ct_case_run *run)
{
    return ct_op_maxpool_bwd(&run->exec, &(ct_maxpool_bwd_args){.dx = run->slot[X].d,
                                                                .dy = run->slot[Y].d,
                                                                .index = run->slot[INDEX].t,
                                                                .window = (int)run->p[P_WINDOW],
                                                                .stride = (int)run->p[P_STRIDE],
                                                                .pad = (int)run->p[P_PAD]});
}

/* One comparison, or one addition, a place. */
static double max_flops(const int64_t *p, bool backward)
{
    (void)backward;
    return (double)(p[P_N] * out_size(p[P_H], p) * out_size(p[P_W], p) * p[P_C] * p[P_WINDOW] *
                    p[P_WINDOW]);
}

const ct_kind ct_kind_maxpool = {
    .name = "maxpool",
    .setup = max_setup,
    .fill = max_fill,
    .ref_fwd = max_ref_fwd,
    .ref_bwd = max_ref_bwd,
    .fwd = max_fwd,
    .bwd = max_bwd,
    .flops = max_flops,
};

/* ---- average ------------------------------------------------------------------------------- */

static void average_setup(ct_case_run *run)
{
    const int64_t *p = run->p;
    ct_case_slot(run, X, "x", CT_SLOT_INPUT, CT_CASE_COMPUTE,
                 (const int64_t[]){p[P_N], p[P_H], p[P_W], p[P_C], 0}, false);
    ct_slot *y = ct_case_slot(run, Y, "y", CT_SLOT_OUTPUT, CT_CASE_COMPUTE,
                              (const int64_t[]){p[P_N], p[P_C], 0}, false);
    y->terms = (double)(p[P_H] * p[P_W]);
}

/* y's element that x's element i is averaged into. */
static int64_t average_of(const int64_t *p, int64_t i)
{
    return i / (p[P_H] * p[P_W] * p[P_C]) * p[P_C] + i % p[P_C];
}

static void average_ref_fwd(ct_case_run *run)
{
    const double positions = (double)(run->p[P_H] * run->p[P_W]);
    for (int64_t i = 0; i < run->slot[Y].count; i++) run->slot[Y].v[i] = 0;
    for (int64_t i = 0; i < run->slot[X].count; i++)
        run->slot[Y].v[average_of(run->p, i)] += run->slot[X].v[i] / positions;
}

static void average_ref_bwd(ct_case_run *run)
{
    const double positions = (double)(run->p[P_H] * run->p[P_W]);
    for (int64_t i = 0; i < run->slot[X].count; i++)
        run->slot[X].g[i] = run->slot[Y].g[average_of(run->p, i)] / positions;
}

static ct_status average_fwd(ct_case_run *run)
{
    return ct_op_avgpool_fwd(&run->exec,
                             &(ct_avgpool_fwd_args){.y = run->slot[Y].t, .x = run->slot[X].t});
}

static ct_status average_bwd(ct_case_run *run)
{
    return ct_op_avgpool_bwd(&run->exec,
                             &(ct_avgpool_bwd_args){.dx = run->slot[X].d, .dy = run->slot[Y].d});
}

static double average_flops(const int64_t *p, bool backward)
{
    (void)backward;
    return (double)(p[P_N] * p[P_H] * p[P_W] * p[P_C]);
}

const ct_kind ct_kind_avgpool = {
    .name = "avgpool",
    .setup = average_setup,
    .ref_fwd = average_ref_fwd,
    .ref_bwd = average_ref_bwd,
    .fwd = average_fwd,
    .bwd = average_bwd,
    .flops = average_flops,
};
