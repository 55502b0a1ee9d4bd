/* Retrieval as papers report it (Karpathy & Fei-Fei 2015; VSE++): every photo of a split against
 * all captions of the split.
 *   image -> text: rank of the best-placed of the photo's own captions
 *   text -> image: rank of the caption's photo
 * A rank is 1 + the number of competitors (captions of other photos; other photos) that score at
 * least as much as the right answer. A photo's other captions never push its best one down, so this
 * is its place in the full sorted list, as in those papers.
 * Recall@K is the share (in percent) of queries whose rank is at most K; ranks start at 1; ties are
 * ranked pessimistically (an equal score counts as better), so a collapsed model scores nothing. */
#ifndef CT_TRAIN_RETRIEVAL_H
#define CT_TRAIN_RETRIEVAL_H

#include <stdint.h>

#include "comm.h"

typedef struct ct_recall {
    double r1, r5, r10; /* percent */
    double median_rank; /* mean of the two middle ones when even */
    double mean_rank;
} ct_recall;

#define CT_TOP 5

typedef struct ct_retrieval {
    int32_t images, texts, dim;
    ct_recall image_to_text, text_to_image;
    ct_recall chance_image_to_text, chance_text_to_image; /* of ranking at random; see chance.h */
    int32_t *image_rank; /* (images) 0: no caption of it is in the set, so it is not counted */
    int32_t *text_rank;  /* (texts) 0: its photo is not known */
    int32_t *image_top;  /* (images, CT_TOP) texts, best first; -1 where there are fewer */
    int32_t *text_top;   /* (texts, CT_TOP) photos, best first */
    float *image_top_score, *text_top_score; /* cosines; -INFINITY beside -1 */
} ct_retrieval;

/* image (images, dim), text (texts, dim): unit rows, row-major, on the host; owner[t] is the row of
 * text t's photo. owner NULL: no right answers are known; all ranks are 0, all recalls too, and
 * only the tops are of use. Memory O(tile): the full matrix is not stored. NaN embeddings rank last
 * and are never among the top. threads: OpenMP threads; the result is the same, to the bit, with
 * any number. CT_ERR_ARGUMENT when there is no photo or no caption. */
CT_NODISCARD ct_status ct_retrieval_compute(const float *image, int32_t images, const float *text,
                                            int32_t texts, int32_t dim, const int32_t *owner,
                                            int threads, ct_retrieval **out);

/* The same, by all ranks of a job, which each give all embeddings and rank a part of the queries:
 * every rank has the same result, that of one rank. comm may be NULL. */
CT_NODISCARD ct_status ct_retrieval_compute_shared(const float *image, int32_t images,
                                                   const float *text, int32_t texts, int32_t dim,
                                                   const int32_t *owner, int threads, ct_comm *comm,
                                                   ct_retrieval **out);
void ct_retrieval_destroy(ct_retrieval *retrieval);

#endif
