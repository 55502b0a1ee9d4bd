#include "model/moments.h"

ct_status ct_moments_gather(const ct_params *params, ct_device *device, int which)
{
    const ct_shards *shards = ct_params_shards(params);
    const ct_tensor grads = ct_params_grads(params), moments = ct_params_moments(params, which);
    for (int64_t b = 0; b < ct_shards_buckets(shards); b++) {
        const ct_range all = ct_shards_bucket(shards, b), own = ct_shards_own(shards, b);
        const ct_tensor to = ct_tensor_rows(&grads, all.begin, ct_range_count(all));
        const ct_tensor from =
            ct_tensor_rows(&moments, ct_shards_own_begin(shards, b), ct_range_count(own));
        CT_TRY(ct_comm_all_gather(device->comm, &to, &from));
    }
    return CT_OK;
}

ct_status ct_moments_take(const ct_params *params, ct_device *device, int which)
{
    const ct_shards *shards = ct_params_shards(params);
    const ct_tensor grads = ct_params_grads(params), moments = ct_params_moments(params, which);
    for (int64_t b = 0; b < ct_shards_buckets(shards); b++) {
        const ct_range own = ct_shards_own(shards, b);
        const int64_t count = ct_range_count(own), begin = ct_shards_own_begin(shards, b);
        CT_TRY(device->backend->cast(
            device, &(ct_cast_args){.y = ct_tensor_rows(&moments, begin, count),
                                    .x = ct_tensor_rows(&grads, own.begin, count)}));
    }
    return CT_OK;
}
