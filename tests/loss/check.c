#include <float.h>
#include <math.h>

#include "problem.h"
#include "support.h"

static double limit(double rounding_error, double terms, double size)
{
    return 2 * rounding_error + (double)FLT_EPSILON * sqrt(terms) * size;
}

/* What an array's numbers are made of. */
typedef struct scale {
    double largest, mean; /* size of what cancels, where that is larger than the results */
    double rounded;       /* by how much more than eps sqrt(terms) of its size a result is off */
} scale;

static void check_array(const problem *p, const char *name, const double *r0, const double *r1,
                        const double *d, int64_t count, scale of)
{
    const shape *s = &p->shape;
    const double terms = (double)(s->count + s->width), n = (double)count;
    double largest = 0, rounding = 0, error = 0, square = 0, rounding_square = 0, error_square = 0;
    for (int64_t i = 0; i < count; i++) {
        const double of_rounding = fabs((double)(float)r1[i] - r0[i]),
                     of_device = fabs(d[i] - r0[i]);
        largest = fmax(largest, fabs(r0[i]));
        rounding = fmax(rounding, of_rounding);
        if (!(of_device <= error)) error = of_device; /* NaN too */
        square += r0[i] * r0[i];
        rounding_square += of_rounding * of_rounding;
        error_square += of_device * of_device;
    }
    const double allowed = limit(rounding, terms, of.rounded * fmax(of.largest, largest));
    const double rms = sqrt(error_square / n);
    const double rms_allowed =
        limit(sqrt(rounding_square / n), terms, of.rounded * fmax(of.mean, sqrt(square / n)));
    if (error <= allowed && rms <= rms_allowed) return;
    fail_msg("%s of %s %lld x %lld, same_image %d, factor %g, smoothing %d%%, filling %d, %d "
             "ranks: error %.3g, limit %.3g (rounding alone %.3g); rms %.3g, limit %.3g",
             name, s->kind == CLIP ? "clip_loss" : "siglip_loss", (long long)s->count,
             (long long)s->width, (int)s->same_image, s->factor, s->percent, (int)s->filling,
             s->ranks, error, allowed, rounding, rms, rms_allowed);
}

static double largest_of(const double *x, int64_t count)
{
    double largest = 0;
    for (int64_t k = 0; k < count; k++) largest = fmax(largest, fabs(x[k]));
    return largest;
}

void check_results(const problem *p, const results *r0, const results *r1, const results *d)
{
    const shape *s = &p->shape;
    const int64_t count = s->count, numbers = count * s->width;
    /* A similarity has four roundings of up to eps/2 of the factor: of the factor itself, of the
     * product, of one times the other, and of the difference with a log-sum-exp or a bias. The
     * exponential makes them a relative error of the derivative. */
    const double rounded = 1 + 2 * s->factor / sqrt((double)(count + s->width));
    /* An embedding's gradient: derivatives, which add up to mass over the batch, times the factor
     * and numbers of rows of length 1. */
    const double row = r0->mass * s->factor / (double)count;
    const double largest = fmax(largest_of(p->image, numbers), largest_of(p->text, numbers));
    const scale logits = {s->factor, s->factor, 1},
                embedding = {row * largest, row / sqrt((double)s->width), rounded},
                factor = {r0->scale_mass, r0->scale_mass, rounded},
                bias = {r0->mass, r0->mass, rounded};
    check_array(p, "loss", &r0->loss, &r1->loss, &d->loss, 1, logits);
    check_array(p, "dlogit_scale", &r0->dlogit_scale, &r1->dlogit_scale, &d->dlogit_scale, 1,
                factor);
    check_array(p, "dimage", r0->dimage, r1->dimage, d->dimage, numbers, embedding);
    check_array(p, "dtext", r0->dtext, r1->dtext, d->dtext, numbers, embedding);
    if (s->kind == SIGLIP) {
        check_array(p, "dlogit_bias", &r0->dlogit_bias, &r1->dlogit_bias, &d->dlogit_bias, 1, bias);
        return;
    }
    check_array(p, "row_lse", r0->row_lse, r1->row_lse, d->row_lse, count, logits);
    check_array(p, "col_lse", r0->col_lse, r1->col_lse, d->col_lse, count, logits);
}

void check_shape(ct_device *device, const shape *s, uint64_t seed)
{
    problem p = problem_create(s, seed), rounded = problem_rounded(&p);
    results r0 = reference_results(&p, false), r1 = reference_results(&rounded, true);
    results d = device_results(device, &p);
    check_results(&p, &r0, &r1, &d);
    results_free(&r0);
    results_free(&r1);
    results_free(&d);
    problem_free(&p);
    problem_free(&rounded);
}
