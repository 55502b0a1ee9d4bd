#include "model/reducer.h"

#include <stdlib.h>

struct ct_reducer {
    const ct_params *params;
    ct_device *device;
    ct_shards shards;
    ct_tensor grads;   /* (count) f32 */
    ct_tensor rounded; /* (count) bf16, absent in f32 */
    bool own_parts;    /* a rank needs the sum of its own parts only */
    int *whole;        /* (buckets) parameters with a gradient in the bucket */
    int *missing;      /* (buckets) of them not complete yet */
};

/* Numbers of the flat block that the parameter's gradient takes. */
static ct_range gradient_range(const ct_reducer *reducer, const ct_param *param)
{
    const int64_t begin = (const float *)param->grad.data - ct_f32(&reducer->grads);
    return (ct_range){begin, begin + ct_tensor_count(&param->grad)};
}

static ct_range buckets_of(const ct_reducer *reducer, const ct_param *param)
{
    const ct_range numbers = gradient_range(reducer, param);
    return (ct_range){numbers.begin / reducer->shards.bucket,
                      (numbers.end - 1) / reducer->shards.bucket + 1};
}

static ct_status prepare(ct_reducer *reducer, const ct_config *config)
{
    const ct_params *params = reducer->params;
    const size_t buckets = (size_t)ct_shards_buckets(&reducer->shards);
    CT_TRY(ct_alloc(buckets, sizeof(int), "gradient buckets", &reducer->whole));
    CT_TRY(ct_alloc(buckets, sizeof(int), "gradient buckets", &reducer->missing));
    for (int i = 0; i < ct_params_count(params); i++) {
        const ct_param *param = ct_params_at(params, i);
        if (param->buffer) continue;
        const ct_range in = buckets_of(reducer, param);
        for (int64_t b = in.begin; b < in.end; b++) reducer->whole[b]++;
    }
    if (config->distributed.reduce == CT_REDUCE_F32) return CT_OK;
    ct_device *device = reducer->device;
    ct_tensor *rounded = &reducer->rounded;
    *rounded = ct_tensor1(NULL, CT_BF16, reducer->shards.count);
    return device->backend->alloc(device, ct_tensor_bytes(rounded), "rounded gradients",
                                  &rounded->data);
}

ct_status ct_reducer_create(const ct_config *config, const ct_params *params, ct_device *device,
                            ct_reducer **out)
{
    ct_reducer *reducer;
    CT_TRY(ct_alloc(1, sizeof *reducer, "gradient buckets", &reducer));
    reducer->params = params;
    reducer->device = device;
    reducer->shards = *ct_params_shards(params);
    reducer->grads = ct_params_grads(params);
    reducer->own_parts = ct_params_own_moments(params);
    const ct_status status = prepare(reducer, config);
    if (status != CT_OK) {
        ct_reducer_destroy(reducer);
        return status;
    }
    *out = reducer;
    return CT_OK;
}

void ct_reducer_destroy(ct_reducer *reducer)
{
    if (!reducer) return;
    reducer->device->backend->free(reducer->device, reducer->rounded.data);
    free(reducer->whole);
    free(reducer->missing);
    free(reducer);
}

void ct_reducer_begin(ct_reducer *reducer)
{
    for (int64_t b = 0; b < ct_shards_buckets(&reducer->shards); b++)
        reducer->missing[b] = reducer->whole[b];
}

static ct_tensor part_of(const ct_tensor *numbers, ct_range range)
{
    return ct_tensor_rows(numbers, range.begin, ct_range_count(range));
}

static ct_status cast(const ct_exec *exec, const ct_tensor *to, const ct_tensor *from,
                      ct_range range)
{
    return ct_op_cast(exec, &(ct_cast_args){.y = part_of(to, range), .x = part_of(from, range)});
}

static ct_status start_bucket(const ct_reducer *reducer, const ct_exec *exec, int64_t bucket)
{
    const ct_range range = ct_shards_bucket(&reducer->shards, bucket);
    const bool rounds = ct_tensor_present(&reducer->rounded);
    if (rounds) CT_TRY(cast(exec, &reducer->rounded, &reducer->grads, range));
    if (exec->planning) return CT_OK;
    const ct_tensor *numbers = rounds ? &reducer->rounded : &reducer->grads;
    const ct_tensor all = part_of(numbers, range);
    if (!reducer->own_parts) return ct_comm_all_reduce_start(exec->device->comm, &all);
    const ct_tensor own = part_of(numbers, ct_shards_own(&reducer->shards, bucket));
    return ct_comm_reduce_scatter_start(exec->device->comm, &own, &all);
}

static ct_status complete(ct_reducer *reducer, const ct_exec *exec, const ct_param *param)
{
    const ct_range in = buckets_of(reducer, param);
    for (int64_t b = in.begin; b < in.end; b++)
        if (--reducer->missing[b] == 0) CT_TRY(start_bucket(reducer, exec, b));
    return CT_OK;
}

ct_status ct_gradients_done(const ct_exec *exec, const ct_param *first, const ct_param *last)
{
    ct_reducer *reducer = exec->reducer;
    if (!reducer) return CT_OK;
    for (int i = first->index; i <= last->index; i++) {
        const ct_param *param = ct_params_at(reducer->params, i);
        if (!param->buffer) CT_TRY(complete(reducer, exec, param));
    }
    return CT_OK;
}

ct_status ct_reducer_finish(ct_reducer *reducer, const ct_exec *exec)
{
    const ct_shards *shards = &reducer->shards;
    for (int64_t b = 0; b < ct_shards_buckets(shards); b++)
        if (reducer->missing[b] != 0)
            return ct_fail(CT_ERR_INTERNAL, "%d gradients of bucket %lld were never complete",
                           reducer->missing[b], (long long)b);
    if (!exec->planning) CT_TRY(ct_comm_finish(exec->device->comm));
    if (!ct_tensor_present(&reducer->rounded)) return CT_OK;
    if (!reducer->own_parts)
        return cast(exec, &reducer->grads, &reducer->rounded, (ct_range){0, shards->count});
    for (int64_t b = 0; b < ct_shards_buckets(shards); b++)
        CT_TRY(cast(exec, &reducer->grads, &reducer->rounded, ct_shards_own(shards, b)));
    return CT_OK;
}
