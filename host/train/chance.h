/* What a model that ranks at random would score: the numbers to hold recall against. */
#ifndef CT_TRAIN_CHANCE_H
#define CT_TRAIN_CHANCE_H

#include "train/retrieval.h"

/* own (queries): number of right answers of each query among the candidates; those without any are
 * left out, as in ct_retrieval. The best of m right answers among n candidates in random order has
 * rank r with P(rank > r) = C(n - m, r) / C(n, r) and mean (n + 1) / (m + 1). median_rank is the
 * least r that at least half of all queries reach. No query at all: zeros. */
CT_NODISCARD ct_status ct_chance_compute(const int32_t *own, int32_t queries, int32_t candidates,
                                         ct_recall *out);

#endif
