#include "cpu/activation.h"

#include <string.h>

#include "cpu/internal.h"

/* Elements that a worker takes at a time. */
#define RUN 4096

void ct_cpu_activate(float *y, const float *x, int64_t count, ct_activation act)
{
    switch (act) {
    case CT_ACT_NONE:
        if (y != x) memcpy(y, x, (size_t)count * sizeof *y);
        break;
    case CT_ACT_RELU:
#pragma omp simd
        for (int64_t i = 0; i < count; i++) y[i] = ct_relu(x[i]);
        break;
    case CT_ACT_GELU:
#pragma omp simd
        for (int64_t i = 0; i < count; i++) y[i] = ct_gelu(x[i]);
        break;
    case CT_ACT_GELU_TANH:
#pragma omp simd
        for (int64_t i = 0; i < count; i++) y[i] = ct_gelu_tanh(x[i]);
        break;
    case CT_ACT_QUICK_GELU:
#pragma omp simd
        for (int64_t i = 0; i < count; i++) y[i] = ct_quick_gelu(x[i]);
        break;
    }
}

void ct_cpu_activate_backward(float *dx, const float *dy, const float *x, int64_t count,
                              ct_activation act)
{
    switch (act) {
    case CT_ACT_NONE:
        if (dx != dy) memcpy(dx, dy, (size_t)count * sizeof *dx);
        break;
    case CT_ACT_RELU:
#pragma omp simd
        for (int64_t i = 0; i < count; i++) dx[i] = x[i] > 0.0f ? dy[i] : 0.0f;
        break;
    case CT_ACT_GELU:
#pragma omp simd
        for (int64_t i = 0; i < count; i++) dx[i] = dy[i] * ct_gelu_derivative(x[i]);
        break;
    case CT_ACT_GELU_TANH:
#pragma omp simd
        for (int64_t i = 0; i < count; i++) dx[i] = dy[i] * ct_gelu_tanh_derivative(x[i]);
        break;
    case CT_ACT_QUICK_GELU:
#pragma omp simd
        for (int64_t i = 0; i < count; i++) dx[i] = dy[i] * ct_quick_gelu_derivative(x[i]);
        break;
    }
}

static int64_t run_length(int64_t count, int64_t begin)
{
    return count - begin < RUN ? count - begin : RUN;
}

ct_status ct_cpu_activation_fwd(ct_device *device, const ct_activation_fwd_args *args)
{
    const int64_t count = ct_tensor_count(&args->x);
    float *y = ct_f32(&args->y);
    const float *x = ct_f32(&args->x);
#pragma omp parallel for schedule(static) num_threads(ct_cpu(device)->threads)
    for (int64_t i = 0; i < count; i += RUN)
        ct_cpu_activate(y + i, x + i, run_length(count, i), args->act);
    return CT_OK;
}

ct_status ct_cpu_activation_bwd(ct_device *device, const ct_activation_bwd_args *args)
{
    const int64_t count = ct_tensor_count(&args->x);
    float *dx = ct_f32(&args->dx);
    const float *dy = ct_f32(&args->dy), *x = ct_f32(&args->x);
#pragma omp parallel for schedule(static) num_threads(ct_cpu(device)->threads)
    for (int64_t i = 0; i < count; i += RUN)
        ct_cpu_activate_backward(dx + i, dy + i, x + i, run_length(count, i), args->act);
    return CT_OK;
}
