#include "model/params.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The blocks of device memory: one tensor of each parameter that has it lies in each. Values (of
 * what is trained), gradients and moments have the same layout; buffers' values are apart. */
enum {
    BLOCK_VALUE,
    BLOCK_BUFFER,
    BLOCK_WEIGHT,
    BLOCK_GRAD,
    BLOCK_EXP_AVG,
    BLOCK_EXP_AVG_SQ,
    BLOCK_COUNT
};

static const char *const block_purpose[BLOCK_COUNT] = {
    "parameters", "running statistics", "weights", "gradients", "first moments", "second moments"};

struct ct_params {
    ct_param **items; /* each allocated on its own: pointers to them stay valid */
    size_t count, capacity;
    ct_device *device; /* NULL until allocated */
    int64_t bucket;    /* 0: one rank has all */
    bool own_moments;  /* moments of this rank's parts only */
    ct_shards shards;  /* with several ranks, once allocated */
    void *block[BLOCK_COUNT];
    size_t block_bytes[BLOCK_COUNT];
};

ct_status ct_params_create(ct_params **out)
{
    return ct_alloc(1, sizeof **out, "the parameter registry", out);
}

void ct_params_destroy(ct_params *params)
{
    if (!params) return;
    for (int b = 0; b < BLOCK_COUNT; b++)
        if (params->block[b]) params->device->backend->free(params->device, params->block[b]);
    for (size_t i = 0; i < params->count; i++) free(params->items[i]);
    free(params->items);
    free(params);
}

ct_status ct_params_add(ct_params *params, const ct_param *param, const ct_param **out)
{
    if (params->device)
        return ct_fail(CT_ERR_INTERNAL, "parameter %s added after allocation", param->name);
    if (ct_params_find(params, param->name))
        return ct_fail(CT_ERR_INTERNAL, "parameter %s added twice", param->name);
    CT_TRY(ct_grow(&params->items, &params->capacity, params->count + 1, sizeof *params->items,
                   "the parameter registry"));
    ct_param *item;
    CT_TRY(ct_alloc(1, sizeof *item, "a parameter", &item));
    *item = *param;
    item->value.data = NULL;
    item->value.dtype = CT_F32;
    item->weight = item->grad = item->exp_avg = item->exp_avg_sq = (ct_tensor){0};
    item->index = (int)params->count;
    params->items[params->count++] = item;
    *out = item;
    return CT_OK;
}

static ct_tensor *block_tensor(ct_param *param, int block)
{
    ct_tensor *const tensor[BLOCK_COUNT] = {&param->value, &param->value,   &param->weight,
                                            &param->grad,  &param->exp_avg, &param->exp_avg_sq};
    return tensor[block];
}

/* Whether the parameter has a tensor of its own in the block. */
static bool in_block(const ct_param *param, int block)
{
    if (block == BLOCK_WEIGHT) return param->operand;
    return block == BLOCK_BUFFER ? param->buffer : !param->buffer;
}

static bool block_needed(const ct_device *device, int block, bool with_training)
{
    if (block == BLOCK_VALUE || block == BLOCK_BUFFER) return true;
    return block == BLOCK_WEIGHT ? device->compute_dtype != CT_F32 : with_training;
}

/* Places the block's tensors one after the other from `base` (NULL: only measures the bytes). */
static ct_status lay_out(ct_params *params, int block, void *base, size_t *bytes)
{
    ct_arena arena;
    ct_arena_init(&arena, base, *bytes);
    for (size_t i = 0; i < params->count; i++) {
        ct_param *param = params->items[i];
        if (!in_block(param, block)) continue;
        ct_tensor *tensor = block_tensor(param, block);
        *tensor = param->value;
        if (block == BLOCK_WEIGHT) tensor->dtype = params->device->compute_dtype;
        CT_TRY(ct_arena_push(&arena, ct_tensor_bytes(tensor), &tensor->data));
    }
    *bytes = arena.peak_bytes;
    return CT_OK;
}

