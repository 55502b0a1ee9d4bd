#include "train/chance.h"

#include <stdlib.h>

#include "base/memory.h"

ct_status ct_chance_compute(const int32_t *own, int32_t queries, int32_t candidates, ct_recall *out)
{
    *out = (ct_recall){0};
    int32_t most = 0, asked = 0;
    for (int32_t q = 0; q < queries; q++) {
        if (own[q] > most) most = own[q];
        asked += own[q] > 0;
    }
    if (asked == 0) return CT_OK;

    /* beyond[m]: share of all queries that have m right answers and rank > r */
    double *beyond;
    CT_TRY(ct_alloc((size_t)most + 1, sizeof *beyond, "chance level", &beyond));
    for (int32_t q = 0; q < queries; q++) beyond[own[q]] += own[q] > 0 ? 1.0 / asked : 0;
    for (int32_t m = 1; m <= most; m++)
        out->mean_rank += beyond[m] * (candidates + 1.0) / (m + 1.0);
    for (int32_t r = 1; r <= candidates && (r <= 10 || out->median_rank == 0); r++) {
        double reached = 1;
        for (int32_t m = 1; m <= most; m++) {
            int32_t free_places = candidates - m - (r - 1);
            beyond[m] *= free_places > 0 ? (double)free_places / (candidates - (r - 1)) : 0;
            reached -= beyond[m];
        }
        if (r == 1) out->r1 = 100 * reached;
        if (r <= 5) out->r5 = 100 * reached;
        if (r <= 10) out->r10 = 100 * reached;
        if (out->median_rank == 0 && reached >= 0.5 - 1e-9) out->median_rank = r;
    }
    free(beyond);
    return CT_OK;
}
