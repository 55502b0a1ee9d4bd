/* A trained model brought back from a checkpoint, ready to embed photos and captions. */
#ifndef CT_TRAIN_RESTORED_H
#define CT_TRAIN_RESTORED_H

#include "config/config.h"
#include "model/clip.h"
#include "op.h"
#include "text/tokenizer.h"
#include "train/checkpoint.h"

typedef struct ct_restored {
    ct_checkpoint *checkpoint;
    ct_config *config; /* of the run; the caller may override keys before ct_restored_build */
    ct_tokenizer *tokenizer;
    ct_device *device;
    ct_clip *clip;
    int threads;
} ct_restored;

/* path: a checkpoint, or a run's folder (its newest checkpoint). Reads configuration and
 * vocabulary. Close also after a failure. */
CT_NODISCARD ct_status ct_restored_open(const char *path, ct_restored *restored);

/* Opens the device and builds the model for batches of config->train.batch_size captions of at most
 * `longest` tokens. */
CT_NODISCARD ct_status ct_restored_build(ct_restored *restored, int32_t longest);

void ct_restored_close(ct_restored *restored);

#endif
