/* Cases of the pairwise sigmoid loss: the parameters of pair_losses.h. With several ranks the
 * operations are called once a rank on its rows, and must give together what the reference computes
 * of the whole batch. */
#include <math.h>
#include <stdlib.h>

#include "pair_losses.h"

enum { LOGIT_BIAS = CT_PAIR_SLOTS };

static void setup(ct_case_run *run)
{
    ct_pair_setup(run);
    ct_case_slot(run, LOGIT_BIAS, "logit_bias", CT_SLOT_PARAM, CT_F32, (const int64_t[]){1, 0},
                 false)
        ->grad_terms = ct_pair_terms(run);
}

static void fill(ct_case_run *run)
{
    ct_pair_fill(run);
    run->slot[LOGIT_BIAS].v[0] = -(double)run->p[CT_PAIR_OWN];
}

static double label(const ct_case_run *run, int64_t i, int64_t j)
{
    const bool shared =
        run->p[CT_PAIR_SAME_IMAGE] == CT_SAME_IMAGE_SHARE && ct_pair_same_photo(run, i, j);
    return i == j || shared ? 1 : -1;
}

static void ref_fwd(ct_case_run *run)
{
    const int64_t count = run->p[CT_PAIR_BATCH];
    const double bias = run->slot[LOGIT_BIAS].v[0];
    double *z = ct_pair_new_row(run);
    for (int64_t r = 0; r < ct_pair_ranks(run); r++) {
        double sum = 0;
        for (int64_t i = ct_pair_first_row(run, r); i < ct_pair_first_row(run, r + 1); i++) {
            ct_pair_similarities(run, i, z);
            for (int64_t j = 0; j < count; j++) {
                if (!ct_pair_counted(run, i, j)) continue;
                const double u = label(run, i, j) * (z[j] + bias);
                sum += fmax(-u, 0) + log1p(exp(-fabs(u))); /* -log sigmoid(u) */
            }
        }
        run->slot[CT_PAIR_LOSS].v[r] = sum / (double)count;
    }
    free(z);
}

static void ref_bwd(ct_case_run *run)
{
    const int64_t count = run->p[CT_PAIR_BATCH];
    const ct_slot *s = run->slot;
    double *z = ct_pair_new_row(run), *dz = ct_pair_new_row(run), *size = ct_pair_new_row(run);
    ct_pair_begin_gradients(run);
    s[LOGIT_BIAS].g[0] = run->slot[LOGIT_BIAS].grad_magnitude = 0;
    for (int64_t i = 0; i < count; i++) {
        ct_pair_similarities(run, i, z);
        for (int64_t j = 0; j < count; j++) {
            const double y = label(run, i, j), u = y * (z[j] + s[LOGIT_BIAS].v[0]);
            dz[j] = -y / (1 + exp(u)) * s[CT_PAIR_LOSS].g[0] / (double)count;
            if (!ct_pair_counted(run, i, j)) dz[j] = 0;
            size[j] = fabs(dz[j]);
            s[LOGIT_BIAS].g[0] += dz[j];
            run->slot[LOGIT_BIAS].grad_magnitude += size[j];
        }
        ct_pair_add_gradients(run, i, z, dz, size);
    }
    free(z);
    free(dz);
    free(size);
}

static ct_status fwd(ct_case_run *run)
{
    const ct_slot *s = run->slot;
    for (int64_t r = 0; r < ct_pair_ranks(run); r++) {
        const int64_t first = ct_pair_first_row(run, r);
        CT_TRY(ct_op_siglip_loss_fwd(
            &run->exec,
            &(ct_siglip_loss_fwd_args){.loss = ct_tensor_rows(&s[CT_PAIR_LOSS].t, r, 1),
                                       .image = s[CT_PAIR_IMAGE].t,
                                       .text = s[CT_PAIR_TEXT].t,
                                       .logit_scale = s[CT_PAIR_LOGIT_SCALE].t,
                                       .logit_bias = s[LOGIT_BIAS].t,
                                       .photo_ids = s[CT_PAIR_PHOTO_IDS].t,
                                       .first = first,
                                       .rows = ct_pair_first_row(run, r + 1) - first,
                                       .same_image = (ct_same_image)run->p[CT_PAIR_SAME_IMAGE]}));
    }
    return CT_OK;
}

