/* The launchers of all device code: one C function an operation of op.h, with op.h's own argument
 * struct, and a few smaller kernels that the library calls in cuda/ are completed with.
 *
 * Conventions
 * - A launcher only launches, on launch->stream: it neither allocates nor waits. It returns the
 *   launch's error, or cudaErrorInvalidValue for a dtype or size that it does not support.
 * - Tensors of activations and weights may be f32, bf16 or f16 (all alike in one call); arithmetic
 * is f32. Data is CT_ALIGNMENT-aligned; widths need not be multiples of the vector width: kernels
 *   move 16 bytes at a time where the shape allows and element by element where not.
 * - Every kernel is deterministic: sums have a fixed order that depends on shapes and on
 *   launch->sm_count alone, and no atomics touch floating-point numbers.
 * - Scratch memory: operations in CTK_WORKSPACE_OPS read launch->workspace, of at least
 *   ctk_<op>_workspace bytes, uninitialised.
 * - Operands of one launch never overlap, except where op.h says "may alias". */
#ifndef CT_KERNELS_KERNELS_H
#define CT_KERNELS_KERNELS_H

#include <cuda_runtime_api.h>

#include "op.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ctk_launch {
    cudaStream_t stream;
    void *workspace;
    int sm_count; /* multiprocessors: how far grid-stride kernels spread */
    bool tf32;    /* products read f32 operands with 10 bits of mantissa */
} ctk_launch;

/* All of op.h but convolutions and linear layers, whose products cuDNN and cuBLASLt compute. */
#define CTK_OPS(X)                                                                                 \
    X(image_normalize_fwd)                                                                         \
    X(batchnorm_fwd)                                                                               \
    X(batchnorm_moments)                                                                           \
    X(batchnorm_merge)                                                                             \
    X(batchnorm_bwd)                                                                               \
    X(batchnorm_bwd_sums)                                                                          \
    X(maxpool_fwd)                                                                                 \
    X(maxpool_bwd)                                                                                 \
    X(avgpool_fwd)                                                                                 \
    X(avgpool_bwd)                                                                                 \
    X(patch_tokens_fwd)                                                                            \
    X(patch_tokens_bwd)                                                                            \
    X(activation_fwd)                                                                              \
    X(activation_bwd)                                                                              \
    X(layernorm_fwd)                                                                               \
    X(layernorm_bwd)                                                                               \
    X(add)                                                                                         \
    X(dropout)                                                                                     \
    X(l2norm_fwd)                                                                                  \
    X(l2norm_bwd)                                                                                  \
    X(embedding_fwd)                                                                               \
    X(embedding_bwd)                                                                               \
    X(attention_fwd)                                                                               \
    X(attention_bwd)                                                                               \
    X(gather_rows_fwd)                                                                             \
    X(gather_rows_bwd)                                                                             \
    X(clip_loss_fwd)                                                                               \
    X(clip_loss_merge)                                                                             \
    X(clip_loss_total)                                                                             \
    X(clip_loss_bwd)                                                                               \
    X(siglip_loss_fwd)                                                                             \
    X(siglip_loss_bwd)                                                                             \
    X(cast)                                                                                        \
    X(grad_norm)                                                                                   \
    X(grad_stats)                                                                                  \
    X(adamw)

#define CTK_DECLARE(name)                                                                          \
    cudaError_t ctk_##name(const ct_##name##_args *args, const ctk_launch *launch);
CTK_OPS(CTK_DECLARE)
#undef CTK_DECLARE

/* Those that need scratch memory. The size may depend on shapes and sm_count only. */
#define CTK_WORKSPACE_OPS(X)                                                                       \
    X(batchnorm_fwd)                                                                               \
    X(batchnorm_moments)                                                                           \
    X(batchnorm_bwd)                                                                               \
    X(batchnorm_bwd_sums)                                                                          \
    X(patch_tokens_bwd)                                                                            \
    X(layernorm_bwd)                                                                               \
    X(embedding_bwd)                                                                               \
    X(attention_bwd)                                                                               \
    X(clip_loss_fwd)                                                                               \
    X(clip_loss_bwd)                                                                               \
    X(siglip_loss_fwd)                                                                             \
    X(siglip_loss_bwd)                                                                             \
    X(grad_norm)                                                                                   \
    X(adamw)

#define CTK_DECLARE_WORKSPACE(name)                                                                \
    size_t ctk_##name##_workspace(const ct_##name##_args *args, int sm_count);
CTK_WORKSPACE_OPS(CTK_DECLARE_WORKSPACE)
#undef CTK_DECLARE_WORKSPACE

/* grad_norm and adamw hand their segments to the kernels by value, as many a launch as a kernel's 4
 * KiB of parameters hold: nothing to upload, and a recorded step keeps its copy. */

/* y (M, N) = act(x + bias): what follows a product whose library has no such epilogue. preact, when
 * present, is x + bias; x may be y or preact. bias (N) f32 optional. */
cudaError_t ctk_bias_activation(const ct_tensor *y, const ct_tensor *preact, const ct_tensor *x,
                                const ct_tensor *bias, ct_activation act, const ctk_launch *launch);

/* moments (2, C) f32 = means and biased variances of `rows` rows, whose sums, and sums of squares,
 * are sums (2, C): what follows a convolution that has formed them. */
cudaError_t ctk_moments_of_sums(const ct_tensor *moments, const float *sums, int64_t rows,
                                const ctk_launch *launch);

/* sum (N) f32 += the sums of x (M, N)'s columns. */
cudaError_t ctk_column_sums(const ct_tensor *sum, const ct_tensor *x, const ctk_launch *launch);
size_t ctk_column_sums_workspace(const ct_tensor *x, int sm_count);

/* sum f32 += x, any shape: a gradient that a library could not accumulate itself. */
cudaError_t ctk_accumulate(const ct_tensor *sum, const ct_tensor *x, const ctk_launch *launch);

/* Around a wait on the stream, all in device memory: *bytes += more, *seconds += what passed since
 * *begin was set. */
cudaError_t ctk_exposed_begin(uint64_t *begin, const ctk_launch *launch);
cudaError_t ctk_exposed_end(const uint64_t *begin, uint64_t *bytes, double *seconds, uint64_t more,
                            const ctk_launch *launch);

#ifdef __cplusplus
}
#endif

#endif
