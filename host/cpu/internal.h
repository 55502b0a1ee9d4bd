/* Shared by the files of the CPU backend: the device, its workspace, and how an operation is
 * written.
 *
 * One function an operation, ct_cpu_<op>(device, args), in the file of its group. Parallel regions
 * take num_threads(cpu->threads) and split work in a way that depends on that number alone, so that
 * sums have a fixed order.
 *
 * Scratch memory: an operation that needs some is listed in CT_CPU_PREPARED_OPS and asks for all of
 * it by one call before anything else:
 *
 *     float *partial;
 *     CT_TRY(ct_cpu_workspace(cpu, bytes, &partial));
 *     if (cpu->preparing) return CT_OK;
 *
 * `prepare` runs the listed operations with `preparing` set, when tensor data may be NULL; so a
 * size is stated in one place only.
 */
#ifndef CT_CPU_INTERNAL_H
#define CT_CPU_INTERNAL_H

#include "op.h"

/* Operations that need workspace, or build something for later calls. */
#define CT_CPU_PREPARED_OPS(X)                                                                     \
    X(conv2d_fwd)                                                                                  \
    X(conv2d_bwd_data)                                                                             \
    X(conv2d_bwd_filter)                                                                           \
    X(batchnorm_fwd)                                                                               \
    X(batchnorm_moments)                                                                           \
    X(batchnorm_bwd)                                                                               \
    X(batchnorm_bwd_sums)                                                                          \
    X(linear_bwd)                                                                                  \
    X(layernorm_bwd)                                                                               \
    X(attention_fwd)                                                                               \
    X(attention_bwd)                                                                               \
    X(clip_loss_fwd)                                                                               \
    X(clip_loss_bwd)                                                                               \
    X(siglip_loss_fwd)                                                                             \
    X(siglip_loss_bwd)                                                                             \
    X(grad_norm)

typedef struct ct_cpu_device {
    ct_device base; /* base.workspace_bytes is the room needed by what was prepared or run so far */
    int threads;
    bool preparing;
    void *workspace; /* workspace_capacity bytes, CT_ALIGNMENT-aligned */
    size_t workspace_capacity;
    struct ct_onednn *onednn; /* the engine and the built convolutions; see onednn.h */
} ct_cpu_device;

static inline ct_cpu_device *ct_cpu(ct_device *device)
{
    return (ct_cpu_device *)device;
}

#define CT_CPU_DECLARE(name)                                                                       \
    ct_status ct_cpu_##name(ct_device *device, const ct_##name##_args *args);
CT_OPS(CT_CPU_DECLARE)
#undef CT_CPU_DECLARE

/* *out (any pointer type) = the device's scratch memory of at least `bytes` bytes, uninitialised,
 * valid until the operation returns. While preparing, the size is noted and *out is NULL. */
CT_NODISCARD ct_status ct_cpu_workspace(ct_cpu_device *cpu, size_t bytes, void *out);

/* `bytes` rounded up to CT_ALIGNMENT, for carving a workspace into pieces. */
static inline size_t ct_cpu_aligned(size_t bytes)
{
    return (bytes + CT_ALIGNMENT - 1) / CT_ALIGNMENT * CT_ALIGNMENT;
}

/* The contiguous share [*begin, *end) of `count` items that worker `index` of `workers` takes. */
static inline void ct_cpu_share(int64_t count, int workers, int index, int64_t *begin, int64_t *end)
{
    *begin = count * index / workers;
    *end = count * (index + 1) / workers;
}

/* Row-major matrix product c = alpha op(a) op(b) + beta c, with op(a) (m, k), op(b) (k, n), c (m,
 * n) and op(x) = x or, when transposed, x^T. lda, ldb, ldc: elements from one stored row to the
 * next. All of the device's threads work on it; call it outside parallel regions. */
typedef struct ct_gemm {
    float *c;
    const float *a, *b;
    int64_t m, n, k, lda, ldb, ldc;
    bool transpose_a, transpose_b;
    float alpha, beta;
} ct_gemm;
CT_NODISCARD ct_status ct_cpu_gemm(ct_cpu_device *cpu, const ct_gemm *gemm);

/* sum[j] += the sum over i of x[i][j], for x (rows, cols). scratch: ct_cpu_column_sums_bytes. */
size_t ct_cpu_column_sums_bytes(const ct_cpu_device *cpu, int64_t cols);
void ct_cpu_column_sums(const ct_cpu_device *cpu, float *sum, const float *x, int64_t rows,
                        int64_t cols, void *scratch);

#endif