static ct_status bwd(ct_case_run *run)
{
    const ct_slot *s = run->slot;
    for (int64_t r = 0; r < ct_pair_ranks(run); r++)
        CT_TRY(ct_op_siglip_loss_bwd(
            &run->exec,
            &(ct_siglip_loss_bwd_args){.dimage = ct_pair_own_rows(run, &s[CT_PAIR_IMAGE].d, r),
                                       .dtext = ct_pair_own_rows(run, &s[CT_PAIR_TEXT].d, r),
                                       .dlogit_scale = s[CT_PAIR_LOGIT_SCALE].d,
                                       .dlogit_bias = s[LOGIT_BIAS].d,
                                       .image = s[CT_PAIR_IMAGE].t,
                                       .text = s[CT_PAIR_TEXT].t,
                                       .logit_scale = s[CT_PAIR_LOGIT_SCALE].t,
                                       .logit_bias = s[LOGIT_BIAS].t,
                                       .photo_ids = s[CT_PAIR_PHOTO_IDS].t,
                                       .loss_scale = s[CT_PAIR_LOSS_SCALES].t,
                                       .first = ct_pair_first_row(run, r),
                                       .same_image = (ct_same_image)run->p[CT_PAIR_SAME_IMAGE]}));
    return CT_OK;
}

static const ct_kind siglip_loss = {"siglip_loss", setup, fill,          ref_fwd, ref_bwd,
                                    fwd,           bwd,   ct_pair_flops, true};

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

static const ct_case cases[] = {
    {&siglip_loss, "siglip_loss_6_distinct", {6, 5, MASK, 10, RANDOM, 6, 0, 1, EVEN, 10}},
    {&siglip_loss, "siglip_loss_7_mask", {7, 5, MASK, 10, RANDOM, 3, 0, 1, EVEN, 3}},
    {&siglip_loss, "siglip_loss_7_share", {7, 5, SHARE, 10, RANDOM, 3, 0, 1, EVEN, 3}},
    {&siglip_loss, "siglip_loss_7_negative", {7, 5, NEGATIVE, 10, RANDOM, 3, 0, 1, EVEN, 3}},
    {&siglip_loss, "siglip_loss_8_3_ranks", {8, 5, SHARE, 10, RANDOM, 5, 0, 3, UNEVEN, 3}},
    {&siglip_loss, "siglip_loss_6_loss_scale", {6, 5, MASK, 10, RANDOM, 4, 1024, 1, EVEN, 3}},
    {&siglip_loss, "siglip_loss_1", {1, 7, MASK, 10, RANDOM, 1, 0, 1, EVEN, 10}},
    {&siglip_loss, "siglip_loss_5_one_photo_mask", {5, 4, MASK, 10, RANDOM, 1, 0, 1, EVEN, 2}},
    {&siglip_loss, "siglip_loss_3_ranks_of_1", {3, 4, MASK, 10, RANDOM, 1, 0, 3, EVEN, 2}},
    {&siglip_loss, "siglip_loss_128_tile", {128, 64, SHARE, 10, MATCHED, 100, 0, 1, EVEN, 10}},
    {&siglip_loss, "siglip_loss_129_1_wide", {129, 1, SHARE, 3, RANDOM, 50, 0, 1, EVEN, 1}},
    {&siglip_loss, "siglip_loss_130_equal", {130, 130, SHARE, 100, EQUAL, 33, 0, 1, EVEN, 10}},
    {&siglip_loss,
     "siglip_loss_131_opposite",
     {131, 8, NEGATIVE, 100, OPPOSITE, 131, 0, 1, EVEN, 0}},
    {&siglip_loss,
     "siglip_loss_127_identical",
     {127, 96, MASK, 100, IDENTICAL, 127, 0, 1, EVEN, 10}},
    {&siglip_loss, "siglip_loss_259_scale_100", {259, 40, MASK, 100, MATCHED, 131, 0, 1, EVEN, 10}},
    {&siglip_loss,
     "siglip_loss_300_4_ranks",
     {300, 33, SHARE, 10, MATCHED, 170, 64, 4, UNEVEN, 10}},
    {&siglip_loss, "siglip_loss_512_4_ranks", {512, 16, MASK, 10, MATCHED, 400, 0, 4, EVEN, 10}},
    {&siglip_loss, "siglip_loss_1030_share", {1030, 16, SHARE, 10, RANDOM, 900, 0, 1, EVEN, 10}},
};

CT_DEFINE_CASE_TABLE(siglip, cases);
