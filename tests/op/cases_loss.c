/* Cases of the symmetric cross-entropy: the parameters of pair_losses.h. With several ranks the
 * operations are called once a rank on its rows, and must give together what the reference computes
 * of the whole batch. */
#include <math.h>
#include <stdlib.h>

#include "pair_losses.h"

/* parts: the ranks' columns, which are merged; with one rank there is nothing to merge. */
enum { ROW_LSE = CT_PAIR_SLOTS, COL_LSE, TARGET, PARTS };

static float smoothing(const ct_case_run *run)
{
    return (float)run->p[CT_PAIR_OWN] / 100;
}

static void setup(ct_case_run *run)
{
    const int64_t count = run->p[CT_PAIR_BATCH], ranks = ct_pair_ranks(run);
    const char *const names[] = {"row_lse", "col_lse", "target"};
    ct_pair_setup(run);
    for (int k = 0; k < 3; k++) {
        ct_slot *slot = ct_case_slot(run, ROW_LSE + k, names[k], CT_SLOT_SAVED, CT_F32,
                                     (const int64_t[]){count, 0}, false);
        slot->terms = ct_pair_terms(run);
        slot->magnitude = (double)run->p[CT_PAIR_FACTOR]; /* a similarity's terms may cancel */
    }
    ct_case_slot(run, PARTS, "parts", CT_SLOT_SAVED, CT_F32, (const int64_t[]){ranks, count, 0},
                 ranks == 1)
        ->unchecked = true;
    /* Where no pair but the own one counts the loss is 0, whatever the inputs. */
    const bool mask = run->p[CT_PAIR_SAME_IMAGE] == CT_SAME_IMAGE_MASK;
    run->kinked = count == 1 || (mask && run->p[CT_PAIR_PHOTOS] == 1);
}

/* Row i's counted pairs, or column i's. */
static double counted_pairs(const ct_case_run *run, int64_t i)
{
    const bool mask = run->p[CT_PAIR_SAME_IMAGE] == CT_SAME_IMAGE_MASK;
    return (double)run->p[CT_PAIR_BATCH] - (mask ? ct_pair_same_photos(run, i) - 1 : 0);
}

/* The sum of both directions' targets of pair (i, j), which counts. */
static double targets(const ct_case_run *run, int64_t i, int64_t j)
{
    double sharp = i == j;
    if (run->p[CT_PAIR_SAME_IMAGE] == CT_SAME_IMAGE_SHARE)
        sharp = ct_pair_same_photo(run, i, j) ? 1 / ct_pair_same_photos(run, i) : 0;
    const double spread = 1 / counted_pairs(run, i) + 1 / counted_pairs(run, j);
    return 2 * (1 - (double)smoothing(run)) * sharp + (double)smoothing(run) * spread;
}

/* Exponentials are taken relative to the most that a similarity can be, the factor: f64 holds
 * those of any similarity down to minus the factor. */
static void ref_fwd(ct_case_run *run)
{
    const int64_t count = run->p[CT_PAIR_BATCH];
    const double bound = exp(run->slot[CT_PAIR_LOGIT_SCALE].v[0]);
    double *row_lse = run->slot[ROW_LSE].v, *col_lse = run->slot[COL_LSE].v;
    double *target = run->slot[TARGET].v, *z = ct_pair_new_row(run);
    for (int64_t j = 0; j < count; j++) col_lse[j] = 0;
    for (int64_t i = 0; i < count; i++) {
        double sum = 0;
        ct_pair_similarities(run, i, z);
        target[i] = 0;
        for (int64_t j = 0; j < count; j++) {
            if (!ct_pair_counted(run, i, j)) continue;
            const double e = exp(z[j] - bound);
            sum += e;
            col_lse[j] += e;
            target[i] += targets(run, i, j) * z[j] / 2;
        }
        row_lse[i] = bound + log(sum);
    }
    for (int64_t j = 0; j < count; j++) col_lse[j] = bound + log(col_lse[j]);
    for (int64_t r = 0; r < ct_pair_ranks(run); r++) {
        double sum = 0;
        for (int64_t i = ct_pair_first_row(run, r); i < ct_pair_first_row(run, r + 1); i++)
            sum += row_lse[i] + col_lse[i] - 2 * target[i];
        run->slot[CT_PAIR_LOSS].v[r] = sum / (2 * (double)count);
    }
    free(z);
}

static void ref_bwd(ct_case_run *run)
{
    const int64_t count = run->p[CT_PAIR_BATCH];
    const double *row_lse = run->slot[ROW_LSE].v, *col_lse = run->slot[COL_LSE].v;
    const double factor = run->slot[CT_PAIR_LOSS].g[0] / (2 * (double)count);
    double *z = ct_pair_new_row(run), *dz = ct_pair_new_row(run), *size = ct_pair_new_row(run);
    ct_pair_begin_gradients(run);
    for (int64_t i = 0; i < count; i++) {
        ct_pair_similarities(run, i, z);
        for (int64_t j = 0; j < count; j++) {
            dz[j] = size[j] = 0;
            if (!ct_pair_counted(run, i, j)) continue;
            const double softmaxes = exp(z[j] - row_lse[i]) + exp(z[j] - col_lse[j]);
            dz[j] = (softmaxes - targets(run, i, j)) * factor;
            size[j] = (softmaxes + targets(run, i, j)) * factor;
        }
        ct_pair_add_gradients(run, i, z, dz, size);
    }
    free(z);
    free(dz);
    free(size);
}

