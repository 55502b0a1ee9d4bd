/* What the kinds of the contrastive losses (cases_loss.c, cases_siglip.c) share: parameters,
 * inputs, how ranks divide the rows, and similarities in f64, a row of them at a time. */
#ifndef CT_TESTS_OP_PAIR_LOSSES_H
#define CT_TESTS_OP_PAIR_LOSSES_H

#include "case.h"

/* A case's parameters. */
enum {
    CT_PAIR_BATCH,
    CT_PAIR_WIDTH,
    CT_PAIR_SAME_IMAGE,
    CT_PAIR_FACTOR, /* of the similarities */
    CT_PAIR_FILL,
    CT_PAIR_PHOTOS,     /* pair i shows photo i % photos */
    CT_PAIR_LOSS_SCALE, /* 0: none */
    CT_PAIR_RANKS,      /* 0: one */
    CT_PAIR_SPLIT,
    CT_PAIR_OWN /* clip_loss: label smoothing, per cent; siglip_loss: minus its bias */
};

enum {
    CT_PAIR_RANDOM,
    CT_PAIR_EQUAL,     /* all rows are the same, and so are all similarities */
    CT_PAIR_MATCHED,   /* texts near their images, as late in training */
    CT_PAIR_IDENTICAL, /* texts are their images: nothing is left to learn */
    CT_PAIR_OPPOSITE   /* texts as far from their images as can be */
};

/* How the rows are divided. The first rank of an uneven split has one row of a small batch. */
enum { CT_PAIR_UNEVEN, CT_PAIR_EVEN };

/* The slots that both kinds have; their own come behind them. */
enum {
    CT_PAIR_IMAGE,
    CT_PAIR_TEXT,
    CT_PAIR_LOGIT_SCALE,
    CT_PAIR_PHOTO_IDS,
    CT_PAIR_LOSS, /* each rank's share */
    CT_PAIR_LOSS_SCALES,
    CT_PAIR_SLOTS
};

/* Rank r owns rows [first_row(r), first_row(r + 1)), of which there is at least one. */
int64_t ct_pair_ranks(const ct_case_run *run);
int64_t ct_pair_first_row(const ct_case_run *run, int64_t rank);
ct_tensor ct_pair_own_rows(const ct_case_run *run, const ct_tensor *t, int64_t rank);

/* Of the slots above. */
void ct_pair_setup(ct_case_run *run);
void ct_pair_fill(ct_case_run *run);

/* Values summed for an element of anything that is made of similarities: over the width, then over
 * the batch. */
double ct_pair_terms(const ct_case_run *run);

bool ct_pair_same_photo(const ct_case_run *run, int64_t i, int64_t j);
bool ct_pair_counted(const ct_case_run *run, int64_t i, int64_t j);
/* How many pairs show the photo of pair i. */
double ct_pair_same_photos(const ct_case_run *run, int64_t i);

/* Memory for a row's similarities, or their derivatives: free(). */
double *ct_pair_new_row(const ct_case_run *run);

/* z[j] = similarity (i, j) for all j. */
void ct_pair_similarities(const ct_case_run *run, int64_t i, double *z);

/* The gradients, a row at a time. dz[j]: the loss's derivative by similarity z[j] of row i, 0 where
 * the pair does not count; cancels: the sum of what dz[j] is a difference of, of which the harness
 * is told. */
void ct_pair_begin_gradients(ct_case_run *run);
void ct_pair_add_gradients(ct_case_run *run, int64_t i, const double *z, const double *dz,
                           const double *cancels);

/* One product forward, three backward. */
double ct_pair_flops(const int64_t *p, bool backward);

#endif
