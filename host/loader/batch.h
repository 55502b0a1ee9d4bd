/* The memory of one batch of the ring, and how a finished batch is completed. */
#ifndef CT_LOADER_BATCH_H
#define CT_LOADER_BATCH_H

#include <stdbool.h>

#include "loader/loader.h"

/* A place of the ring. Workers fill positions of `batch` side by side; the last one completes it.
 */
typedef struct ct_slot {
    ct_batch batch;
    bool *readable;    /* (planned) positions that hold a photo */
    int32_t planned;   /* positions handed out when the batch is made */
    int32_t remaining; /* of them not finished yet */
    bool ready;
} ct_slot;

/* Memory for batches of up to batch_size photos; longest: tokens of the longest caption, 0 for
 * evaluation (no captions). */
CT_NODISCARD ct_status ct_slot_create(ct_slot *slot, int32_t batch_size, int32_t size,
                                      int32_t longest);
void ct_slot_destroy(ct_slot *slot);

/* Training: packs the captions' tokens one behind the other. */
void ct_slot_pack(ct_slot *slot, const ct_token_store *store);

/* Evaluation: closes the gaps that unreadable photos left. */
void ct_slot_compact(ct_slot *slot, int32_t size);

#endif
