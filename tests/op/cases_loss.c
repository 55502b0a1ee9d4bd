/* Cases of the contrastive loss: p = batch, width, same_image, factor of the similarities, how the
 * batch is filled, photos, loss scale (0: none). */
#include <math.h>

#include "case.h"

enum {
    FILL_RANDOM, /* photo i is i % photos */
    FILL_EQUAL,  /* all rows are the same, and so are all similarities */
    FILL_MATCHED /* texts near their images, as late in training */
};

enum { IMAGE, TEXT, LOGIT_SCALE, PHOTO_IDS, LOSS, ROW_LSE, COL_LSE, LOSS_SCALE };

static void setup(ct_case_run *run)
{
    int64_t count = run->p[0], width = run->p[1];
    const int64_t *matrix = (const int64_t[]){count, width, 0}, *list = (const int64_t[]){count, 0};
    const int64_t *scalar = (const int64_t[]){1, 0};
    /* A similarity sums over the width; log-sum-exps and gradients sum those over the batch. */
    const double terms = (double)(width + count);
    ct_case_slot(run, IMAGE, "image", CT_SLOT_INPUT, CT_CASE_COMPUTE, matrix, false)->grad_terms =
        terms;
    ct_case_slot(run, TEXT, "text", CT_SLOT_INPUT, CT_CASE_COMPUTE, matrix, false)->grad_terms =
        terms;
    ct_case_slot(run, LOGIT_SCALE, "logit_scale", CT_SLOT_PARAM, CT_F32, scalar, false)
        ->grad_terms = terms;
    ct_case_slot(run, PHOTO_IDS, "photo_ids", CT_SLOT_CONST, CT_I32, list, false);
    ct_case_slot(run, LOSS, "loss", CT_SLOT_OUTPUT, CT_F32, scalar, false)->terms = terms;
    ct_case_slot(run, ROW_LSE, "row_lse", CT_SLOT_SAVED, CT_F32, list, false)->terms = terms;
    ct_case_slot(run, COL_LSE, "col_lse", CT_SLOT_SAVED, CT_F32, list, false)->terms = terms;
    ct_case_slot(run, LOSS_SCALE, "loss_scale", CT_SLOT_CONST, CT_F32, (const int64_t[]){2, 0},
                 !run->p[6]);
}

static void normalize(double *x, int64_t width)
{
    double squares = 0;
    for (int64_t k = 0; k < width; k++) squares += x[k] * x[k];
    for (int64_t k = 0; k < width; k++) x[k] /= sqrt(squares);
}

/* Sizes of what cancels. Similarities are up to `factor`. A row's softmaxes and targets add up to
 * 2/count, times factor and an embedding's numbers. Where all similarities are equal, the
 * reference's rounding errors are too and vanish, but those of a device need not be equal, and the
 * exponential makes a relative error of its argument `factor` times larger. */
static void set_magnitudes(ct_case_run *run)
{
    double factor = (double)run->p[3];
    double mass = 2 * factor / ((double)run->p[0] * sqrt((double)run->p[1]));
    if (run->p[6]) mass *= (double)run->p[6];
    run->slot[LOSS].magnitude = factor;
    run->slot[IMAGE].grad_magnitude = run->p[4] == FILL_EQUAL ? factor * mass : mass;
    run->slot[TEXT].grad_magnitude = run->slot[IMAGE].grad_magnitude;
}

static void fill(ct_case_run *run)
{
    int64_t count = run->p[0], width = run->p[1];
    double *image = run->slot[IMAGE].v, *text = run->slot[TEXT].v;
    for (int64_t k = 0; k < count * width; k++) {
        if (run->p[4] == FILL_EQUAL) image[k] = text[k] = image[k % width];
        if (run->p[4] == FILL_MATCHED) text[k] = image[k] + 2 * text[k];
    }
    for (int64_t i = 0; i < count; i++) {
        normalize(image + i * width, width);
        normalize(text + i * width, width);
        run->slot[PHOTO_IDS].v[i] = (double)(1000 - i % run->p[5]);
    }
    run->slot[LOGIT_SCALE].v[0] = log((double)run->p[3]);
    set_magnitudes(run);
    /* The operation's backward is that of the loss itself, or of loss_scale[0] times it. */
    run->slot[LOSS].g[0] = run->p[6] ? (double)run->p[6] : 1;
    if (run->p[6]) run->slot[LOSS_SCALE].v[0] = run->slot[LOSS].g[0];
}

