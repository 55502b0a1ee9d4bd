/* A batch of pairs, what the contrastive losses make of it in f64 and on a device, and how far the
 * two may be apart. */
#ifndef CT_TESTS_LOSS_PROBLEM_H
#define CT_TESTS_LOSS_PROBLEM_H

#include "op.h"

typedef enum loss_kind { CLIP, SIGLIP } loss_kind;

typedef enum batch_filling {
    MATCHED,   /* each text is near its image to a degree drawn for the batch */
    UNRELATED, /* texts have nothing to do with their images, as before training */
    EQUAL,     /* all embeddings are the same */
    IDENTICAL, /* texts are their images */
    OPPOSITE   /* texts are the negatives of their images */
} batch_filling;

typedef struct shape {
    loss_kind kind;
    int64_t count, width;
    ct_same_image same_image;
    double factor; /* exp(logit_scale) */
    int percent;   /* label smoothing */
    batch_filling filling;
    int ranks; /* 0: one */
    bool even; /* ranks have equally many rows; else ever more of them */
} shape;

/* The numbers are f64 that no float equals. */
typedef struct problem {
    shape shape;
    double *image, *text; /* (N, D) */
    double logit_scale, logit_bias;
    int32_t *photo_ids; /* (N); more than a third of the pairs share theirs */
} problem;

typedef struct results {
    double loss, dlogit_scale, dlogit_bias;
    double *row_lse, *col_lse; /* (N), CLIP only */
    double *dimage, *dtext;    /* (N, D) */
    /* Sums of the magnitudes of what cancels, known to references only: of the derivatives by all
     * similarities, and of those times the similarities. */
    double mass, scale_mass;
} results;

problem problem_create(const shape *s, uint64_t seed);
void problem_free(problem *p);

/* The same with all numbers rounded to f32, and with rows as `order` lists them. */
problem problem_rounded(const problem *p);
problem problem_permuted(const problem *p, const int64_t *order);

void results_free(results *r);

/* In f64, by the formulas of op.h in their plainest form. rounded: what is handed on in f32, the
 * log-sum-exps, is rounded. */
results reference_results(const problem *p, bool rounded);

/* By the device's operations. */
results device_results(ct_device *device, const problem *p);

/* Fails the test unless |d - R0| <= 2 |R1 - R0| + eps sqrt(terms) size for every result, in the
 * maximum norm and as root mean square: the rule of tests/op/case.h, with the same sizes of what
 * cancels as tests/op/pair_losses.c. R0: reference of p; R1: of p rounded. */
void check_results(const problem *p, const results *r0, const results *r1, const results *d);

/* All of it for one shape. */
void check_shape(ct_device *device, const shape *s, uint64_t seed);

#endif
