#include "pair_losses.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* ---- ranks --------------------------------------------------------------------------------- */

int64_t ct_pair_ranks(const ct_case_run *run)
{
    return run->p[CT_PAIR_RANKS] ? run->p[CT_PAIR_RANKS] : 1;
}

int64_t ct_pair_first_row(const ct_case_run *run, int64_t rank)
{
    const int64_t ranks = ct_pair_ranks(run), rows = run->p[CT_PAIR_BATCH];
    if (run->p[CT_PAIR_SPLIT] == CT_PAIR_EVEN) return rows * rank / ranks;
    return rank + (rows - ranks) * rank * rank * rank / (ranks * ranks * ranks);
}

ct_tensor ct_pair_own_rows(const ct_case_run *run, const ct_tensor *t, int64_t rank)
{
    const int64_t first = ct_pair_first_row(run, rank);
    return ct_tensor_rows(t, first, ct_pair_first_row(run, rank + 1) - first);
}

/* ---- slots --------------------------------------------------------------------------------- */

double ct_pair_terms(const ct_case_run *run)
{
    return (double)(run->p[CT_PAIR_WIDTH] + run->p[CT_PAIR_BATCH]);
}

void ct_pair_setup(ct_case_run *run)
{
    const int64_t count = run->p[CT_PAIR_BATCH], ranks = ct_pair_ranks(run);
    const int64_t *matrix = (const int64_t[]){count, run->p[CT_PAIR_WIDTH], 0};
    const int64_t *list = (const int64_t[]){count, 0}, *one = (const int64_t[]){1, 0};
    const double terms = ct_pair_terms(run);
    ct_case_slot(run, CT_PAIR_IMAGE, "image", CT_SLOT_INPUT, CT_CASE_COMPUTE, matrix, false)
        ->grad_terms = terms;
    ct_case_slot(run, CT_PAIR_TEXT, "text", CT_SLOT_INPUT, CT_CASE_COMPUTE, matrix, false)
        ->grad_terms = terms;
    ct_case_slot(run, CT_PAIR_LOGIT_SCALE, "logit_scale", CT_SLOT_PARAM, CT_F32, one, false)
        ->grad_terms = terms;
    ct_case_slot(run, CT_PAIR_PHOTO_IDS, "photo_ids", CT_SLOT_CONST, CT_I32, list, false);
    ct_case_slot(run, CT_PAIR_LOSS, "loss", CT_SLOT_OUTPUT, CT_F32, (const int64_t[]){ranks, 0},
                 false)
        ->terms = terms;
    ct_case_slot(run, CT_PAIR_LOSS_SCALES, "loss_scale", CT_SLOT_CONST, CT_F32,
                 (const int64_t[]){2, 0}, !run->p[CT_PAIR_LOSS_SCALE]);
}

static void normalize(double *x, int64_t width)
{
    double squares = 0;
    for (int64_t k = 0; k < width; k++) squares += x[k] * x[k];
    for (int64_t k = 0; k < width; k++) x[k] /= sqrt(squares);
}

static void fill_embeddings(ct_case_run *run)
{
    const int64_t count = run->p[CT_PAIR_BATCH], width = run->p[CT_PAIR_WIDTH];
    double *image = run->slot[CT_PAIR_IMAGE].v, *text = run->slot[CT_PAIR_TEXT].v;
    for (int64_t k = 0; k < count * width; k++) switch (run->p[CT_PAIR_FILL]) {
        case CT_PAIR_EQUAL:
            image[k] = text[k] = image[k % width];
            break;
        case CT_PAIR_MATCHED:
            text[k] = image[k] + 2 * text[k];
            break;
        case CT_PAIR_IDENTICAL:
            text[k] = image[k];
            break;
        case CT_PAIR_OPPOSITE:
            text[k] = -image[k];
            break;
        default:
            break;
        }
    for (int64_t i = 0; i < count; i++) {
        normalize(image + i * width, width);
        normalize(text + i * width, width);
    }
}

/* A share of the loss is a mean of similarities over the batch, of at most the factor each, which
 * cancel. */
static double share_magnitude(const ct_case_run *run)
{
    int64_t most = 0;
    for (int64_t r = 0; r < ct_pair_ranks(run); r++) {
        const int64_t rows = ct_pair_first_row(run, r + 1) - ct_pair_first_row(run, r);
        most = rows > most ? rows : most;
    }
    return (double)(run->p[CT_PAIR_FACTOR] * most) / (double)run->p[CT_PAIR_BATCH];
}

void ct_pair_fill(ct_case_run *run)
{
    ct_slot *s = run->slot;
    /* The operation's backward is that of the loss itself, or of loss_scale[0] times it. */
    const double gradient = run->p[CT_PAIR_LOSS_SCALE] ? (double)run->p[CT_PAIR_LOSS_SCALE] : 1;
    fill_embeddings(run);
    for (int64_t i = 0; i < run->p[CT_PAIR_BATCH]; i++)
        s[CT_PAIR_PHOTO_IDS].v[i] = (double)(1000 - i % run->p[CT_PAIR_PHOTOS]);
    s[CT_PAIR_LOGIT_SCALE].v[0] = log((double)run->p[CT_PAIR_FACTOR]);
    for (int64_t r = 0; r < ct_pair_ranks(run); r++) s[CT_PAIR_LOSS].g[r] = gradient;
    if (s[CT_PAIR_LOSS_SCALES].count) s[CT_PAIR_LOSS_SCALES].v[0] = gradient;
    s[CT_PAIR_LOSS].magnitude = share_magnitude(run);
}

