/* The device buffers that one batch's inputs are uploaded to. They are placed once, for the largest
 * batch, and stay where they are: operations recorded on one batch can be replayed on the next.
 *
 * Where a device records steps (token_multiple > 1), the packed tokens are rounded up to one of few
 * counts, at most 1/16 more than needed, and max_seqlen to a power of two from 16 on. The rows that
 * are added have id 0 and position 0 and belong to no sequence: attention gives them zeros and no
 * caption's feature is gathered from them, so that the gradients of all their activations are zero
 * and they add exactly nothing to any parameter's gradient. */
#ifndef CT_MODEL_INPUTS_H
#define CT_MODEL_INPUTS_H

#include "model/clip.h"
#include "model/distilbert.h"

typedef struct ct_inputs {
    ct_tensor pixels;    /* (N, size, size, 3) u8 */
    ct_text_input text;  /* T and max_seqlen rounded up as above */
    ct_tensor photo_ids; /* (N) i32 */
    ct_tensor step;      /* (1) i32 */
} ct_inputs;

/* `limits` with tokens and max_seqlen rounded up: what passes must be planned for. */
ct_clip_limits ct_inputs_capacity(const ct_device *device, const ct_clip_limits *limits);

/* Pushes the buffers for `capacity` and sizes the tensors for it. size: pixels a side. */
CT_NODISCARD ct_status ct_inputs_place(ct_inputs *inputs, const ct_clip_limits *capacity,
                                       int64_t size, ct_arena *arena);

/* Upload one part of a batch that is within the limits, and size its tensors for it. */
CT_NODISCARD ct_status ct_inputs_upload_images(ct_inputs *inputs, ct_device *device,
                                               const ct_clip_input *batch);
CT_NODISCARD ct_status ct_inputs_upload_texts(ct_inputs *inputs, ct_device *device,
                                              const ct_clip_limits *capacity,
                                              const ct_clip_input *batch);
CT_NODISCARD ct_status ct_inputs_upload_training(ct_inputs *inputs, ct_device *device,
                                                 const ct_clip_input *batch, int64_t step);

#endif
