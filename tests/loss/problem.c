#include "problem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "support.h"

enum { STREAM_IMAGE, STREAM_TEXT, STREAM_PHOTOS, STREAM_BATCH };

static ct_rng_key stream(uint64_t seed, int use)
{
    return ct_rng_make(seed, CT_RNG_TEST, 1000 + (uint64_t)use, 0);
}

static void normalize(double *x, int64_t width)
{
    double squares = 0;
    for (int64_t k = 0; k < width; k++) squares += x[k] * x[k];
    for (int64_t k = 0; k < width; k++) x[k] /= sqrt(squares);
}

static void fill_embeddings(problem *p, uint64_t seed)
{
    const int64_t count = p->shape.count, width = p->shape.width;
    const ct_rng_key image = stream(seed, STREAM_IMAGE), text = stream(seed, STREAM_TEXT);
    const double drawn = 2 * (double)ct_rng_uniform(stream(seed, STREAM_BATCH), 0);
    const double nearness = p->shape.filling == UNRELATED ? 0 : drawn;
    for (int64_t k = 0; k < count * width; k++) {
        const int64_t from = p->shape.filling == EQUAL ? k % width : k;
        const double x = ct_rng_normal(image, (uint64_t)from);
        p->image[k] = p->text[k] = x;
        if (p->shape.filling == OPPOSITE) p->text[k] = -x;
        if (p->shape.filling == MATCHED || p->shape.filling == UNRELATED)
            p->text[k] = nearness * x + ct_rng_normal(text, (uint64_t)k);
    }
    for (int64_t i = 0; i < count; i++) {
        normalize(p->image + i * width, width);
        normalize(p->text + i * width, width);
    }
}

static problem allocate(const shape *s)
{
    const size_t embeddings = (size_t)(s->count * s->width) * sizeof(double);
    return (problem){.shape = *s,
                     .image = must_alloc(embeddings),
                     .text = must_alloc(embeddings),
                     .photo_ids = must_alloc((size_t)s->count * sizeof(int32_t))};
}

problem problem_create(const shape *s, uint64_t seed)
{
    problem p = allocate(s);
    const uint32_t photos = (uint32_t)(2 * s->count + 1);
    fill_embeddings(&p, seed);
    for (int64_t i = 0; i < s->count; i++)
        p.photo_ids[i] = (int32_t)ct_rng_below(stream(seed, STREAM_PHOTOS), (uint64_t)i, photos) -
                         (int32_t)(photos / 2);
    p.logit_scale = log(s->factor);
    p.logit_bias = s->kind == SIGLIP ? -10 / (1 + 9 / s->factor) : 0;
    return p;
}

void problem_free(problem *p)
{
    free(p->image);
    free(p->text);
    free(p->photo_ids);
}

problem problem_rounded(const problem *p)
{
    problem rounded = allocate(&p->shape);
    for (int64_t k = 0; k < p->shape.count * p->shape.width; k++) {
        rounded.image[k] = (double)(float)p->image[k];
        rounded.text[k] = (double)(float)p->text[k];
    }
    memcpy(rounded.photo_ids, p->photo_ids, (size_t)p->shape.count * sizeof *p->photo_ids);
    rounded.logit_scale = (double)(float)p->logit_scale;
    rounded.logit_bias = (double)(float)p->logit_bias;
    return rounded;
}

problem problem_permuted(const problem *p, const int64_t *order)
{
    problem permuted = allocate(&p->shape);
    const int64_t width = p->shape.width;
    const size_t row = (size_t)width * sizeof(double);
    permuted.logit_scale = p->logit_scale;
    permuted.logit_bias = p->logit_bias;
    for (int64_t i = 0; i < p->shape.count; i++) {
        memcpy(permuted.image + i * width, p->image + order[i] * width, row);
        memcpy(permuted.text + i * width, p->text + order[i] * width, row);
        permuted.photo_ids[i] = p->photo_ids[order[i]];
    }
    return permuted;
}

void results_free(results *r)
{
    free(r->row_lse);
    free(r->col_lse);
    free(r->dimage);
    free(r->dtext);
}
