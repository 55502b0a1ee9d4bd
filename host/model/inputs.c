#include "model/inputs.h"

#include <stdlib.h>
#include <string.h>

enum {
    BUCKET_SHARE = 16,  /* buckets are this share of the power of two below apart */
    SHORTEST_BOUND = 16 /* max_seqlen is rounded up to a power of two from here on */
};

static int64_t round_up(int64_t value, int64_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

static int64_t bucket_tokens(int64_t multiple, int64_t tokens)
{
    if (multiple <= 1) return tokens;
    int64_t power = 1;
    while (power <= tokens / 2) power *= 2;
    const int64_t share = round_up(power / BUCKET_SHARE, multiple);
    return round_up(tokens, share > multiple ? share : multiple);
}

static int32_t bound_seqlen(int64_t multiple, int32_t longest)
{
    if (multiple <= 1) return longest;
    int32_t bound = SHORTEST_BOUND;
    while (bound < longest) bound *= 2;
    return bound;
}

static int64_t less(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- memory --------------------------------------------------------------------------------- */

ct_status ct_inputs_create(ct_inputs *inputs, const ct_device *device, const ct_clip_limits *limits,
                           int32_t micro)
{
    const int64_t tokens = less(limits->tokens, (int64_t)micro * limits->max_seqlen);
    *inputs =
        (ct_inputs){.micro = micro, .token_multiple = device->token_multiple, .capacity = *limits};
    inputs->capacity.tokens = bucket_tokens(inputs->token_multiple, tokens);
    inputs->capacity.max_seqlen = bound_seqlen(inputs->token_multiple, limits->max_seqlen);
    const size_t count = (size_t)ct_inputs_micro_count(inputs, limits->batch);
    const size_t row =
        (size_t)(inputs->capacity.tokens > micro ? inputs->capacity.tokens : (int64_t)micro + 1);
    CT_TRY(ct_alloc(count, sizeof(int32_t), "the inputs", &inputs->rows));
    return ct_alloc(count * row, sizeof(int32_t), "the inputs", &inputs->staging);
}

void ct_inputs_destroy(ct_inputs *inputs)
{
    free(inputs->rows);
    free(inputs->staging);
}

ct_status ct_inputs_place(ct_inputs *inputs, int64_t size, ct_arena *arena)
{
    const ct_clip_limits *most = &inputs->capacity;
    const int32_t count = ct_inputs_micro_count(inputs, most->batch);
    inputs->pixels = ct_tensor4(NULL, CT_U8, most->batch, size, size, 3);
    inputs->ids = inputs->positions = ct_tensor2(NULL, CT_I32, count, most->tokens);
    inputs->cu_seqlens = ct_tensor2(NULL, CT_I32, count, inputs->micro + 1);
    inputs->photo_ids = ct_tensor1(NULL, CT_I32, most->batch);
    inputs->step = ct_tensor1(NULL, CT_I32, 1);
    inputs->captions = most->batch;
    inputs->max_seqlen = most->max_seqlen;
    for (int32_t k = 0; k < count; k++) inputs->rows[k] = (int32_t)most->tokens;
    ct_tensor *const tensors[] = {&inputs->pixels,     &inputs->ids,       &inputs->positions,
                                  &inputs->cu_seqlens, &inputs->photo_ids, &inputs->step};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        CT_TRY(ct_arena_push(arena, ct_tensor_bytes(tensors[i]), &tensors[i]->data));
    return CT_OK;
}

/* ---- uploads -------------------------------------------------------------------------------- */

static ct_status upload(ct_device *device, const ct_tensor *tensor, const void *host)
{
    return device->backend->upload(device, tensor->data, host, ct_tensor_bytes(tensor));
}

ct_status ct_inputs_upload_images(ct_inputs *inputs, ct_device *device, const ct_clip_input *batch)
{
    inputs->pixels.dim[0] = batch->count;
    return upload(device, &inputs->pixels, batch->images);
}

/* The tokens of micro-batch k are numbers cu_seqlens[k micro] .. of the batch's. */
static const int32_t *micro_ends(const ct_inputs *inputs, const ct_clip_input *batch, int32_t k)
{
    return batch->cu_seqlens + (int64_t)k * inputs->micro;
}

static int32_t micro_tokens(const ct_inputs *inputs, const ct_clip_input *batch, int32_t k)
{
    const int32_t *ends = micro_ends(inputs, batch, k);
    return ends[ct_inputs_micro_size(inputs, batch->count, k)] - ends[0];
}

int32_t ct_inputs_longest_micro(const ct_inputs *inputs, const ct_clip_input *batch)
{
    int32_t longest = 0;
    for (int32_t k = 0; k < ct_inputs_micro_count(inputs, batch->count); k++) {
        const int32_t tokens = micro_tokens(inputs, batch, k);
        if (tokens > longest) longest = tokens;
    }
    return longest;
}

/* Sets rows and returns T. */
static int64_t size_tokens(ct_inputs *inputs, const ct_clip_input *batch)
{
    const int32_t count = ct_inputs_micro_count(inputs, batch->count);
    const int32_t own = ct_inputs_longest_micro(inputs, batch);
    const int32_t longest = own > batch->least_rows ? own : batch->least_rows;
    for (int32_t k = 0; k < count; k++) inputs->rows[k] = micro_tokens(inputs, batch, k);
    const int64_t tokens =
        less(bucket_tokens(inputs->token_multiple, longest), inputs->capacity.tokens);
    for (int32_t k = 0; inputs->token_multiple > 1 && k < count; k++)
        inputs->rows[k] = (int32_t)tokens;
    return tokens;
}

/* `tensor` (K, T) = `packed`, each micro-batch's tokens from the start of its row, zeros behind. */
static ct_status upload_tokens(ct_inputs *inputs, ct_device *device, ct_tensor *tensor,
                               int64_t tokens, const ct_clip_input *batch, const int32_t *packed)
{
    const int32_t count = ct_inputs_micro_count(inputs, batch->count);
    *tensor = ct_tensor2(tensor->data, CT_I32, count, tokens);
    memset(inputs->staging, 0, ct_tensor_bytes(tensor));
    for (int32_t k = 0; k < count; k++) {
        const int32_t *ends = micro_ends(inputs, batch, k);
        const int64_t size = ct_inputs_micro_size(inputs, batch->count, k);
        memcpy(inputs->staging + k * tokens, packed + ends[0],
               (size_t)(ends[size] - ends[0]) * sizeof *packed);
    }
    return upload(device, tensor, inputs->staging);
}

static ct_status upload_cu_seqlens(ct_inputs *inputs, ct_device *device, const ct_clip_input *batch)
{
    const int32_t count = ct_inputs_micro_count(inputs, batch->count);
    const int64_t row = inputs->micro + 1;
    inputs->cu_seqlens.dim[0] = count;
    memset(inputs->staging, 0, ct_tensor_bytes(&inputs->cu_seqlens));
    for (int32_t k = 0; k < count; k++) {
        const int32_t *ends = micro_ends(inputs, batch, k);
        for (int64_t n = 0; n <= ct_inputs_micro_size(inputs, batch->count, k); n++)
            inputs->staging[k * row + n] = ends[n] - ends[0];
    }
    return upload(device, &inputs->cu_seqlens, inputs->staging);
}

ct_status ct_inputs_upload_texts(ct_inputs *inputs, ct_device *device, const ct_clip_input *batch)
{
    const int64_t tokens = size_tokens(inputs, batch);
    inputs->captions = batch->count;
    const bool own = batch->max_seqlen > batch->least_seqlen;
    inputs->max_seqlen =
        bound_seqlen(inputs->token_multiple, own ? batch->max_seqlen : batch->least_seqlen);
    CT_TRY(upload_tokens(inputs, device, &inputs->ids, tokens, batch, batch->tokens));
    CT_TRY(upload_tokens(inputs, device, &inputs->positions, tokens, batch, batch->positions));
    return upload_cu_seqlens(inputs, device, batch);
}

ct_status ct_inputs_upload_training(ct_inputs *inputs, ct_device *device,
                                    const ct_clip_input *batch, int64_t step)
{
    const int32_t number = (int32_t)(step & INT32_MAX); /* ct_rng_at_step takes 24 bits of it */
    inputs->photo_ids.dim[0] = batch->count;
    CT_TRY(upload(device, &inputs->photo_ids, batch->photo_ids));
    return upload(device, &inputs->step, &number);
}

/* ---- micro-batches -------------------------------------------------------------------------- */

int32_t ct_inputs_micro_count(const ct_inputs *inputs, int64_t count)
{
    return (int32_t)((count + inputs->micro - 1) / inputs->micro);
}

int64_t ct_inputs_micro_size(const ct_inputs *inputs, int64_t count, int32_t k)
{
    return less(inputs->micro, count - (int64_t)k * inputs->micro);
}

ct_tensor ct_inputs_pixels(const ct_inputs *inputs, int32_t k)
{
    return ct_tensor_rows(&inputs->pixels, (int64_t)k * inputs->micro,
                          ct_inputs_micro_size(inputs, inputs->pixels.dim[0], k));
}

/* The first `count` numbers of row k. */
static ct_tensor row_start(const ct_tensor *tensor, int32_t k, int64_t count)
{
    ct_tensor row = ct_tensor_rows(tensor, k, 1);
    return ct_tensor1(row.data, row.dtype, count);
}

ct_text_input ct_inputs_text(const ct_inputs *inputs, int32_t k)
{
    const int64_t captions = ct_inputs_micro_size(inputs, inputs->captions, k);
    return (ct_text_input){.ids = row_start(&inputs->ids, k, inputs->rows[k]),
                           .positions = row_start(&inputs->positions, k, inputs->rows[k]),
                           .cu_seqlens = row_start(&inputs->cu_seqlens, k, captions + 1),
                           .max_seqlen = inputs->max_seqlen};
}
