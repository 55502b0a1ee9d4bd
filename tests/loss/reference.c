/* The losses in f64. Each side is taken by itself, rows of it in blocks that the threads share: of
 * images over all texts, then of texts over all images. That is twice the products that one pass
 * would need, but has no sum whose order depends on the threads. */
#include <math.h>
#include <stdlib.h>

#include "problem.h"
#include "support.h"

enum { ROWS = 16 }; /* of a block */

/* One side's rows against the other's. */
typedef struct side {
    const problem *p;
    const double *own, *other;         /* (N, D) */
    const double *own_lse, *other_lse; /* (N), for gradients */
    const double *same;                /* (N): pairs that show the pair's photo */
} side;

static double dot(const double *a, const double *b, int64_t count)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < count; k++) sum += a[k] * b[k];
    return sum;
}

/* z[i][j] for rows begin .. end - 1 and all j. */
static void similarities(const side *s, int64_t begin, int64_t end, double *z)
{
    const int64_t count = s->p->shape.count, width = s->p->shape.width;
    const double factor = exp(s->p->logit_scale);
    for (int64_t j = 0; j < count; j++)
        for (int64_t i = begin; i < end; i++)
            z[(i - begin) * count + j] =
                factor * dot(s->own + i * width, s->other + j * width, width);
}

static bool same_photo(const problem *p, int64_t i, int64_t j)
{
    return p->photo_ids[i] == p->photo_ids[j];
}

static bool counts(const problem *p, int64_t i, int64_t j)
{
    return i == j || p->shape.same_image != CT_SAME_IMAGE_MASK || !same_photo(p, i, j);
}

/* ---- softmax ------------------------------------------------------------------------------ */

/* What pair (i, j), which counts, is to row i. */
static double target_of(const side *s, int64_t i, int64_t j)
{
    const shape *of = &s->p->shape;
    const double smoothing = (double)((float)of->percent / 100);
    double counted = (double)of->count, sharp = i == j;
    if (of->same_image == CT_SAME_IMAGE_MASK) counted -= s->same[i] - 1;
    if (of->same_image == CT_SAME_IMAGE_SHARE) sharp = same_photo(s->p, i, j) ? 1 / s->same[i] : 0;
    return (1 - smoothing) * sharp + smoothing / counted;
}

/* Row i's log-sum-exp; *loss: less its target's similarity. */
static double cross_entropy(const side *s, int64_t i, const double *z, double *loss)
{
    const int64_t count = s->p->shape.count;
    double highest = -INFINITY, sum = 0, target = 0;
    for (int64_t j = 0; j < count; j++)
        if (counts(s->p, i, j)) highest = fmax(highest, z[j]);
    for (int64_t j = 0; j < count; j++) {
        if (!counts(s->p, i, j)) continue;
        sum += exp(z[j] - highest);
        target += target_of(s, i, j) * z[j];
    }
    const double lse = highest + log(sum);
    *loss = lse - target;
    return lse;
}

/* The side's half of the loss. */
static double softmax_half(const side *s, double *lse)
{
    const int64_t count = s->p->shape.count;
    double *losses = must_alloc((size_t)count * sizeof *losses), sum = 0;
#pragma omp parallel
    {
        double *z = must_alloc((size_t)(ROWS * count) * sizeof *z);
#pragma omp for schedule(dynamic)
        for (int64_t begin = 0; begin < count; begin += ROWS) {
            const int64_t end = begin + ROWS < count ? begin + ROWS : count;
            similarities(s, begin, end, z);
            for (int64_t i = begin; i < end; i++)
                lse[i] = cross_entropy(s, i, z + (i - begin) * count, &losses[i]);
        }
        free(z);
    }
    for (int64_t i = 0; i < count; i++) sum += losses[i];
    free(losses);
    return sum / (2 * (double)count);
}

/* ---- derivatives -------------------------------------------------------------------------- */

/* dL/dz of pair (i, j), and the magnitude of what it is a difference of. */
static double derivative(const side *s, int64_t i, int64_t j, double z, double *size)
{
    const problem *p = s->p;
    const double count = (double)p->shape.count;
    *size = 0;
    if (!counts(p, i, j)) return 0;
    if (p->shape.kind == SIGLIP) {
        const bool shared = p->shape.same_image == CT_SAME_IMAGE_SHARE && same_photo(p, i, j);
        const double y = i == j || shared ? 1 : -1;
        *size = 1 / (1 + exp(y * (z + p->logit_bias))) / count;
        return -y * *size;
    }
    const double softmaxes = exp(z - s->own_lse[i]) + exp(z - s->other_lse[j]);
    const double targets = target_of(s, i, j) + target_of(s, j, i);
    *size = (softmaxes + targets) / (2 * count);
    return (softmaxes - targets) / (2 * count);
}

