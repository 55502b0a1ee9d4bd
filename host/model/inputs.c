#include "model/inputs.h"

enum {
    BUCKET_SHARE = 16,  /* buckets are this share of the power of two below apart */
    SHORTEST_BOUND = 16 /* max_seqlen is rounded up to a power of two from here on */
};

static int64_t round_up(int64_t value, int64_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

static int64_t bucket_tokens(const ct_device *device, int64_t tokens)
{
    const int64_t multiple = device->token_multiple;
    if (multiple <= 1) return tokens;
    int64_t power = 1;
    while (power <= tokens / 2) power *= 2;
    const int64_t share = round_up(power / BUCKET_SHARE, multiple);
    return round_up(tokens, share > multiple ? share : multiple);
}

static int32_t bound_seqlen(const ct_device *device, int32_t longest)
{
    if (device->token_multiple <= 1) return longest;
    int32_t bound = SHORTEST_BOUND;
    while (bound < longest) bound *= 2;
    return bound;
}

ct_clip_limits ct_inputs_capacity(const ct_device *device, const ct_clip_limits *limits)
{
    ct_clip_limits capacity = *limits;
    capacity.tokens = bucket_tokens(device, limits->tokens);
    capacity.max_seqlen = bound_seqlen(device, limits->max_seqlen);
    return capacity;
}

ct_status ct_inputs_place(ct_inputs *inputs, const ct_clip_limits *capacity, int64_t size,
                          ct_arena *arena)
{
    *inputs = (ct_inputs){.pixels = ct_tensor4(NULL, CT_U8, capacity->batch, size, size, 3),
                          .text = {.ids = ct_tensor1(NULL, CT_I32, capacity->tokens),
                                   .positions = ct_tensor1(NULL, CT_I32, capacity->tokens),
                                   .cu_seqlens = ct_tensor1(NULL, CT_I32, capacity->batch + 1),
                                   .max_seqlen = capacity->max_seqlen},
                          .photo_ids = ct_tensor1(NULL, CT_I32, capacity->batch),
                          .step = ct_tensor1(NULL, CT_I32, 1)};
    ct_tensor *const tensors[] = {&inputs->pixels,         &inputs->text.ids,
                                  &inputs->text.positions, &inputs->text.cu_seqlens,
                                  &inputs->photo_ids,      &inputs->step};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        CT_TRY(ct_arena_push(arena, ct_tensor_bytes(tensors[i]), &tensors[i]->data));
    return CT_OK;
}

static ct_status upload(ct_device *device, const ct_tensor *tensor, const void *host)
{
    return device->backend->upload(device, tensor->data, host, ct_tensor_bytes(tensor));
}

ct_status ct_inputs_upload_images(ct_inputs *inputs, ct_device *device, const ct_clip_input *batch)
{
    inputs->pixels.dim[0] = batch->count;
    return upload(device, &inputs->pixels, batch->images);
}

/* `given` numbers from the host and zeros behind them. */
static ct_status upload_padded(ct_device *device, ct_tensor *tensor, int64_t count,
                               const int32_t *host, int64_t given)
{
    tensor->dim[0] = given;
    CT_TRY(upload(device, tensor, host));
    tensor->dim[0] = count;
    if (count == given) return CT_OK;
    return device->backend->zero(device, ct_i32(tensor) + given,
                                 (size_t)(count - given) * sizeof *host);
}

ct_status ct_inputs_upload_texts(ct_inputs *inputs, ct_device *device,
                                 const ct_clip_limits *capacity, const ct_clip_input *batch)
{
    ct_text_input *text = &inputs->text;
    int64_t tokens = bucket_tokens(device, batch->total_tokens);
    if (tokens > capacity->tokens) tokens = capacity->tokens;
    text->cu_seqlens.dim[0] = batch->count + 1;
    text->max_seqlen = bound_seqlen(device, batch->max_seqlen);
    CT_TRY(upload_padded(device, &text->ids, tokens, batch->tokens, batch->total_tokens));
    CT_TRY(upload_padded(device, &text->positions, tokens, batch->positions, batch->total_tokens));
    return upload(device, &text->cu_seqlens, batch->cu_seqlens);
}

ct_status ct_inputs_upload_training(ct_inputs *inputs, ct_device *device,
                                    const ct_clip_input *batch, int64_t step)
{
    const int32_t number = (int32_t)(step & INT32_MAX); /* ct_rng_at_step takes 24 bits of it */
    inputs->photo_ids.dim[0] = batch->count;
    CT_TRY(upload(device, &inputs->photo_ids, batch->photo_ids));
    return upload(device, &inputs->step, &number);
}