static ct_status fwd_rank(ct_case_run *run, int64_t rank)
{
    const ct_slot *s = run->slot;
    ct_tensor columns = s[COL_LSE].t;
    if (ct_pair_ranks(run) > 1)
        columns = ct_tensor1(ct_tensor_rows(&s[PARTS].t, rank, 1).data, CT_F32, columns.dim[0]);
    return ct_op_clip_loss_fwd(
        &run->exec,
        &(ct_clip_loss_fwd_args){.row_lse = ct_pair_own_rows(run, &s[ROW_LSE].t, rank),
                                 .col_lse = columns,
                                 .target = ct_pair_own_rows(run, &s[TARGET].t, rank),
                                 .image = s[CT_PAIR_IMAGE].t,
                                 .text = s[CT_PAIR_TEXT].t,
                                 .logit_scale = s[CT_PAIR_LOGIT_SCALE].t,
                                 .photo_ids = s[CT_PAIR_PHOTO_IDS].t,
                                 .first = ct_pair_first_row(run, rank),
                                 .same_image = (ct_same_image)run->p[CT_PAIR_SAME_IMAGE],
                                 .label_smoothing = smoothing(run)});
}

static ct_status fwd(ct_case_run *run)
{
    const ct_slot *s = run->slot;
    const int64_t ranks = ct_pair_ranks(run);
    for (int64_t r = 0; r < ranks; r++) CT_TRY(fwd_rank(run, r));
    if (ranks > 1)
        CT_TRY(ct_op_clip_loss_merge(
            &run->exec, &(ct_clip_loss_merge_args){.lse = s[COL_LSE].t, .parts = s[PARTS].t}));
    for (int64_t r = 0; r < ranks; r++)
        CT_TRY(ct_op_clip_loss_total(
            &run->exec,
            &(ct_clip_loss_total_args){.loss = ct_tensor_rows(&s[CT_PAIR_LOSS].t, r, 1),
                                       .row_lse = ct_pair_own_rows(run, &s[ROW_LSE].t, r),
                                       .col_lse = ct_pair_own_rows(run, &s[COL_LSE].t, r),
                                       .target = ct_pair_own_rows(run, &s[TARGET].t, r),
                                       .count = run->p[CT_PAIR_BATCH]}));
    return CT_OK;
}

static ct_status bwd(ct_case_run *run)
{
    const ct_slot *s = run->slot;
    for (int64_t r = 0; r < ct_pair_ranks(run); r++)
        CT_TRY(ct_op_clip_loss_bwd(
            &run->exec,
            &(ct_clip_loss_bwd_args){.dimage = ct_pair_own_rows(run, &s[CT_PAIR_IMAGE].d, r),
                                     .dtext = ct_pair_own_rows(run, &s[CT_PAIR_TEXT].d, r),
                                     .dlogit_scale = s[CT_PAIR_LOGIT_SCALE].d,
                                     .image = s[CT_PAIR_IMAGE].t,
                                     .text = s[CT_PAIR_TEXT].t,
                                     .logit_scale = s[CT_PAIR_LOGIT_SCALE].t,
                                     .photo_ids = s[CT_PAIR_PHOTO_IDS].t,
                                     .row_lse = s[ROW_LSE].t,
                                     .col_lse = s[COL_LSE].t,
                                     .loss_scale = s[CT_PAIR_LOSS_SCALES].t,
                                     .first = ct_pair_first_row(run, r),
                                     .same_image = (ct_same_image)run->p[CT_PAIR_SAME_IMAGE],
                                     .label_smoothing = smoothing(run)}));
    return CT_OK;
}

static const ct_kind clip_loss = {"clip_loss", setup, ct_pair_fill,  ref_fwd, ref_bwd,
                                  fwd,         bwd,   ct_pair_flops, true};

#define MASK      CT_SAME_IMAGE_MASK
#define SHARE     CT_SAME_IMAGE_SHARE
#define NEGATIVE  CT_SAME_IMAGE_NEGATIVE
#define RANDOM    CT_PAIR_RANDOM
#define EQUAL     CT_PAIR_EQUAL
#define MATCHED   CT_PAIR_MATCHED
#define IDENTICAL CT_PAIR_IDENTICAL
#define OPPOSITE  CT_PAIR_OPPOSITE
#define UNEVEN    CT_PAIR_UNEVEN
#define EVEN      CT_PAIR_EVEN

/* Differences are taken of small cases only, and cannot follow a factor of 100: such cases are
 * larger. */
