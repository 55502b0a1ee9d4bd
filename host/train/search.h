/* Retrieval among one's own photos and texts, where no right answers are known. */
#ifndef CT_TRAIN_SEARCH_H
#define CT_TRAIN_SEARCH_H

#include "data/dataset.h"
#include "train/restored.h"
#include "train/retrieval.h"

typedef struct ct_search {
    ct_retrieval *retrieval; /* its tops and scores; no ranks */
    int32_t *photos;         /* (retrieval->images) row -> dataset photo */
} ct_search;

/* Builds the restored model and compares every readable photo of `photos` (indices into dataset)
 * with every text. */
CT_NODISCARD ct_status ct_search_run(ct_restored *restored, const ct_dataset *dataset,
                                     const int32_t *photos, int32_t photo_count,
                                     const char *const *texts, int32_t text_count, ct_search *out);
void ct_search_free(ct_search *search);

#endif
