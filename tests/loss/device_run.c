#include <stdlib.h>

#include "problem.h"
#include "support.h"

/* The CPU backend's tensors are plain memory. */
typedef struct device_memory {
    float *image, *text, *dimage, *dtext; /* (N, D) */
    float *row_lse, *col_lse, *target;    /* (N) */
    float *parts;                         /* (ranks, N) */
    float logit_scale, logit_bias, dlogit_scale, dlogit_bias;
} device_memory;

static float *floats(int64_t count)
{
    return must_alloc((size_t)count * sizeof(float));
}

static float *rounded(const double *x, int64_t count)
{
    float *y = floats(count);
    for (int64_t k = 0; k < count; k++) y[k] = (float)x[k];
    return y;
}

/* Frees x. */
static double *widened(float *x, int64_t count)
{
    double *y = must_alloc((size_t)count * sizeof *y);
    for (int64_t k = 0; k < count; k++) y[k] = (double)x[k];
    free(x);
    return y;
}

/* Rank r has rows first_row(r) .. first_row(r + 1) - 1. */
static int64_t first_row(const shape *s, int rank)
{
    const int64_t ranks = s->ranks ? s->ranks : 1;
    if (s->even) return s->count * rank / ranks;
    return rank + (s->count - ranks) * rank * rank / (ranks * ranks);
}

/* What both losses' and both directions' arguments have. */
#define INPUTS(p, m)                                                                               \
    .image = ct_tensor2((m)->image, CT_F32, (p)->shape.count, (p)->shape.width),                   \
    .text = ct_tensor2((m)->text, CT_F32, (p)->shape.count, (p)->shape.width),                     \
    .logit_scale = ct_tensor1(&(m)->logit_scale, CT_F32, 1),                                       \
    .photo_ids = ct_tensor1((p)->photo_ids, CT_I32, (p)->shape.count),                             \
    .same_image = (p)->shape.same_image

static ct_tensor list(float *x, int64_t first, int64_t count)
{
    return ct_tensor1(x + first, CT_F32, count);
}

static double clip_forward(ct_device *device, const problem *p, device_memory *m)
{
    const ct_backend *backend = device->backend;
    const int64_t count = p->shape.count;
    const int ranks = p->shape.ranks ? p->shape.ranks : 1;
    double loss = 0;
    for (int r = 0; r < ranks; r++) {
        const int64_t first = first_row(&p->shape, r), rows = first_row(&p->shape, r + 1) - first;
        const ct_clip_loss_fwd_args args = {.row_lse = list(m->row_lse, first, rows),
                                            .col_lse = list(m->parts, r * count, count),
                                            .target = list(m->target, first, rows),
                                            INPUTS(p, m),
                                            .first = first,
                                            .label_smoothing = (float)p->shape.percent / 100};
        assert_ok(backend->clip_loss_fwd(device, &args));
    }
    const ct_clip_loss_merge_args merge = {.lse = list(m->col_lse, 0, count),
                                           .parts = ct_tensor2(m->parts, CT_F32, ranks, count)};
    assert_ok(backend->clip_loss_merge(device, &merge));
    for (int r = 0; r < ranks; r++) {
        const int64_t first = first_row(&p->shape, r), rows = first_row(&p->shape, r + 1) - first;
        float share;
        const ct_clip_loss_total_args args = {.loss = list(&share, 0, 1),
                                              .row_lse = list(m->row_lse, first, rows),
                                              .col_lse = list(m->col_lse, first, rows),
                                              .target = list(m->target, first, rows),
                                              .count = count};
        assert_ok(backend->clip_loss_total(device, &args));
        loss += (double)share;
    }
    return loss;
}

static double siglip_forward(ct_device *device, const problem *p, device_memory *m)
{
    double loss = 0;
    for (int r = 0; r < (p->shape.ranks ? p->shape.ranks : 1); r++) {
        const int64_t first = first_row(&p->shape, r);
        float share;
        const ct_siglip_loss_fwd_args args = {.loss = list(&share, 0, 1),
                                              INPUTS(p, m),
                                              .logit_bias = list(&m->logit_bias, 0, 1),
                                              .first = first,
                                              .rows = first_row(&p->shape, r + 1) - first};
        assert_ok(device->backend->siglip_loss_fwd(device, &args));
        loss += (double)share;
    }
    return loss;
}

static void backward(ct_device *device, const problem *p, device_memory *m)
{
    const int64_t count = p->shape.count, width = p->shape.width;
    for (int r = 0; r < (p->shape.ranks ? p->shape.ranks : 1); r++) {
        const int64_t first = first_row(&p->shape, r), rows = first_row(&p->shape, r + 1) - first;
        const ct_tensor dimage = ct_tensor2(m->dimage + first * width, CT_F32, rows, width);
        const ct_tensor dtext = ct_tensor2(m->dtext + first * width, CT_F32, rows, width);
        const ct_clip_loss_bwd_args clip = {.dimage = dimage,
                                            .dtext = dtext,
                                            .dlogit_scale = list(&m->dlogit_scale, 0, 1),
                                            INPUTS(p, m),
                                            .row_lse = list(m->row_lse, 0, count),
                                            .col_lse = list(m->col_lse, 0, count),
                                            .first = first,
                                            .label_smoothing = (float)p->shape.percent / 100};
        const ct_siglip_loss_bwd_args siglip = {.dimage = dimage,
                                                .dtext = dtext,
                                                .dlogit_scale = list(&m->dlogit_scale, 0, 1),
                                                .dlogit_bias = list(&m->dlogit_bias, 0, 1),
                                                INPUTS(p, m),
                                                .logit_bias = list(&m->logit_bias, 0, 1),
                                                .first = first};
        assert_ok(p->shape.kind == SIGLIP ? device->backend->siglip_loss_bwd(device, &siglip)
                                          : device->backend->clip_loss_bwd(device, &clip));
    }
}

results device_results(ct_device *device, const problem *p)
{
    const int64_t count = p->shape.count, numbers = count * p->shape.width;
    const int ranks = p->shape.ranks ? p->shape.ranks : 1;
    device_memory m = {.image = rounded(p->image, numbers),
                       .text = rounded(p->text, numbers),
                       .dimage = floats(numbers),
                       .dtext = floats(numbers),
                       .row_lse = floats(count),
                       .col_lse = floats(count),
                       .target = floats(count),
                       .parts = floats(ranks * count),
                       .logit_scale = (float)p->logit_scale,
                       .logit_bias = (float)p->logit_bias};
    results r = {.loss = p->shape.kind == SIGLIP ? siglip_forward(device, p, &m)
                                                 : clip_forward(device, p, &m)};
    backward(device, p, &m);
    r.dlogit_scale = (double)m.dlogit_scale;
    r.dlogit_bias = (double)m.dlogit_bias;
    r.row_lse = widened(m.row_lse, count);
    r.col_lse = widened(m.col_lse, count);
    r.dimage = widened(m.dimage, numbers);
    r.dtext = widened(m.dtext, numbers);
    free(m.image);
    free(m.text);
    free(m.target);
    free(m.parts);
    return r;
}