static const ct_case cases[] = {
    {&clip_loss, "clip_loss_6_distinct", {6, 5, MASK, 14, RANDOM, 6}},
    {&clip_loss, "clip_loss_7_mask", {7, 5, MASK, 14, RANDOM, 3}},
    {&clip_loss, "clip_loss_7_share", {7, 5, SHARE, 14, RANDOM, 3}},
    {&clip_loss, "clip_loss_7_negative", {7, 5, NEGATIVE, 14, RANDOM, 3}},
    {&clip_loss, "clip_loss_7_mask_smoothed", {7, 5, MASK, 14, RANDOM, 3, 0, 1, EVEN, 10}},
    {&clip_loss, "clip_loss_7_share_smoothed", {7, 5, SHARE, 14, RANDOM, 3, 0, 1, EVEN, 30}},
    {&clip_loss, "clip_loss_7_negative_smoothed", {7, 5, NEGATIVE, 14, RANDOM, 3, 0, 1, EVEN, 20}},
    {&clip_loss, "clip_loss_8_mask_2_ranks", {8, 5, MASK, 14, RANDOM, 5, 0, 2, UNEVEN}},
    {&clip_loss, "clip_loss_7_smoothed_3_ranks", {7, 5, SHARE, 14, RANDOM, 3, 0, 3, EVEN, 10}},
    {&clip_loss, "clip_loss_4_ranks_of_1", {4, 6, MASK, 14, RANDOM, 2, 0, 4, EVEN}},
    {&clip_loss, "clip_loss_5_one_photo_share", {5, 4, SHARE, 14, RANDOM, 1}},
    {&clip_loss, "clip_loss_6_loss_scale", {6, 5, SHARE, 14, RANDOM, 4, 1024}},
    {&clip_loss, "clip_loss_2_scale_1", {2, 3, MASK, 1, RANDOM, 2}},
    {&clip_loss, "clip_loss_1", {1, 9, NEGATIVE, 100, RANDOM, 1}},
    {&clip_loss, "clip_loss_1_smoothed", {1, 9, MASK, 14, RANDOM, 1, 0, 1, EVEN, 10}},
    {&clip_loss, "clip_loss_40_one_photo", {40, 8, MASK, 100, RANDOM, 1}},
    {&clip_loss, "clip_loss_40_one_photo_4_ranks", {40, 8, MASK, 100, RANDOM, 1, 0, 4, UNEVEN}},
    {&clip_loss, "clip_loss_9_one_photo_smoothed", {9, 8, MASK, 14, RANDOM, 1, 0, 2, EVEN, 10}},
    {&clip_loss, "clip_loss_140_loss_scale", {140, 24, MASK, 14, MATCHED, 90, 256}},
    {&clip_loss, "clip_loss_200_mask", {200, 17, MASK, 14, RANDOM, 90}},
    {&clip_loss, "clip_loss_301_share", {301, 32, SHARE, 14, MATCHED, 77}},
    {&clip_loss, "clip_loss_257_negative", {257, 40, NEGATIVE, 14, MATCHED, 200}},
    {&clip_loss, "clip_loss_127_wide", {127, 520, MASK, 30, MATCHED, 60}},
    {&clip_loss, "clip_loss_128_tile", {128, 64, MASK, 30, MATCHED, 100}},
    {&clip_loss, "clip_loss_129_narrow", {129, 3, MASK, 14, RANDOM, 60}},
    {&clip_loss, "clip_loss_129_1_wide", {129, 1, SHARE, 5, RANDOM, 50}},
    {&clip_loss, "clip_loss_258_smoothed", {258, 72, MASK, 14, MATCHED, 140, 0, 1, EVEN, 10}},
    {&clip_loss, "clip_loss_130_equal_scale_100", {130, 130, MASK, 100, EQUAL, 33}},
    {&clip_loss, "clip_loss_130_scale_100", {130, 130, SHARE, 100, RANDOM, 40}},
    {&clip_loss, "clip_loss_259_scale_100", {259, 64, MASK, 100, MATCHED, 131}},
    {&clip_loss, "clip_loss_127_identical", {127, 96, MASK, 100, IDENTICAL, 127}},
    {&clip_loss, "clip_loss_131_opposite", {131, 8, NEGATIVE, 100, OPPOSITE, 131}},
    {&clip_loss,
     "clip_loss_140_opposite_2_ranks",
     {140, 17, MASK, 100, OPPOSITE, 99, 0, 2, UNEVEN}},
    {&clip_loss, "clip_loss_300_4_ranks", {300, 33, MASK, 14, MATCHED, 170, 0, 4, UNEVEN}},
    {&clip_loss, "clip_loss_205_share_3_ranks", {205, 64, SHARE, 100, MATCHED, 90, 64, 3, EVEN, 5}},
    {&clip_loss, "clip_loss_512_4_ranks", {512, 16, MASK, 14, MATCHED, 400, 0, 4, EVEN}},
    {&clip_loss, "clip_loss_515_share", {515, 16, SHARE, 14, MATCHED, 300}},
    {&clip_loss, "clip_loss_1030_mask", {1030, 16, MASK, 14, RANDOM, 900}},
};

CT_DEFINE_CASE_TABLE(loss, cases);