/* ---- pairs --------------------------------------------------------------------------------- */

bool ct_pair_same_photo(const ct_case_run *run, int64_t i, int64_t j)
{
    return run->slot[CT_PAIR_PHOTO_IDS].v[i] == run->slot[CT_PAIR_PHOTO_IDS].v[j];
}

bool ct_pair_counted(const ct_case_run *run, int64_t i, int64_t j)
{
    return i == j || run->p[CT_PAIR_SAME_IMAGE] != CT_SAME_IMAGE_MASK ||
           !ct_pair_same_photo(run, i, j);
}

/* Those at i % PHOTOS, then at every PHOTOS places. */
double ct_pair_same_photos(const ct_case_run *run, int64_t i)
{
    const int64_t photos = run->p[CT_PAIR_PHOTOS];
    return (double)((run->p[CT_PAIR_BATCH] - 1 - i % photos) / photos + 1);
}

double *ct_pair_new_row(const ct_case_run *run)
{
    double *row = calloc((size_t)run->p[CT_PAIR_BATCH], sizeof *row);
    if (!row) fail_msg("%s: out of memory for a row", run->c->name);
    return row;
}

void ct_pair_similarities(const ct_case_run *run, int64_t i, double *z)
{
    const int64_t width = run->p[CT_PAIR_WIDTH];
    const double *image = run->slot[CT_PAIR_IMAGE].v + i * width;
    const double factor = exp(run->slot[CT_PAIR_LOGIT_SCALE].v[0]);
    for (int64_t j = 0; j < run->p[CT_PAIR_BATCH]; j++) {
        const double *text = run->slot[CT_PAIR_TEXT].v + j * width;
        double sum = 0;
        for (int64_t k = 0; k < width; k++) sum += image[k] * text[k];
        z[j] = factor * sum;
    }
}

/* ---- gradients ----------------------------------------------------------------------------- */

/* A derivative as operand of a product: op.h lets it be rounded to the compute dtype, at a scale
 * where its exponent has room, before what all of them are multiplied with. */
static double operand(const ct_case_run *run, double x)
{
    const ct_dtype dtype = run->compute_dtype;
    const int bits = dtype == CT_BF16 ? 8 : dtype == CT_F16 || run->tf32 ? 11 : 24;
    int exponent;
    if (!run->rounded) return x;
    const double mantissa = frexp(x, &exponent);
    return ldexp(nearbyint(ldexp(mantissa, bits)), exponent - bits);
}

void ct_pair_begin_gradients(ct_case_run *run)
{
    ct_slot *image = &run->slot[CT_PAIR_IMAGE], *text = &run->slot[CT_PAIR_TEXT];
    for (int64_t k = 0; k < image->count; k++) image->g[k] = text->g[k] = 0;
    image->grad_magnitude = text->grad_magnitude = 0;
    run->slot[CT_PAIR_LOGIT_SCALE].g[0] = run->slot[CT_PAIR_LOGIT_SCALE].grad_magnitude = 0;
}

/* What cancels in an embedding's gradient, in the mean over rows: the derivatives of its
 * similarities, which add up to `mass` over the batch, times the factor and numbers of a row of
 * length 1. Besides, a device rounds a similarity, of up to `factor`, to f32, and the exponential
 * makes that a relative error of the derivative: eps factor, which stands here divided by the
 * sqrt(terms) that the harness multiplies with. Rounded inputs (R1) show less of it the wider the
 * rows, and nothing where log-sum-exps have the same error: where similarities are equal, where a
 * row's own pair outweighs the others, where there are no others. */
static double gradient_magnitude(const ct_case_run *run, double mass)
{
    const double factor = (double)run->p[CT_PAIR_FACTOR], width = (double)run->p[CT_PAIR_WIDTH];
    const double size = mass * factor / ((double)run->p[CT_PAIR_BATCH] * sqrt(width));
    return size * (1 + factor / sqrt(ct_pair_terms(run)));
}

void ct_pair_add_gradients(ct_case_run *run, int64_t i, const double *z, const double *dz,
                           const double *cancels)
{
    const int64_t width = run->p[CT_PAIR_WIDTH];
    ct_slot *image = &run->slot[CT_PAIR_IMAGE], *text = &run->slot[CT_PAIR_TEXT];
    ct_slot *logit_scale = &run->slot[CT_PAIR_LOGIT_SCALE];
    const double factor = exp(logit_scale->v[0]);
    const double common = run->slot[CT_PAIR_LOSS].g[0] / (double)run->p[CT_PAIR_BATCH];
    double mass = 0;
    for (int64_t j = 0; j < run->p[CT_PAIR_BATCH]; j++) {
        const double by = factor * common * operand(run, dz[j] / common);
        for (int64_t k = 0; k < width; k++) {
            image->g[i * width + k] += by * text->v[j * width + k];
            text->g[j * width + k] += by * image->v[i * width + k];
        }
        logit_scale->g[0] += dz[j] * z[j];
        logit_scale->grad_magnitude += cancels[j] * fabs(z[j]);
        mass += cancels[j];
    }
    image->grad_magnitude += gradient_magnitude(run, mass);
    text->grad_magnitude = image->grad_magnitude;
}

double ct_pair_flops(const int64_t *p, bool backward)
{
    const int64_t pairs = p[CT_PAIR_BATCH] * p[CT_PAIR_BATCH];
    return 2.0 * (double)(pairs * p[CT_PAIR_WIDTH]) * (backward ? 3 : 1);
}
