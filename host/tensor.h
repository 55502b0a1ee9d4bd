/* A tensor is a view: contiguous, row-major (last dimension fastest), owned by some arena. Images
 * are NHWC. A tensor of rank 0 is absent (an optional argument left out); `data` is NULL while
 * memory is only being planned, so never use it to tell whether a tensor is there. */
#ifndef CT_TENSOR_H
#define CT_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum ct_dtype { CT_F32, CT_BF16, CT_F16, CT_I32, CT_U8 } ct_dtype;

#define CT_MAX_RANK 4

typedef struct ct_tensor {
    void *data;
    int64_t dim[CT_MAX_RANK]; /* dim[rank..] are 1 */
    int32_t rank;             /* 0: absent */
    ct_dtype dtype;
} ct_tensor;

static inline size_t ct_dtype_bytes(ct_dtype dtype)
{
    return dtype == CT_U8 ? 1 : dtype == CT_BF16 || dtype == CT_F16 ? 2 : 4;
}

static inline const char *ct_dtype_name(ct_dtype dtype)
{
    static const char *const names[] = {"f32", "bf16", "f16", "i32", "u8"};
    return names[dtype];
}

static inline bool ct_tensor_present(const ct_tensor *t)
{
    return t->rank != 0;
}

/* Number of elements; 0 when absent. */
static inline int64_t ct_tensor_count(const ct_tensor *t)
{
    return t->rank ? t->dim[0] * t->dim[1] * t->dim[2] * t->dim[3] : 0;
}

static inline size_t ct_tensor_bytes(const ct_tensor *t)
{
    return (size_t)ct_tensor_count(t) * ct_dtype_bytes(t->dtype);
}

/* Views of given shape. The shape must cover what `data` points to. */
static inline ct_tensor ct_tensor4(void *data, ct_dtype dtype, int64_t d0, int64_t d1, int64_t d2,
                                   int64_t d3)
{
    return (ct_tensor){data, {d0, d1, d2, d3}, 4, dtype};
}
static inline ct_tensor ct_tensor3(void *data, ct_dtype dtype, int64_t d0, int64_t d1, int64_t d2)
{
    return (ct_tensor){data, {d0, d1, d2, 1}, 3, dtype};
}
static inline ct_tensor ct_tensor2(void *data, ct_dtype dtype, int64_t d0, int64_t d1)
{
    return (ct_tensor){data, {d0, d1, 1, 1}, 2, dtype};
}
static inline ct_tensor ct_tensor1(void *data, ct_dtype dtype, int64_t d0)
{
    return (ct_tensor){data, {d0, 1, 1, 1}, 1, dtype};
}

/* Rows [first, first + count) of the first dimension. */
static inline ct_tensor ct_tensor_rows(const ct_tensor *t, int64_t first, int64_t count)
{
    const int64_t row = t->dim[1] * t->dim[2] * t->dim[3];
    ct_tensor view = *t;
    view.dim[0] = count;
    if (view.data)
        view.data = (uint8_t *)view.data + (size_t)(first * row) * ct_dtype_bytes(t->dtype);
    return view;
}

static inline float *ct_f32(const ct_tensor *t)
{
    return (float *)t->data;
}
static inline int32_t *ct_i32(const ct_tensor *t)
{
    return (int32_t *)t->data;
}
static inline uint8_t *ct_u8(const ct_tensor *t)
{
    return (uint8_t *)t->data;
}

#endif
