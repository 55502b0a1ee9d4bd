/* The whole model: two towers, two projections, L2 normalisation, logit_scale and the loss.
 *
 * A model plans its memory for the largest batch it will see, then allocates once: parameters,
 * gradients, moments, activations, the device's workspace, and buffers for one batch's inputs.
 * With train.micro_batch_size the activations are those of a micro-batch, whatever the batch.
 * On a device of several ranks (device->comm) a model is given its rank's part of each batch; the
 * loss, and the gradients after forward and backward, are those of the batch of all ranks.
 * Activations have the device's compute dtype; in f16 the loss's gradients are scaled by a factor
 * that the optimiser adapts, the parameter "loss_scale" (see ct_grad_norm_args). */
#ifndef CT_MODEL_CLIP_H
#define CT_MODEL_CLIP_H

#include "config/config.h"
#include "model/params.h"

typedef struct ct_clip ct_clip;

/* One batch as the host has it (see loader.h for the layout). images may be NULL when only texts
 * are encoded, tokens when only images are. */
typedef struct ct_clip_input {
    int32_t count;             /* N */
    const uint8_t *images;     /* (N, size, size, 3) */
    const int32_t *tokens;     /* (total_tokens) */
    const int32_t *positions;  /* (total_tokens) */
    const int32_t *cu_seqlens; /* (N + 1) */
    const int32_t *photo_ids;  /* (N), training only */
    int32_t total_tokens, max_seqlen;
    /* The most of any rank, so that all record and replay the same steps: see ct_clip_needs. 0:
     * this rank's own. */
    int32_t least_rows, least_seqlen;
} ct_clip_input;

typedef struct ct_clip_limits {
    int32_t batch;  /* most photos, or captions, a call */
    int64_t tokens; /* most packed tokens a call */
    int32_t max_seqlen;
    bool training; /* gradients, moments and saved activations too */
} ct_clip_limits;

/* Builds, plans and allocates. vocab_size is the tokenizer's. config and device are borrowed.
 * Parameters are initialised from config->seed. */
CT_NODISCARD ct_status ct_clip_create(const ct_config *config, int32_t vocab_size,
                                      ct_device *device, const ct_clip_limits *limits,
                                      ct_clip **out);
void ct_clip_destroy(ct_clip *clip);

ct_params *ct_clip_params(ct_clip *clip);

/* Most photos, or captions, that an encoding call takes. */
int32_t ct_clip_pass_size(const ct_clip *clip);

typedef struct ct_clip_memory {
    size_t parameter_bytes;       /* with gradients and moments */
    size_t activation_bytes;      /* the activation stack, with buffers for the inputs */
    size_t input_bytes;           /* of it: for the inputs of one batch */
    size_t activation_peak_bytes; /* the most of it that has been in use */
    size_t workspace_bytes;       /* the device's */
} ct_clip_memory;
ct_clip_memory ct_clip_memory_use(const ct_clip *clip);

/* The token rows that a pass over the batch takes at least, and its longest caption. */
void ct_clip_needs(const ct_clip *clip, const ct_clip_input *input, int32_t *rows,
                   int32_t *max_seqlen);

/* Uploads a batch for ct_clip_forward_backward; the host may reuse `input` at once, and a step that
 * is still running on the device is not disturbed. step feeds the dropout masks (optimiser steps
 * done before this one). Encoding overwrites what was staged. */
CT_NODISCARD ct_status ct_clip_stage(ct_clip *clip, const ct_clip_input *input, int64_t step);

/* Batches staged with equal keys run the very same operations on the same memory, so that a
 * recorded step may be replayed. */
uint64_t ct_clip_staged_key(const ct_clip *clip);

/* Zeroes the gradients, runs forward and backward on the staged batch: operations only, no upload.
 * The loss stays on the device until ct_clip_loss is called. With several ranks gradients are the
 * sums over ranks; with distributed.zero only those of this rank's parts (shards.h). */
CT_NODISCARD ct_status ct_clip_forward_backward(ct_clip *clip);
/* Waits for the device. */
CT_NODISCARD ct_status ct_clip_loss(ct_clip *clip, float *loss);

/* Normalised embeddings in evaluation mode, to the host: out (count, dim) f32. */
CT_NODISCARD ct_status ct_clip_encode_images(ct_clip *clip, const ct_clip_input *input, float *out);
CT_NODISCARD ct_status ct_clip_encode_texts(ct_clip *clip, const ct_clip_input *input, float *out);

#endif
