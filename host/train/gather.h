/* Rows of numbers on the host that the ranks of a job have made parts of. */
#ifndef CT_TRAIN_GATHER_H
#define CT_TRAIN_GATHER_H

#include "comm.h"

typedef struct ct_part {
    int64_t begin, end;
} ct_part;

/* This rank's part of `count` rows. */
ct_part ct_part_of(const ct_comm *comm, int64_t count);

/* *all (any pointer type) = the ranks' rows, one after the other, freed with free(); *total = how
 * many. `own` (count rows of row_bytes, allocated) is taken over, and is the result itself where
 * there is one rank. Ranks may have different counts. */
CT_NODISCARD ct_status ct_gather_rows(ct_comm *comm, void *own, int64_t count, size_t row_bytes,
                                      void *all, int64_t *total);

#endif
