/* Dot products of a few rows with a panel of other rows, in single precision.
 *
 *   panel (dim, CT_PANEL): CT_PANEL rows, transposed, so that a vector holds the same dimension of
 *   neighbouring rows; missing rows are zero
 *
 * Every product is one chain of multiply-adds over ascending dimensions, wherever it stands in a
 * block, and a.b is the same chain as b.a. So equal embeddings have equal scores, to the bit: ties
 * are seen as ties, and nothing depends on tile edges or the number of threads. */
#ifndef CT_TRAIN_SIMILARITY_H
#define CT_TRAIN_SIMILARITY_H

#include <stdint.h>

/* Two vectors wide; with CT_BLOCK rows the sums fill 12 of the 16 (or 32) vector registers. */
#ifdef __AVX512F__
#define CT_PANEL 32
#else
#define CT_PANEL 16
#endif
#define CT_BLOCK 6

/* Packs rows (count, dim), 1 <= count <= CT_PANEL, into panel (dim, CT_PANEL). The panel must be
 * aligned to 64 bytes. */
void ct_similarity_pack(const float *rows, int32_t count, int32_t dim, float *panel);

/* score[r][c] = row[r] . panel row c. */
void ct_similarity_block(const float *const row[CT_BLOCK], const float *panel, int32_t dim,
                         float score[CT_BLOCK][CT_PANEL]);

#endif
