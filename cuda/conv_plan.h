/* Which cuDNN plan computes a convolution: the problem, its operation graph, the engines that
 * op.h's arithmetic allows, and the plans to choose among. */
#ifndef CT_CUDA_CONV_PLAN_H
#define CT_CUDA_CONV_PLAN_H

#include "cuda/cudnn_graph.h"
#include "tensor.h"

typedef enum ct_cuda_conv_direction {
    CT_CUDA_CONV_FWD,       /* y  = x * w, and with `sums` sums over y's pixels */
    CT_CUDA_CONV_BWD_DATA,  /* dx = dy * w transposed; with `adds`: dx += */
    CT_CUDA_CONV_BWD_FILTER /* dw = x * dy; with `adds`: dw += */
} ct_cuda_conv_direction;

/* Only int64_t members, so that two problems are equal when their bytes are. */
typedef struct ct_cuda_conv_problem {
    int64_t direction;   /* ct_cuda_conv_direction */
    int64_t dtype;       /* ct_dtype of x, w and y alike; dw has it too */
    int64_t n, h, w, ci; /* x (n, h, w, ci) */
    int64_t ho, wo, co;  /* y (n, ho, wo, co) */
    int64_t kh, kw;      /* w (co, kh, kw, ci) */
    int64_t stride_h, stride_w;
    int64_t pad;           /* on all four sides */
    int64_t tf32;          /* f32 operands may be rounded to 10 bits of mantissa */
    int64_t deterministic; /* the same bits every time */
    int64_t adds;          /* gradients: to what is there */
    int64_t sums;          /* FWD: sums over y's pixels, and of their squares, in the same kernel */
} ct_cuda_conv_problem;

/* The problem of these tensors; tf32, deterministic, adds and sums are the caller's to set.
 *
 * Patches that stand side by side (kw = stride_w, no padding, as a vision transformer's) are one
 * pixel each of kw ci channels in the very same memory, so kw becomes 1 and the 3 channels of a
 * photo 48 or so: cuDNN's tensor-core kernels, which want channels in eights, then need no padded
 * copy. */
ct_cuda_conv_problem ct_cuda_conv_problem_of(ct_cuda_conv_direction direction, const ct_tensor *x,
                                             const ct_tensor *w, const ct_tensor *y, int stride,
                                             int pad);

/* "conv2d_fwd bf16 x 256x56x56x64 w 64x3x3x64 y 256x56x56x64 stride 1x1 pad 1", always at most
 * CT_CUDA_CONV_TEXT - 1 characters: for messages, and the plan cache's key. */
#define CT_CUDA_CONV_TEXT 224
void ct_cuda_conv_describe(const ct_cuda_conv_problem *problem, char text[CT_CUDA_CONV_TEXT]);

/* "conv2d_fwd", ... */
const char *ct_cuda_conv_operation(const ct_cuda_conv_problem *problem);

/* A plan's scratch memory should stay below this: 256 MiB, or twice the largest operand. The second
 * leaves room for the copy of a photo padded to 8 channels that tensor-core kernels want. */
size_t ct_cuda_conv_workspace_limit(const ct_cuda_conv_problem *problem);

typedef struct ct_cuda_conv_plan {
    ct_cudnn_owner owner;
    cudnnBackendDescriptor_t plan;
    size_t workspace_bytes;
    ct_cudnn_engine engine;
} ct_cuda_conv_plan;

void ct_cuda_conv_plan_release(ct_cuda_conv_plan *plan);

/* plans[0 .. *count), 1 <= *count <= capacity: the heuristic's best first, among those whose
 * arithmetic is allowed and whose workspace is within the limit; when none is within, the one that
 * needs least. CT_ERR_UNSUPPORTED when cuDNN has none at all. */
CT_NODISCARD ct_status ct_cuda_conv_plans(const ct_cudnn_target *target,
                                          const ct_cuda_conv_problem *problem,
                                          ct_cuda_conv_plan *plans, int capacity, int *count);

/* The plan of one engine and its knobs, from a file; plan->plan is NULL when the problem has no
 * such plan, or its arithmetic is not allowed. */
CT_NODISCARD ct_status ct_cuda_conv_plan_of(const ct_cudnn_target *target,
                                            const ct_cuda_conv_problem *problem,
                                            const ct_cudnn_engine *engine, ct_cuda_conv_plan *plan);

/* What a plan works on, as in ct_cuda_conv_problem; the direction says which of x, w, y is written.
 */
typedef struct ct_cuda_conv_memory {
    void *x, *w, *y;
    float *sums; /* (2, co): of y and of its squares; NULL exactly when the problem asks for none */
    void *workspace;
} ct_cuda_conv_memory;

/* Queues it. */
CT_NODISCARD ct_status ct_cuda_conv_plan_run(const ct_cudnn_target *target,
                                             const ct_cuda_conv_plan *plan,
                                             const ct_cuda_conv_problem *problem,
                                             const ct_cuda_conv_memory *memory);

#endif
