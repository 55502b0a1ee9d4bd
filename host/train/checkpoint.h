/* A checkpoint: one safetensors file that holds all a run needs to go on bit for bit, and all an
 * evaluation needs (configuration and vocabulary too).
 *   model.<name>       parameters and running statistics, PyTorch names and layout
 *   exp_avg.<name>, exp_avg_sq.<name>   AdamW's moments
 *   tokenizer.vocab    vocab.txt, bytes
 *   __metadata__       format "clip-train/1", step, config (YAML)
 * Everything random is a function of (seed, step), so no generator's state is kept. */
#ifndef CT_TRAIN_CHECKPOINT_H
#define CT_TRAIN_CHECKPOINT_H

#include "config/config.h"
#include "model/clip.h"
#include "text/tokenizer.h"

/* Written aside, synced, renamed. step: optimiser steps done. With several ranks one of them calls
 * it, the others ct_checkpoint_assist; the file is the same as one rank's, so that any number of
 * ranks can go on from it. */
CT_NODISCARD ct_status ct_checkpoint_save(const char *path, ct_params *params, ct_device *device,
                                          const ct_config *config, const ct_tokenizer *tokenizer,
                                          int64_t step);
CT_NODISCARD ct_status ct_checkpoint_assist(ct_params *params, ct_device *device);

/* What is known of a checkpoint before a model is built. */
typedef struct ct_checkpoint ct_checkpoint;
CT_NODISCARD ct_status ct_checkpoint_open(const char *path, ct_checkpoint **out);
void ct_checkpoint_close(ct_checkpoint *checkpoint);
int64_t ct_checkpoint_step(const ct_checkpoint *checkpoint);
/* *out = the run's configuration; destroy with ct_config_destroy. */
CT_NODISCARD ct_status ct_checkpoint_config(const ct_checkpoint *checkpoint, ct_config **out);
CT_NODISCARD ct_status ct_checkpoint_tokenizer(const ct_checkpoint *checkpoint, bool lowercase,
                                               ct_tokenizer **out);
/* Fills the parameters (and the moments, if they were allocated). Every tensor that is not optional
 * must be there with the right shape; what is missing or different is named. */
CT_NODISCARD ct_status ct_checkpoint_restore(const ct_checkpoint *checkpoint, ct_params *params,
                                             ct_device *device);

/* Loads pretrained weights of one tower from a safetensors file with torchvision's or Hugging
 * Face's names (a "distilbert." prefix is understood; what is not the tower's, like "fc.weight", is
 * ignored). tower: "image." or "text.". Every parameter of the tower must be found. */
CT_NODISCARD ct_status ct_weights_load(const char *path, const char *tower, ct_params *params);

#endif