/* What a row gives to the scalars' gradients, and to the sums of magnitudes. */
typedef struct row_sums {
    double dz, dz_z, mass, scale_mass;
} row_sums;

static row_sums gradient_row(const side *s, int64_t i, double *z, double *gradient)
{
    const int64_t count = s->p->shape.count, width = s->p->shape.width;
    const double factor = exp(s->p->logit_scale);
    row_sums sums = {0};
    for (int64_t j = 0; j < count; j++) {
        double size;
        const double dz = derivative(s, i, j, z[j], &size), by = factor * dz;
        const double *other = s->other + j * width;
        sums.dz += dz;
        sums.dz_z += dz * z[j];
        sums.mass += size;
        /* A similarity may be near 0 where its terms are not. */
        sums.scale_mass += size * fmax(fabs(z[j]), factor / sqrt((double)width));
        if (dz == 0) continue;
#pragma omp simd
        for (int64_t k = 0; k < width; k++) gradient[k] += by * other[k];
    }
    return sums;
}

/* gradient: zeros before. */
static row_sums gradient_half(const side *s, double *gradient)
{
    const int64_t count = s->p->shape.count, width = s->p->shape.width;
    row_sums *rows = must_alloc((size_t)count * sizeof *rows), sum = {0};
#pragma omp parallel
    {
        double *z = must_alloc((size_t)(ROWS * count) * sizeof *z);
#pragma omp for schedule(dynamic)
        for (int64_t begin = 0; begin < count; begin += ROWS) {
            const int64_t end = begin + ROWS < count ? begin + ROWS : count;
            similarities(s, begin, end, z);
            for (int64_t i = begin; i < end; i++)
                rows[i] = gradient_row(s, i, z + (i - begin) * count, gradient + i * width);
        }
        free(z);
    }
    for (int64_t i = 0; i < count; i++) {
        sum.dz += rows[i].dz;
        sum.dz_z += rows[i].dz_z;
        sum.mass += rows[i].mass;
        sum.scale_mass += rows[i].scale_mass;
    }
    free(rows);
    return sum;
}

/* ---- the whole ---------------------------------------------------------------------------- */

static double sigmoid_loss(const side *s)
{
    const problem *p = s->p;
    const int64_t count = p->shape.count;
    double *losses = must_alloc((size_t)count * sizeof *losses), sum = 0;
#pragma omp parallel
    {
        double *z = must_alloc((size_t)count * sizeof *z);
#pragma omp for schedule(dynamic, ROWS)
        for (int64_t i = 0; i < count; i++) {
            similarities(s, i, i + 1, z);
            for (int64_t j = 0; j < count; j++) {
                const bool shared =
                    p->shape.same_image == CT_SAME_IMAGE_SHARE && same_photo(p, i, j);
                const double u = (i == j || shared ? 1 : -1) * (z[j] + p->logit_bias);
                if (counts(p, i, j)) losses[i] += fmax(-u, 0) + log1p(exp(-fabs(u)));
            }
        }
        free(z);
    }
    for (int64_t i = 0; i < count; i++) sum += losses[i];
    free(losses);
    return sum / (double)count;
}

static double *count_same(const problem *p)
{
    double *same = must_alloc((size_t)p->shape.count * sizeof *same);
    for (int64_t i = 0; i < p->shape.count; i++)
        for (int64_t j = 0; j < p->shape.count; j++) same[i] += same_photo(p, i, j);
    return same;
}

results reference_results(const problem *p, bool rounded)
{
    const int64_t count = p->shape.count;
    const size_t list = (size_t)count * sizeof(double), matrix = list * (size_t)p->shape.width;
    double *same = count_same(p);
    results r = {.row_lse = must_alloc(list),
                 .col_lse = must_alloc(list),
                 .dimage = must_alloc(matrix),
                 .dtext = must_alloc(matrix)};
    const side images = {p, p->image, p->text, r.row_lse, r.col_lse, same};
    const side texts = {p, p->text, p->image, r.col_lse, r.row_lse, same};
    r.loss = p->shape.kind == SIGLIP
                 ? sigmoid_loss(&images)
                 : softmax_half(&images, r.row_lse) + softmax_half(&texts, r.col_lse);
    for (int64_t i = 0; rounded && i < count; i++) {
        r.row_lse[i] = (double)(float)r.row_lse[i];
        r.col_lse[i] = (double)(float)r.col_lse[i];
    }
    const row_sums sums = gradient_half(&images, r.dimage);
    gradient_half(&texts, r.dtext);
    r.dlogit_scale = sums.dz_z;
    r.dlogit_bias = sums.dz;
    r.mass = sums.mass;
    r.scale_mass = sums.scale_mass;
    free(same);
    return r;
}
