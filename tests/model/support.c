#include "model/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- reference files ------------------------------------------------------------------------ */

const cJSON *json_get(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!item) fail_msg("the reference has no \"%s\"", key);
    return item;
}

double json_number(const cJSON *object, const char *key)
{
    return cJSON_GetNumberValue(json_get(object, key));
}

double json_at(const cJSON *array, int index)
{
    return cJSON_GetNumberValue(cJSON_GetArrayItem(array, index));
}

void reference_open(const char *name, reference *out)
{
    char path[128];
    size_t size;
    snprintf(path, sizeof path, "tests/reference/data/model_%s.json", name);
    char *text = read_text(path, &size);
    *out = (reference){.json = cJSON_ParseWithLength(text, size)};
    free(text);
    if (!out->json) fail_msg("%s is not JSON", path);
    out->vocabulary = (int32_t)json_number(out->json, "vocabulary");
    assert_ok(ct_config_create(&out->config));
    const cJSON *assignment;
    cJSON_ArrayForEach(assignment, json_get(out->json, "config"))
        assert_ok(ct_config_override(out->config, cJSON_GetStringValue(assignment)));
}

void reference_close(reference *ref)
{
    cJSON_Delete(ref->json);
    ct_config_destroy(ref->config);
}

/* ---- numbers drawn by name ------------------------------------------------------------------ */

/* FNV-1a makes a stream of the name. */
ct_rng_key reference_stream(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (; *name; name++) hash = (hash ^ (uint8_t)*name) * 0x100000001b3u;
    return ct_rng_make(7, CT_RNG_TEST, hash >> 32, hash);
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

/* initial_value in make_model.py: centre + scale * U(-1, 1). */
static void draw_initial(const ct_param *param, ct_image_encoder encoder, float *host)
{
    const int64_t *dim = param->value.dim;
    const bool vit = encoder == CT_VIT;
    const bool last = !vit && strstr(param->name, encoder == CT_RESNET50 ? ".bn3." : ".bn2.");
    const bool shifted = strncmp(param->name, "image.", 6) == 0 && !last && !vit;
    double centre = 0.0, scale;
    if (param->value.rank == 4) {
        scale = sqrt(6.0 / (double)(dim[0] * dim[1] * dim[2]));
    } else if (param->value.rank == 3) {
        scale = 0.5;
    } else if (param->value.rank == 2) {
        scale = sqrt(3.0 / (double)dim[1]);
    } else if (ends_with(param->name, "bias")) {
        centre = shifted ? 2.5 : 0.0;
        scale = 0.1;
    } else {
        centre = last ? 0.25 : 1.0;
        scale = 0.25;
    }
    const ct_rng_key key = reference_stream(param->name);
    const int64_t count = ct_tensor_count(&param->value);
    for (int64_t block = 0; 4 * block < count; block++) {
        const ct_philox words = ct_philox_block(key, (uint64_t)block);
        for (int64_t i = 4 * block; i < count && i < 4 * block + 4; i++) {
            double centred = 2.0 * (double)ct_rng_to_unit(words.word[i % 4]) - 1.0;
            host[i] = (float)(centre + scale * centred);
        }
    }
}

void reference_initialise(const reference *ref, ct_params *params)
{
    for (int i = 0; i < ct_params_count(params); i++) {
        const ct_param *param = ct_params_at(params, i);
        if (param->buffer || strcmp(param->name, "logit_scale") == 0) continue;
        float *host = must_alloc(ct_tensor_bytes(&param->value));
        draw_initial(param, ref->config->image.encoder, host);
        assert_ok(ct_param_upload(params, param, &param->value, host));
        free(host);
    }
}

/* ---- batches -------------------------------------------------------------------------------- */

static ct_rng_key batch_stream(const char *kind, int index)
{
    char name[32];
    snprintf(name, sizeof name, "%s.%d", kind, index);
    return reference_stream(name);
}

/* A coarse pattern of 8 x 8 squares under fine noise. */
static void draw_images(int index, int64_t count, int64_t size, uint8_t *images)
{
    const ct_rng_key coarse = batch_stream("coarse", index), fine = batch_stream("fine", index);
    const int64_t squares = size / 8;
    for (int64_t n = 0, i = 0; n < count; n++)
        for (int64_t y = 0; y < size; y++)
            for (int64_t x = 0; x < size; x++)
                for (int64_t c = 0; c < 3; c++, i++) {
                    int64_t square = ((n * squares + y / 8) * squares + x / 8) * 3 + c;
                    uint32_t low = ct_rng_u32(coarse, (uint64_t)square) & 255;
                    uint32_t high = ct_rng_u32(fine, (uint64_t)i) & 255;
                    images[i] = (uint8_t)((3 * low + high) / 4);
                }
}

void batch_create(const reference *ref, int index, batch *out)
{
    const cJSON *json = cJSON_GetArrayItem(json_get(ref->json, "batches"), index);
    const cJSON *lengths = json_get(json, "lengths"), *photos = json_get(json, "photos");
    const int32_t count = (int32_t)cJSON_GetArraySize(lengths);
    const int64_t size = ref->config->image.size;
    int32_t total = 0, longest = 0;
    out->cu_seqlens = must_alloc(sizeof(int32_t) * (size_t)(count + 1));
    out->photo_ids = must_alloc(sizeof(int32_t) * (size_t)count);
    for (int32_t n = 0; n < count; n++) {
        int32_t length = (int32_t)json_at(lengths, n);
        out->photo_ids[n] = (int32_t)json_at(photos, n);
        total += length;
        if (length > longest) longest = length;
        out->cu_seqlens[n + 1] = total;
    }
    out->tokens = must_alloc(sizeof(int32_t) * (size_t)total);
    out->positions = must_alloc(sizeof(int32_t) * (size_t)total);
    const ct_rng_key tokens = batch_stream("tokens", index);
    for (int32_t n = 0; n < count; n++)
        for (int32_t t = out->cu_seqlens[n]; t < out->cu_seqlens[n + 1]; t++) {
            out->tokens[t] = (int32_t)ct_rng_below(tokens, (uint64_t)t, (uint32_t)ref->vocabulary);
            out->positions[t] = t - out->cu_seqlens[n];
        }
    out->images = must_alloc((size_t)(count * size * size * 3));
    draw_images(index, count, size, out->images);
    out->input = (ct_clip_input){.count = count,
                                 .images = out->images,
                                 .tokens = out->tokens,
                                 .positions = out->positions,
                                 .cu_seqlens = out->cu_seqlens,
                                 .photo_ids = out->photo_ids,
                                 .total_tokens = total,
                                 .max_seqlen = longest};
}

void batch_destroy(batch *b)
{
    free(b->tokens);
    free(b->positions);
    free(b->cu_seqlens);
    free(b->photo_ids);
    free(b->images);
}

void run_pass(ct_clip *clip, const ct_clip_input *input, int64_t step)
{
    assert_ok(ct_clip_stage(clip, input, step));
    assert_ok(ct_clip_forward_backward(clip));
}

void run_update(ct_optimizer *optimizer, int64_t step)
{
    assert_ok(ct_optimizer_stage(optimizer, step));
    assert_ok(ct_optimizer_step(optimizer));
}

static int32_t greater(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

ct_clip_limits reference_limits(const batch *first, const batch *second)
{
    const ct_clip_input *a = &first->input, *b = &second->input;
    return (ct_clip_limits){.batch = greater(a->count, b->count),
                            .tokens = greater(a->total_tokens, b->total_tokens),
                            .max_seqlen = greater(a->max_seqlen, b->max_seqlen),
                            .training = true};
}