static double similarity(const ct_case_run *run, int64_t i, int64_t j)
{
    int64_t width = run->p[1];
    const double *a = run->slot[IMAGE].v + i * width, *b = run->slot[TEXT].v + j * width;
    double sum = 0;
    for (int64_t k = 0; k < width; k++) sum += a[k] * b[k];
    return sum * exp(run->slot[LOGIT_SCALE].v[0]);
}

static bool same_photo(const ct_case_run *run, int64_t i, int64_t j)
{
    return run->slot[PHOTO_IDS].v[i] == run->slot[PHOTO_IDS].v[j];
}

static bool counted(const ct_case_run *run, int64_t i, int64_t j)
{
    return i == j || run->p[2] != CT_SAME_IMAGE_MASK || !same_photo(run, i, j);
}

static double target(const ct_case_run *run, int64_t i, int64_t j)
{
    if (run->p[2] != CT_SAME_IMAGE_SHARE) return i == j;
    if (!same_photo(run, i, j)) return 0;
    double same = 0;
    for (int64_t k = 0; k < run->p[0]; k++) same += same_photo(run, i, k);
    return 1 / same;
}

/* Log-sum-exp of row i, or with `column` of column i, for similarities of at most exp(logit_scale).
 */
static double log_sum_exp(const ct_case_run *run, int64_t i, bool column)
{
    double bound = exp(run->slot[LOGIT_SCALE].v[0]), sum = 0;
    for (int64_t j = 0; j < run->p[0]; j++) {
        double z = column ? similarity(run, j, i) : similarity(run, i, j);
        if (counted(run, i, j)) sum += exp(z - bound);
    }
    return bound + log(sum);
}

static void ref_fwd(ct_case_run *run)
{
    int64_t count = run->p[0];
    double sum = 0;
    for (int64_t i = 0; i < count; i++) {
        double row = log_sum_exp(run, i, false), column = log_sum_exp(run, i, true);
        run->slot[ROW_LSE].v[i] = row;
        run->slot[COL_LSE].v[i] = column;
        sum += row + column;
        for (int64_t j = 0; j < count; j++) {
            double t = target(run, i, j);
            if (t != 0) sum -= 2 * t * similarity(run, i, j);
        }
    }
    run->slot[LOSS].v[0] = sum / (2 * (double)count);
}

static void ref_bwd(ct_case_run *run)
{
    int64_t count = run->p[0], width = run->p[1];
    const ct_slot *s = run->slot;
    double scale = exp(s[LOGIT_SCALE].v[0]);
    for (int64_t k = 0; k < count * width; k++) s[IMAGE].g[k] = s[TEXT].g[k] = 0;
    double cancels = 0;
    s[LOGIT_SCALE].g[0] = 0;
    for (int64_t i = 0; i < count; i++)
        for (int64_t j = 0; j < count; j++) {
            if (!counted(run, i, j)) continue;
            double z = similarity(run, i, j);
            double dz =
                (exp(z - s[ROW_LSE].v[i]) + exp(z - s[COL_LSE].v[j]) - 2 * target(run, i, j)) *
                s[LOSS].g[0] / (2 * (double)count);
            for (int64_t k = 0; k < width; k++) {
                s[IMAGE].g[i * width + k] += scale * dz * s[TEXT].v[j * width + k];
                s[TEXT].g[j * width + k] += scale * dz * s[IMAGE].v[i * width + k];
            }
            s[LOGIT_SCALE].g[0] += dz * z;
            cancels += fabs(dz * z);
        }
    run->slot[LOGIT_SCALE].grad_magnitude = cancels;
}

