/* Conversion between f32, bf16 and f16. This backend computes in f32 and so has no use for the
 * other two itself; it converts them for tools and as the tests' second opinion on a GPU. */
#include "base/half.h"
#include "cpu/internal.h"

static float read_as_f32(const ct_tensor *x, int64_t i)
{
    switch (x->dtype) {
    case CT_BF16:
        return ct_bf16_to_f32(((const uint16_t *)x->data)[i]);
    case CT_F16:
        return ct_f16_to_f32(((const uint16_t *)x->data)[i]);
    default:
        return ct_f32(x)[i];
    }
}

static void write_from_f32(const ct_tensor *y, int64_t i, float value)
{
    switch (y->dtype) {
    case CT_BF16:
        ((uint16_t *)y->data)[i] = ct_bf16_from_f32(value);
        break;
    case CT_F16:
        ((uint16_t *)y->data)[i] = ct_f16_from_f32(value);
        break;
    default:
        ct_f32(y)[i] = value;
    }
}

static bool is_float(ct_dtype dtype)
{
    return dtype == CT_F32 || dtype == CT_BF16 || dtype == CT_F16;
}

ct_status ct_cpu_cast(ct_device *device, const ct_cast_args *args)
{
    const ct_tensor *x = &args->x, *y = &args->y;
    const int64_t count = ct_tensor_count(y);
    const int threads = ct_cpu(device)->threads;
    if (!is_float(x->dtype) || !is_float(y->dtype))
        return ct_fail(CT_ERR_UNSUPPORTED, "cast: from %s to %s", ct_dtype_name(x->dtype),
                       ct_dtype_name(y->dtype));
    if (args->stochastic) {
        if (x->dtype != CT_F32 || y->dtype != CT_BF16)
            return ct_fail(CT_ERR_UNSUPPORTED, "cast: stochastic rounding from %s to %s",
                           ct_dtype_name(x->dtype), ct_dtype_name(y->dtype));
        const ct_rng_key key = ct_rng_at_step(args->key, ct_i32(&args->step)[0]);
#pragma omp parallel for schedule(static) num_threads(threads)
        for (int64_t i = 0; i < count; i++)
            ((uint16_t *)y->data)[i] =
                ct_bf16_stochastic(ct_f32(x)[i], ct_rng_u32(key, (uint64_t)i));
        return CT_OK;
    }
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < count; i++) write_from_f32(y, i, read_as_f32(x, i));
    return CT_OK;
}
