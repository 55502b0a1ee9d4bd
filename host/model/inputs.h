/* The device buffers that one batch's inputs are uploaded to. They are placed once, for the largest
 * batch, and stay where they are: operations recorded on one batch can be replayed on the next.
 *
 * A batch of N pairs goes through the towers in K micro-batches of `micro` pairs, the last of which
 * may have fewer; without micro-batches K is 1. Each has its own packed tokens:
 *
 *   ids, positions  [k]  (T)          its captions' tokens, zeros behind; T: as many as the longest
 *                                     micro-batch has
 *   cu_seqlens      [k]  (micro + 1)  0, ends of its captions within its tokens
 *
 * Where a device records steps (token_multiple > 1), T is rounded up to one of few counts, and
 * max_seqlen to a power of two from 16 on, and every micro-batch runs on T rows. The rows that are
 * added have id 0 and position 0 and belong to no sequence: attention gives them zeros and no
 * caption's feature is gathered from them, so that the gradients of all their activations are zero
 * and they add exactly nothing to any parameter's gradient. */
#ifndef CT_MODEL_INPUTS_H
#define CT_MODEL_INPUTS_H

#include "model/clip.h"
#include "model/distilbert.h"

typedef struct ct_inputs {
    ct_tensor pixels;         /* (N, size, size, 3) u8 */
    ct_tensor ids, positions; /* (K, T) i32 */
    ct_tensor cu_seqlens;     /* (K, micro + 1) i32 */
    ct_tensor photo_ids;      /* (N) i32 */
    ct_tensor step;           /* (1) i32 */
    int64_t captions;         /* N of the texts */
    int32_t micro, max_seqlen, token_multiple;
    ct_clip_limits capacity; /* rounded up as above; tokens: of a micro-batch */
    int32_t *rows;           /* (K), host: token rows that micro-batch k runs on */
    int32_t *staging;        /* host: what is uploaded next */
} ct_inputs;

/* For batches within `limits`, in micro-batches of `micro` pairs, on `device`. */
CT_NODISCARD ct_status ct_inputs_create(ct_inputs *inputs, const ct_device *device,
                                        const ct_clip_limits *limits, int32_t micro);
void ct_inputs_destroy(ct_inputs *inputs);

/* Pushes the buffers and sizes the tensors for the largest batch. size: pixels a side. */
CT_NODISCARD ct_status ct_inputs_place(ct_inputs *inputs, int64_t size, ct_arena *arena);

/* The most tokens of a micro-batch. */
int32_t ct_inputs_longest_micro(const ct_inputs *inputs, const ct_clip_input *batch);

/* Upload one part of a batch that is within the limits, and size its tensors for it. */
CT_NODISCARD ct_status ct_inputs_upload_images(ct_inputs *inputs, ct_device *device,
                                               const ct_clip_input *batch);
CT_NODISCARD ct_status ct_inputs_upload_texts(ct_inputs *inputs, ct_device *device,
                                              const ct_clip_input *batch);
CT_NODISCARD ct_status ct_inputs_upload_training(ct_inputs *inputs, ct_device *device,
                                                 const ct_clip_input *batch, int64_t step);

/* How many micro-batches `count` pairs make, and how many pairs micro-batch k has. */
int32_t ct_inputs_micro_count(const ct_inputs *inputs, int64_t count);
int64_t ct_inputs_micro_size(const ct_inputs *inputs, int64_t count, int32_t k);

/* Micro-batch k of what was uploaded. */
ct_tensor ct_inputs_pixels(const ct_inputs *inputs, int32_t k);
ct_text_input ct_inputs_text(const ct_inputs *inputs, int32_t k);

#endif