static ct_status fwd(ct_case_run *run)
{
    const ct_slot *s = run->slot;
    return ct_op_clip_loss_fwd(&run->exec,
                               &(ct_clip_loss_fwd_args){.loss = s[LOSS].t,
                                                        .row_lse = s[ROW_LSE].t,
                                                        .col_lse = s[COL_LSE].t,
                                                        .image = s[IMAGE].t,
                                                        .text = s[TEXT].t,
                                                        .logit_scale = s[LOGIT_SCALE].t,
                                                        .photo_ids = s[PHOTO_IDS].t,
                                                        .same_image = (ct_same_image)run->p[2]});
}

static ct_status bwd(ct_case_run *run)
{
    const ct_slot *s = run->slot;
    return ct_op_clip_loss_bwd(&run->exec,
                               &(ct_clip_loss_bwd_args){.dimage = s[IMAGE].d,
                                                        .dtext = s[TEXT].d,
                                                        .dlogit_scale = s[LOGIT_SCALE].d,
                                                        .image = s[IMAGE].t,
                                                        .text = s[TEXT].t,
                                                        .logit_scale = s[LOGIT_SCALE].t,
                                                        .photo_ids = s[PHOTO_IDS].t,
                                                        .row_lse = s[ROW_LSE].t,
                                                        .col_lse = s[COL_LSE].t,
                                                        .loss_scale = s[LOSS_SCALE].t,
                                                        .same_image = (ct_same_image)run->p[2]});
}

/* One product forward, three backward. */
static double flops(const int64_t *p, bool backward)
{
    return 2.0 * (double)(p[0] * p[0] * p[1]) * (backward ? 3 : 1);
}

static const ct_kind clip_loss = {"clip_loss", setup, fill,  ref_fwd, ref_bwd,
                                  fwd,         bwd,   flops, false};

#define MASK     CT_SAME_IMAGE_MASK
#define SHARE    CT_SAME_IMAGE_SHARE
#define NEGATIVE CT_SAME_IMAGE_NEGATIVE

/* Differences are taken of small cases only, and cannot follow a factor of 100: such cases are
 * larger. */
static const ct_case cases[] = {
    {&clip_loss, "clip_loss_6_distinct", {6, 5, MASK, 14, FILL_RANDOM, 6}},
    {&clip_loss, "clip_loss_7_mask", {7, 5, MASK, 14, FILL_RANDOM, 3}},
    {&clip_loss, "clip_loss_7_share", {7, 5, SHARE, 14, FILL_RANDOM, 3}},
    {&clip_loss, "clip_loss_7_negative", {7, 5, NEGATIVE, 14, FILL_RANDOM, 3}},
    {&clip_loss, "clip_loss_5_one_photo_share", {5, 4, SHARE, 14, FILL_RANDOM, 1}},
    {&clip_loss, "clip_loss_6_loss_scale", {6, 5, SHARE, 14, FILL_RANDOM, 4, 1024}},
    {&clip_loss, "clip_loss_140_loss_scale", {140, 24, MASK, 14, FILL_MATCHED, 90, 256}},
    {&clip_loss, "clip_loss_2_scale_1", {2, 3, MASK, 1, FILL_RANDOM, 2}},
    {&clip_loss, "clip_loss_200_mask", {200, 17, MASK, 14, FILL_RANDOM, 90}},
    {&clip_loss, "clip_loss_301_share", {301, 32, SHARE, 14, FILL_MATCHED, 77}},
    {&clip_loss, "clip_loss_257_negative", {257, 40, NEGATIVE, 14, FILL_MATCHED, 200}},
    {&clip_loss, "clip_loss_130_equal_scale_100", {130, 130, MASK, 100, FILL_EQUAL, 33}},
    {&clip_loss, "clip_loss_130_scale_100", {130, 130, SHARE, 100, FILL_RANDOM, 40}},
    {&clip_loss, "clip_loss_259_scale_100", {259, 64, MASK, 100, FILL_MATCHED, 131}},
};

CT_DEFINE_CASE_TABLE(loss, cases);
