#include "train/similarity.h"

#include <string.h>

#define LANES (CT_PANEL / 2)

typedef float vector __attribute__((vector_size(LANES * sizeof(float)), may_alias));

void ct_similarity_pack(const float *rows, int32_t count, int32_t dim, float *panel)
{
    if (count < CT_PANEL) memset(panel, 0, (size_t)dim * CT_PANEL * sizeof *panel);
    for (int32_t k = 0; k < dim; k++)
        for (int32_t c = 0; c < count; c++)
            panel[(size_t)k * CT_PANEL + c] = rows[(size_t)c * dim + k];
}

void ct_similarity_block(const float *const row[CT_BLOCK], const float *panel, int32_t dim,
                         float score[CT_BLOCK][CT_PANEL])
{
    const vector *column = (const vector *)panel;
    vector sum[CT_BLOCK][2] = {{{0}}};
    for (int32_t k = 0; k < dim; k++, column += 2) {
        vector left = column[0], right = column[1];
#pragma GCC unroll 6
        for (int r = 0; r < CT_BLOCK; r++) {
            sum[r][0] += row[r][k] * left;
            sum[r][1] += row[r][k] * right;
        }
    }
    memcpy(score, sum, sizeof sum);
}