static bool is_moment(int block)
{
    return block == BLOCK_EXP_AVG || block == BLOCK_EXP_AVG_SQ;
}

/* Ranks exchange whole buckets of values and gradients, so blocks of those end with one. */
static ct_status allocate_block(ct_params *params, int block)
{
    ct_device *device = params->device;
    const bool apart = is_moment(block) && params->own_moments;
    const bool shared = block == BLOCK_VALUE || block == BLOCK_GRAD || is_moment(block);
    size_t bytes = 0;
    if (!apart) CT_TRY(lay_out(params, block, NULL, &bytes));
    if (params->bucket && block == BLOCK_VALUE)
        params->shards = ct_shards_make((int64_t)(bytes / sizeof(float)), params->bucket,
                                        ct_comm_rank(device->comm), ct_comm_size(device->comm));
    if (params->bucket && shared) bytes = (size_t)params->shards.count * sizeof(float);
    if (apart) bytes = (size_t)ct_shards_own_count(&params->shards) * sizeof(float);
    CT_TRY(device->backend->alloc(device, bytes, block_purpose[block], &params->block[block]));
    params->block_bytes[block] = bytes;
    return apart ? CT_OK : lay_out(params, block, params->block[block], &bytes);
}

/* FNV-1a, 64 bits (Fowler, Noll, Vo): the parameter's own stream of numbers. */
static uint64_t name_hash(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (; *name; name++) hash = (hash ^ (uint8_t)*name) * 0x100000001b3u;
    return hash;
}

static void fill(const ct_param *param, uint64_t seed, float *host)
{
    const uint64_t hash = name_hash(param->name);
    const ct_rng_key key = ct_rng_make(seed, CT_RNG_INIT, hash >> 32, hash);
    const int64_t count = ct_tensor_count(&param->value);
    const double scale = param->init_scale;
#pragma omp parallel for
    for (int64_t i = 0; i < count; i++) {
        switch (param->init) {
        case CT_INIT_CONSTANT:
            host[i] = param->init_scale;
            break;
        case CT_INIT_NORMAL:
            host[i] = (float)(scale * ct_rng_normal(key, (uint64_t)i));
            break;
        case CT_INIT_UNIFORM:
            host[i] = (float)(scale * (2.0 * ct_rng_uniform(key, (uint64_t)i) - 1.0));
            break;
        }
    }
}

static ct_status initialise(ct_params *params, uint64_t seed)
{
    int64_t largest = 0;
    for (size_t i = 0; i < params->count; i++) {
        int64_t count = ct_tensor_count(&params->items[i]->value);
        if (count > largest) largest = count;
    }
    float *host;
    CT_TRY(ct_alloc((size_t)largest, sizeof *host, "parameter initialisation", &host));
    ct_status status = CT_OK;
    for (size_t i = 0; i < params->count && status == CT_OK; i++) {
        const ct_param *param = params->items[i];
        fill(param, seed, host);
        status = ct_param_upload(params, param, &param->value, host);
    }
    free(host);
    return status;
}

ct_status ct_params_allocate(ct_params *params, ct_device *device, uint64_t seed,
                             bool with_training)
{
    if (params->device) return ct_fail(CT_ERR_INTERNAL, "parameters allocated twice");
    params->device = device;
    for (int b = 0; b < BLOCK_COUNT; b++) {
        if (block_needed(device, b, with_training)) CT_TRY(allocate_block(params, b));
    }
    for (size_t i = 0; i < params->count; i++) {
        ct_param *param = params->items[i];
        if (!ct_tensor_present(&param->weight)) param->weight = param->value;
    }
    return initialise(params, seed);
}

void ct_params_share(ct_params *params, int64_t bucket, bool own_moments)
{
    params->bucket = bucket;
    params->own_moments = own_moments;
}

const ct_shards *ct_params_shards(const ct_params *params)
{
    return params->bucket ? &params->shards : NULL;
}

bool ct_params_own_moments(const ct_params *params)
{
    return params->own_moments;
}

