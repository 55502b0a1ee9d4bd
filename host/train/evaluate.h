/* Retrieval over one split of a corpus. */
#ifndef CT_TRAIN_EVALUATE_H
#define CT_TRAIN_EVALUATE_H

#include "train/corpus.h"
#include "train/embed.h"
#include "train/retrieval.h"

typedef struct ct_evaluation {
    ct_retrieval *retrieval;
    int32_t *photos;   /* (retrieval->images) row -> dataset photo */
    int32_t *captions; /* (retrieval->texts) row -> dataset caption */
} ct_evaluation;

/* Every readable photo of the split against all captions of those photos. With comm (else NULL) all
 * ranks call it, share the work, and have the same result. */
CT_NODISCARD ct_status ct_evaluate(const ct_config *config, const ct_corpus *corpus, ct_clip *clip,
                                   ct_split split, int threads, ct_comm *comm,
                                   ct_interrupt *interrupt, ct_evaluation **out);
void ct_evaluation_destroy(ct_evaluation *evaluation);

#endif