static ct_tensor flat(const ct_params *params, int block)
{
    return ct_tensor1(params->block[block], CT_F32,
                      (int64_t)(params->block_bytes[block] / sizeof(float)));
}

ct_tensor ct_params_values(const ct_params *params)
{
    return flat(params, BLOCK_VALUE);
}

ct_tensor ct_params_grads(const ct_params *params)
{
    return flat(params, BLOCK_GRAD);
}

ct_tensor ct_params_moments(const ct_params *params, int which)
{
    return flat(params, which == 0 ? BLOCK_EXP_AVG : BLOCK_EXP_AVG_SQ);
}

int ct_params_count(const ct_params *params)
{
    return (int)params->count;
}

const ct_param *ct_params_at(const ct_params *params, int index)
{
    return params->items[index];
}

const ct_param *ct_params_find(const ct_params *params, const char *name)
{
    for (size_t i = 0; i < params->count; i++)
        if (strcmp(params->items[i]->name, name) == 0) return params->items[i];
    return NULL;
}

int64_t ct_params_elements(const ct_params *params)
{
    int64_t elements = 0;
    for (size_t i = 0; i < params->count; i++)
        if (!params->items[i]->buffer) elements += ct_tensor_count(&params->items[i]->value);
    return elements;
}

size_t ct_params_bytes(const ct_params *params)
{
    size_t bytes = 0;
    for (int b = 0; b < BLOCK_COUNT; b++) bytes += params->block_bytes[b];
    return bytes;
}

ct_status ct_params_zero_grads(ct_params *params)
{
    return params->device->backend->zero(params->device, params->block[BLOCK_GRAD],
                                         params->block_bytes[BLOCK_GRAD]);
}

/* to[o][c][p] = from[o][p][c]: with (rows, columns) = (KH KW, Ci) memory to file, with (Ci, KH KW)
 * file to memory. */
static void transpose(float *to, const float *from, int64_t count, int64_t rows, int64_t columns)
{
    for (int64_t o = 0; o < count; o++, to += rows * columns, from += rows * columns)
        for (int64_t c = 0; c < columns; c++)
            for (int64_t p = 0; p < rows; p++) to[c * rows + p] = from[p * columns + c];
}

ct_status ct_param_download(ct_params *params, const ct_param *param, const ct_tensor *tensor,
                            float *host)
{
    const ct_backend *backend = params->device->backend;
    const size_t bytes = ct_tensor_bytes(tensor);
    if (!param->filter) return backend->download(params->device, host, tensor->data, bytes);

    float *filter;
    CT_TRY(ct_alloc(bytes, 1, "a filter", &filter));
    ct_status status = backend->download(params->device, filter, tensor->data, bytes);
    const int64_t *dim = tensor->dim;
    if (status == CT_OK) transpose(host, filter, dim[0], dim[1] * dim[2], dim[3]);
    free(filter);
    return status;
}

static ct_status upload(ct_params *params, const ct_param *param, const ct_tensor *tensor,
                        const float *host)
{
    const ct_backend *backend = params->device->backend;
    const size_t bytes = ct_tensor_bytes(tensor);
    if (!param->filter) return backend->upload(params->device, tensor->data, host, bytes);

    float *filter;
    CT_TRY(ct_alloc(bytes, 1, "a filter", &filter));
    const int64_t *dim = tensor->dim;
    transpose(filter, host, dim[0], dim[3], dim[1] * dim[2]);
    ct_status status = backend->upload(params->device, tensor->data, filter, bytes);
    free(filter);
    return status;
}

ct_status ct_param_upload(ct_params *params, const ct_param *param, const ct_tensor *tensor,
                          const float *host)
{
    ct_device *device = params->device;
    CT_TRY(upload(params, param, tensor, host));
    const bool renew = tensor->data == param->value.data && param->weight.data != tensor->data;
    if (!renew) return CT_OK;
    return device->backend->cast(device, &(ct_cast_args){.y = param->weight, .x = param->value});
}
