/* The operations a training step is made of, and the table of functions a backend fills in.
 *
 * Model code is written once against this header; `cpu/` and `cuda/` implement it. One entry and
 * one plain argument struct per operation and direction.
 *
 * Conventions
 * - Outputs come first in each struct, then inputs, then what forward saved for backward, then
 *   scalars. The comment behind a tensor gives its shape; T is the number of packed tokens, N the
 *   batch, D a width. "optional" tensors may be absent (rank 0).
 * - Activation tensors, and the weights that products, convolutions and embeddings read (w, word,
 *   position, type), have the device's compute dtype: f32 on the CPU; f32, bf16 or f16 on a GPU.
 * - All other real numbers are f32: biases, gamma and beta, gradients of parameters, statistics
 *   (mean, rstd, lse, ...), losses, optimiser state. ids are i32. Sums are f32 in every dtype.
 * - Parameter gradients accumulate (+=), activation gradients overwrite (=) unless `accumulate` is
 *   set: then they are added to what the tensor holds, before they are rounded.
 * - An output may be the very same tensor as an input only where it says "may alias".
 * - Operations never allocate. A backend that needs scratch memory learns of it from `prepare`.
 * - Calls on one device are ordered like calls on one CUDA stream; only upload, download and
 *   synchronize make the host wait.
 * - What changes from step to step (the step's number, the schedule) reaches operations in device
 *   memory, never as a scalar, so that a recorded step can be replayed.
 */
#ifndef CT_OP_H
#define CT_OP_H

#include "base/memory.h"
#include "base/rng.h"
#include "base/status.h"
#include "comm.h"
#include "tensor.h"

typedef struct ct_device ct_device;

typedef enum ct_activation {
    CT_ACT_NONE,
    CT_ACT_RELU,
    CT_ACT_GELU,      /* x/2 (1 + erf(x/sqrt 2)), Hendrycks & Gimpel 2016, as torch.nn.GELU() */
    CT_ACT_GELU_TANH, /* its tanh approximation, as torch.nn.GELU("tanh") and cuBLASLt's epilogue */
    CT_ACT_QUICK_GELU /* x sigmoid(1.702 x), as OpenAI's CLIP */
} ct_activation;

/* Photos that occur more than once in a batch: what the other captions of a photo are to it. */
typedef enum ct_same_image {
    CT_SAME_IMAGE_MASK,    /* neither positive nor negative: left out of the denominators */
    CT_SAME_IMAGE_SHARE,   /* positives too: the target is shared equally among them */
    CT_SAME_IMAGE_NEGATIVE /* negatives, as in OpenAI's CLIP */
} ct_same_image;

/* ---- images ------------------------------------------------------------------------------- */

/* y = (x/255 - mean[c]) / std[c] */
typedef struct ct_image_normalize_fwd_args {
    ct_tensor y; /* (N, H, W, 3) */
    ct_tensor x; /* (N, H, W, 3) u8 */
    float mean[3], std[3];
} ct_image_normalize_fwd_args;

/* 2-D cross-correlation (torch.nn.Conv2d), symmetric zero padding, no dilation, no groups. */
typedef struct ct_conv2d_fwd_args {
    ct_tensor y;       /* (N, Ho, Wo, Co), Ho = (H + 2 pad - KH)/stride + 1; with a bias it may have
                          been rounded before that was added too */
    ct_tensor moments; /* (2, Co) f32 optional, not with a bias: batchnorm_moments of y; may be of y
                          before it was rounded, and of sums of squares, whose digits cancel when a
                          mean is many deviations from 0 */
    ct_tensor x;       /* (N, H, W, Ci) */
    ct_tensor w;       /* (Co, KH, KW, Ci) */
    ct_tensor bias;    /* (Co) optional */
    int stride, pad;
} ct_conv2d_fwd_args;

typedef struct ct_conv2d_bwd_data_args {
    ct_tensor dx; /* (N, H, W, Ci) = or += */
    ct_tensor dy; /* (N, Ho, Wo, Co) */
    ct_tensor w;  /* (Co, KH, KW, Ci) */
    int stride, pad;
    bool accumulate;
} ct_conv2d_bwd_data_args;

typedef struct ct_conv2d_bwd_filter_args {
    ct_tensor dw;    /* (Co, KH, KW, Ci) +=; what is added may have been rounded to x's dtype */
    ct_tensor dbias; /* (Co) += optional */
    ct_tensor dy;    /* (N, Ho, Wo, Co) */
    ct_tensor x;     /* (N, H, W, Ci) */
    int stride, pad;
} ct_conv2d_bwd_filter_args;

/* Whose mean and variance batch normalisation takes. */
typedef enum ct_batchnorm_statistics {
    CT_BATCHNORM_RUNNING, /* evaluation: the running ones; mean and rstd may be absent */
    CT_BATCHNORM_BATCH,   /* training: x's, written to mean and rstd; the running ones move */
    CT_BATCHNORM_GIVEN    /* training over several ranks: mean and rstd are inputs, as
                             batchnorm_merge left them; the running ones may be absent */
} ct_batchnorm_statistics;

/* Batch normalisation over N, H, W (Ioffe & Szegedy 2015; torch.nn.BatchNorm2d), then an optional
 * residual added, then an optional ReLU, in one operation:
 *   y = relu(gamma (x - mean) rstd + beta + residual), rstd = 1/sqrt(variance + eps)
 * The batch's variance is the biased one; running = (1 - momentum) running + momentum batch, with
 * the unbiased variance.
 *
 * Over the batch of several ranks (torch.nn.SyncBatchNorm), each with equally many rows N H W:
 *   moments (of conv2d_fwd, or batchnorm_moments), all-gather of moments, batchnorm_merge,
 *   batchnorm_fwd with GIVEN; batchnorm_bwd_sums, all-reduce of sums, batchnorm_bwd with sums. */
typedef struct ct_batchnorm_fwd_args {
    ct_tensor y;            /* (N, H, W, C) */
    ct_tensor mean;         /* (C) saved; read with GIVEN */
    ct_tensor rstd;         /* (C) saved; read with GIVEN */
    ct_tensor running_mean; /* (C) read with RUNNING, updated with BATCH */
    ct_tensor running_var;  /* (C) same */
    ct_tensor x;            /* (N, H, W, C) */
    ct_tensor residual;     /* (N, H, W, C) optional */
    ct_tensor gamma, beta;  /* (C) */
    float eps, momentum;
    ct_batchnorm_statistics statistics;
    bool relu;
} ct_batchnorm_fwd_args;

/* Mean and biased variance of own rows. */
typedef struct ct_batchnorm_moments_args {
    ct_tensor moments; /* (2, C) f32: means, variances */
    ct_tensor x;       /* (N, H, W, C) */
} ct_batchnorm_moments_args;

/* The statistics of the rows of R ranks, equally many each, from the ranks' moments (Chan, Golub &
 * LeVeque, The American Statistician 37, 1983): differences of means only, nothing cancels.
 *   mean = avg_r mean_r; variance = avg_r variance_r + avg_r (mean_r - mean)^2
 * Every rank gets the same bits. Running statistics move as batchnorm_fwd's do. */
typedef struct ct_batchnorm_merge_args {
    ct_tensor mean, rstd;                /* (C) */
    ct_tensor running_mean, running_var; /* (C) updated */
    ct_tensor moments;                   /* (R, 2, C) */
    int64_t count;                       /* rows of all ranks */
    float eps, momentum;
} ct_batchnorm_merge_args;

/* Backward of the training forms. With g = dy masked by y > 0 when relu, xhat = (x - mean) rstd:
 *   dresidual = g; dx = gamma rstd (g - mean(g) - xhat mean(g xhat)); dgamma, dbeta as in
 *   batchnorm_bwd_sums
 * Without sums, means are over own rows; with them they are sums/count, and dgamma and dbeta, which
 * batchnorm_bwd_sums has added to, may be absent. */
typedef struct ct_batchnorm_bwd_args {
    ct_tensor dx;            /* (N, H, W, C) =, may alias dy */
    ct_tensor dresidual;     /* (N, H, W, C) = optional, may alias dy (then dx must not) */
    ct_tensor dgamma, dbeta; /* (C) +=, untouched with sums */
    ct_tensor dy;            /* (N, H, W, C) */
    ct_tensor x;             /* (N, H, W, C) */
    ct_tensor y;             /* (N, H, W, C) forward's output; only read when relu */
    ct_tensor gamma;         /* (C) */
    ct_tensor mean, rstd;    /* (C) */
    ct_tensor sums;          /* (2, C) f32 optional: batchnorm_bwd_sums's, added over all ranks */
    int64_t count;           /* rows of all ranks; only read with sums */
    bool relu;
} ct_batchnorm_bwd_args;

/* The sums over own rows: sums[0] = sum(g), sums[1] = sum(g xhat), which are also what own rows add
 * to dbeta and dgamma. */
typedef struct ct_batchnorm_bwd_sums_args {
    ct_tensor sums;          /* (2, C) f32 = */
    ct_tensor dgamma, dbeta; /* (C) += */
    ct_tensor dy;            /* (N, H, W, C) */
    ct_tensor x;             /* (N, H, W, C) */
    ct_tensor y;             /* (N, H, W, C) only read when relu */
    ct_tensor mean, rstd;    /* (C) */
    bool relu;
} ct_batchnorm_bwd_sums_args;

/* Max pooling over square windows, padding never wins; a tie goes to the first in row-major
 * order, as in PyTorch. */
typedef struct ct_maxpool_fwd_args {
    ct_tensor y;     /* (N, Ho, Wo, C) */
    ct_tensor index; /* (N, Ho, Wo, C) u8 saved: winner's row-major place in its window */
    ct_tensor x;     /* (N, H, W, C) */
    int window, stride, pad;
} ct_maxpool_fwd_args;

typedef struct ct_maxpool_bwd_args {
    ct_tensor dx;    /* (N, H, W, C) = */
    ct_tensor dy;    /* (N, Ho, Wo, C) */
    ct_tensor index; /* (N, Ho, Wo, C) u8 */
    int window, stride, pad;
} ct_maxpool_bwd_args;

/* Mean over all positions. */
typedef struct ct_avgpool_fwd_args {
    ct_tensor y; /* (N, C) */
    ct_tensor x; /* (N, H, W, C) */
} ct_avgpool_fwd_args;

typedef struct ct_avgpool_bwd_args {
    ct_tensor dx; /* (N, H, W, C) = */
    ct_tensor dy; /* (N, C) */
} ct_avgpool_bwd_args;

/* The token sequences of a Vision Transformer (Dosovitskiy et al. 2021): the class token, then the
 * patches in row-major order, each with its position's embedding added. */
typedef struct ct_patch_tokens_fwd_args {
    ct_tensor y;           /* (N, 1 + P, D), P = Hp Wp */
    ct_tensor patches;     /* (N, Hp, Wp, D) */
    ct_tensor class_token; /* (D) */
    ct_tensor position;    /* (1 + P, D) */
} ct_patch_tokens_fwd_args;

typedef struct ct_patch_tokens_bwd_args {
    ct_tensor dpatches;     /* (N, Hp, Wp, D) = */
    ct_tensor dclass_token; /* (D) += */
    ct_tensor dposition;    /* (1 + P, D) += */
    ct_tensor dy;           /* (N, 1 + P, D) */
} ct_patch_tokens_bwd_args;

/* ---- rows --------------------------------------------------------------------------------- */

/* y = act(x w^T + bias), torch.nn.Linear. */
typedef struct ct_linear_fwd_args {
    ct_tensor y;      /* (M, N) */
    ct_tensor preact; /* (M, N) saved: x w^T + bias; present exactly when act is not NONE and
                         backward will follow */
    ct_tensor x;      /* (M, K) */
    ct_tensor w;      /* (N, K) */
    ct_tensor bias;   /* (N) optional */
    ct_activation act;
} ct_linear_fwd_args;

/* Of a layer without an activation of its own; one before it, x = act(preact), is undone in the
 * same pass: dx = act'(preact) (dy w) is then the gradient of preact, not of x. */
typedef struct ct_linear_bwd_args {
    ct_tensor dx; /* (M, K) = or += optional; may have been rounded before act' was applied too */
    ct_tensor dw; /* (N, K) += */
    ct_tensor dbias;  /* (N) += optional */
    ct_tensor dy;     /* (M, N) */
    ct_tensor x;      /* (M, K) */
    ct_tensor w;      /* (N, K) */
    ct_tensor preact; /* (M, K), only with an activation: what its linear_fwd saved */
    ct_activation act;
    bool accumulate; /* not with an activation */
} ct_linear_bwd_args;

/* y = act(x), and dx = dy act'(x). */
typedef struct ct_activation_fwd_args {
    ct_tensor y; /* any shape, may alias x */
    ct_tensor x; /* same */
    ct_activation act;
} ct_activation_fwd_args;

typedef struct ct_activation_bwd_args {
    ct_tensor dx; /* any shape =, may alias dy */
    ct_tensor dy; /* same */
    ct_tensor x;  /* same */
    ct_activation act;
} ct_activation_bwd_args;

/* Layer normalisation of each row (Ba, Kiros, Hinton 2016), after an optional residual is added:
 * sum = x + residual; y = gamma (sum - mean) rstd + beta. Biased variance. */
typedef struct ct_layernorm_fwd_args {
    ct_tensor y;           /* (T, D) */
    ct_tensor sum;         /* (T, D) present exactly when residual is; saved; may alias either */
    ct_tensor mean, rstd;  /* (T) saved */
    ct_tensor x;           /* (T, D) */
    ct_tensor residual;    /* (T, D) optional */
    ct_tensor gamma, beta; /* (D) */
    float eps;
} ct_layernorm_fwd_args;

/* dx is the gradient of x and of residual alike; dskip, when present, is added to it (the other
 * path of a pre-norm block). */
typedef struct ct_layernorm_bwd_args {
    ct_tensor dx;            /* (T, D) =, may alias dy or dskip */
    ct_tensor dgamma, dbeta; /* (D) += */
    ct_tensor dy;            /* (T, D) */
    ct_tensor dskip;         /* (T, D) optional */
    ct_tensor x;             /* (T, D) what was normalised: forward's sum, or its x */
    ct_tensor gamma;         /* (D) */
    ct_tensor mean, rstd;    /* (T) */
} ct_layernorm_bwd_args;

/* y = a + b. */
typedef struct ct_add_args {
    ct_tensor y;    /* any shape, may alias a or b */
    ct_tensor a, b; /* same */
} ct_add_args;

/* Inverted dropout: keep with probability 1 - p and scale by 1/(1 - p). Element i is kept when
 * ct_rng_uniform(ct_rng_at_step(key, step[0]), i) >= p; backward is the same operation on dy. */
typedef struct ct_dropout_args {
    ct_tensor y;    /* any shape, may alias x */
    ct_tensor x;    /* same */
    ct_tensor step; /* (1) i32 */
    ct_rng_key key; /* made with a = 0 */
    float p;        /* 0 <= p < 1 */
} ct_dropout_args;

/* y[i] = x / max(|x|, eps), rows (torch.nn.functional.normalize). */
typedef struct ct_l2norm_fwd_args {
    ct_tensor y;        /* (N, D) */
    ct_tensor inv_norm; /* (N) saved: 1/max(|x|, eps) */
    ct_tensor x;        /* (N, D) */
    float eps;
} ct_l2norm_fwd_args;

typedef struct ct_l2norm_bwd_args {
    ct_tensor dx;       /* (N, D) =, may alias dy */
    ct_tensor dy;       /* (N, D) */
    ct_tensor y;        /* (N, D) */
    ct_tensor inv_norm; /* (N) */
} ct_l2norm_bwd_args;

/* ---- packed token sequences --------------------------------------------------------------- */

/* y[t] = word[ids[t]] + position[positions[t]] (+ type[0]): BERT's embeddings before LayerNorm. */
typedef struct ct_embedding_fwd_args {
    ct_tensor y;         /* (T, D) */
    ct_tensor ids;       /* (T) i32 in [0, V) */
    ct_tensor positions; /* (T) i32 in [0, P) */
    ct_tensor word;      /* (V, D) */
    ct_tensor position;  /* (P, D) */
    ct_tensor type;      /* (types, D) optional; row 0 is used */
} ct_embedding_fwd_args;

/* Deterministic: a row's contributions are added in token order. */
typedef struct ct_embedding_bwd_args {
    ct_tensor dword;     /* (V, D) += */
    ct_tensor dposition; /* (P, D) += */
    ct_tensor dtype;     /* (types, D) += optional */
    ct_tensor dy;        /* (T, D) */
    ct_tensor ids;       /* (T) i32 */
    ct_tensor positions; /* (T) i32 */
} ct_embedding_bwd_args;

/* Self-attention within each sequence (Vaswani et al. 2017): for sequence n with rows
 * cu_seqlens[n] .. cu_seqlens[n+1]-1 and each head h,
 *   o = dropout(softmax(scale q k^T)) v.
 * lse is the log of the softmax's denominator, saved so that backward can recompute it (Dao et
 * al. 2022). Rows at or past cu_seqlens[N] belong to no sequence: o and dqkv are zero there.
 * Probabilities and the gradients of q k^T may be rounded to the compute dtype where they are
 * operands of the next product, as FlashAttention does. The probability of (row t, key j within its
 * sequence, head h) is kept when ct_rng_uniform(ct_rng_at_step(key, step[0]), (t H + h) 65536 + j)
 * >= dropout. */
typedef struct ct_attention_fwd_args {
    ct_tensor o;          /* (T, H, d) */
    ct_tensor lse;        /* (T, H) f32 saved */
    ct_tensor qkv;        /* (T, 3, H, d) */
    ct_tensor cu_seqlens; /* (N + 1) i32, from 0, ascending, last <= T */
    ct_tensor step;       /* (1) i32, present when dropout > 0 */
    int max_seqlen;       /* no sequence is longer */
    float scale;          /* usually 1/sqrt(d) */
    float dropout;        /* 0 <= dropout < 1 */
    ct_rng_key key;
    bool causal; /* a row sees only itself and what precedes it in its sequence */
} ct_attention_fwd_args;

typedef struct ct_attention_bwd_args {
    ct_tensor dqkv;       /* (T, 3, H, d) = */
    ct_tensor d_o;        /* (T, H, d) */
    ct_tensor o;          /* (T, H, d) */
    ct_tensor lse;        /* (T, H) f32 */
    ct_tensor qkv;        /* (T, 3, H, d) */
    ct_tensor cu_seqlens; /* (N + 1) i32 */
    ct_tensor step;       /* (1) i32, present when dropout > 0 */
    int max_seqlen;
    float scale, dropout;
    ct_rng_key key;
    bool causal;
} ct_attention_bwd_args;

/* y[i] = x[index[i]]. Indices are distinct. Backward writes zero to every row not named. */
typedef struct ct_gather_rows_fwd_args {
    ct_tensor y;     /* (N, D) */
    ct_tensor x;     /* (T, D) */
    ct_tensor index; /* (N) i32 */
} ct_gather_rows_fwd_args;

typedef struct ct_gather_rows_bwd_args {
    ct_tensor dx;    /* (T, D) = */
    ct_tensor dy;    /* (N, D) */
    ct_tensor index; /* (N) i32 */
} ct_gather_rows_bwd_args;

/* ---- loss and optimiser ------------------------------------------------------------------- */

/* The contrastive losses. image and text are the embeddings of the whole batch of N pairs, which
 * several devices may share: a device gathers all N and owns rows [first, first + M). M is told by
 * the outputs' shapes; M = N with first = 0 where one device has the whole batch. What each
 * operation computes for the devices' own rows adds up, or joins up, to exactly what one device
 * would compute of the whole batch. The N x N similarities
 *   z[i][j] = exp(logit_scale) image[i] . text[j]
 * are never stored. */

/* Symmetric cross-entropy (Radford et al. 2021, CLIP):
 *   loss = 1/2 mean_i(row_lse[i] - sum_j row_target[i][j] z[i][j])
 *        + 1/2 mean_j(col_lse[j] - sum_i col_target[i][j] z[i][j])
 * where row_lse[i] and col_lse[j] are the log-sum-exps of the counted pairs of row i and of column
 * j: all but, with MASK, those i != j with equal photo ids. A target is t = [i = j], or with SHARE
 * [equal photo ids]/(number of them); smoothed (Szegedy et al. 2016) it is
 *   row_target[i][j] = (1 - label_smoothing) t[i][j] + label_smoothing/(counted pairs of row i)
 * for counted pairs, col_target likewise with those of column j: as torch's cross_entropy has it.
 *
 * Forward on each device gives its rows' part. Columns are complete when the parts of all devices
 * are merged (clip_loss_merge); with one device they are complete at once. */
typedef struct ct_clip_loss_fwd_args {
    ct_tensor row_lse; /* (M) saved: of own rows */
    ct_tensor col_lse; /* (N) saved: of all columns, over own rows only; -infinity where no own row
                          counts */
    ct_tensor target;  /* (M): 1/2 sum_j (row_target + col_target)[i][j] z[i][j] of own rows */
    ct_tensor image, text; /* (N, D), rows of length 1 */
    ct_tensor logit_scale; /* (1), log of the factor */
    ct_tensor photo_ids;   /* (N) i32 */
    int64_t first;
    ct_same_image same_image;
    float label_smoothing; /* 0 <= label_smoothing < 1 */
} ct_clip_loss_fwd_args;

/* lse[j] = log sum_r exp(parts[r][j]), not -infinity for all r at once. */
typedef struct ct_clip_loss_merge_args {
    ct_tensor lse;   /* (C) */
    ct_tensor parts; /* (R, C) */
} ct_clip_loss_merge_args;

/* loss = sum_i (row_lse[i] + col_lse[i] - 2 target[i])/(2 N) over own rows and columns, summed in
 * f64 in a fixed order: the own share of the loss. */
typedef struct ct_clip_loss_total_args {
    ct_tensor loss;                     /* (1) */
    ct_tensor row_lse, col_lse, target; /* (M), complete */
    int64_t count;                      /* N */
} ct_clip_loss_total_args;

/* The gradients of the whole batch's loss with respect to own rows of both sides. They need nothing
 * from other devices but the two complete log-sum-exps. */
typedef struct ct_clip_loss_bwd_args {
    ct_tensor dimage, dtext;    /* (M, D) = of own rows */
    ct_tensor dlogit_scale;     /* (1) +=; the devices' sum is the gradient */
    ct_tensor image, text;      /* (N, D) */
    ct_tensor logit_scale;      /* (1) */
    ct_tensor photo_ids;        /* (N) i32 */
    ct_tensor row_lse, col_lse; /* (N) complete */
    ct_tensor loss_scale;       /* (2) f32 optional: all gradients are those of loss_scale[0] times
                                   the loss */
    int64_t first;
    ct_same_image same_image;
    float label_smoothing;
} ct_clip_loss_bwd_args;

/* Pairwise sigmoid loss (Zhai et al. 2023, SigLIP):
 *   loss = -1/N sum_ij log sigmoid(y[i][j] (z[i][j] + logit_bias))
 * with y = 1 where i = j, else -1; pairs i != j with equal photo ids are left out (MASK), have y =
 * 1 (SHARE) or -1 (NEGATIVE). */
typedef struct ct_siglip_loss_fwd_args {
    ct_tensor loss;        /* (1): own rows' share; the devices' sum is the loss */
    ct_tensor image, text; /* (N, D), rows of length 1 */
    ct_tensor logit_scale; /* (1), log of the factor */
    ct_tensor logit_bias;  /* (1) */
    ct_tensor photo_ids;   /* (N) i32 */
    int64_t first, rows;   /* rows: M */
    ct_same_image same_image;
} ct_siglip_loss_fwd_args;

typedef struct ct_siglip_loss_bwd_args {
    ct_tensor dimage, dtext;             /* (M, D) = of own rows, gradients of the whole loss */
    ct_tensor dlogit_scale, dlogit_bias; /* (1) +=; the devices' sums are the gradients */
    ct_tensor image, text;               /* (N, D) */
    ct_tensor logit_scale, logit_bias;   /* (1) */
    ct_tensor photo_ids;                 /* (N) i32 */
    ct_tensor loss_scale;                /* (2) f32 optional, as clip_loss_bwd's */
    int64_t first;
    ct_same_image same_image;
} ct_siglip_loss_bwd_args;

/* y = x in y's dtype: to the nearest, ties to even; or, for f32 to bf16, stochastically: the low 16
 * bits of ct_rng_u32(ct_rng_at_step(key, step[0]), i) are added to the bits of element i (unless it
 * is not finite), then the low 16 bits are dropped, so that the mean over keys is x. */
typedef struct ct_cast_args {
    ct_tensor y;    /* any shape; f32, bf16 or f16 */
    ct_tensor x;    /* same shape; f32, bf16 or f16 */
    ct_tensor step; /* (1) i32, present when stochastic */
    ct_rng_key key; /* made with a = 0 */
    bool stochastic;
} ct_cast_args;

/* One parameter tensor as the optimiser sees it; value to exp_avg_sq f32 of equal count. */
typedef struct ct_optimizer_segment {
    ct_tensor value, grad, exp_avg, exp_avg_sq;
    ct_tensor weight;   /* optional: value in the compute dtype, written after it as by cast */
    ct_rng_key key;     /* cast's */
    float lr_scale;     /* this parameter's base learning rate; times the schedule */
    float weight_decay; /* 0: none */
    float max_value;    /* the value is clamped to at most this after the update; INFINITY: never */
} ct_optimizer_segment;

/* The L2 norm of all segments' gradients, summed in f64 in a fixed order; 0 without segments. */
typedef struct ct_grad_norm_args {
    ct_tensor norm; /* (1) f32 */
    const ct_optimizer_segment *segments;
    int segment_count;
} ct_grad_norm_args;

/* What follows from the norms of R parts of the gradients (one where a device has them all):
 * norm = sqrt(sum_r norms[r]^2), formed in f64. stats[0] = norm; stats[1] = clip coefficient min(1,
 * max_norm/(norm + 1e-6)), as torch.nn.utils.clip_grad_norm_ (1 when max_norm is 0: no clipping);
 * stats[2] = 1 when the norm is not finite, else 0.
 * With loss_scale the gradients are loss_scale[0] times the true ones: stats[0] is the true norm
 * and stats[1] takes the factor 1/loss_scale[0] too. Then the scale is adapted (Micikevicius et al.
 * 2018; torch.amp.GradScaler): halved, and loss_scale[1] = 0, when the norm is not finite; else
 * loss_scale[1] += 1, and at growth_interval the scale doubles (to at most 2^24) and
 * loss_scale[1] = 0. */
typedef struct ct_grad_stats_args {
    ct_tensor stats;      /* (3) f32 */
    ct_tensor loss_scale; /* (2) f32 optional, updated: scale, finite steps since it last changed */
    ct_tensor norms;      /* (R) f32 from grad_norm */
    float max_norm;       /* 0: do not clip */
    int growth_interval;
} ct_grad_stats_args;

/* AdamW (Loshchilov & Hutter 2019; the arithmetic of torch.optim.AdamW):
 *   g = stats[1] grad; lr = schedule[0] lr_scale; value *= 1 - lr weight_decay;
 *   m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
 *   value -= lr schedule[1] m / (sqrt(v) schedule[2] + eps)
 * Nothing is changed when stats[2] is set. */
typedef struct ct_adamw_args {
    const ct_optimizer_segment *segments; /* value, exp_avg, exp_avg_sq, weight updated */
    int segment_count;
    ct_tensor stats;    /* (3) f32 from grad_stats */
    ct_tensor schedule; /* (3) f32: factor of this step's schedule, 1/(1 - beta1^step),
                           1/sqrt(1 - beta2^step); step from 1 */
    ct_tensor step;     /* (1) i32, present when stochastic_rounding: the step that cast uses */
    double beta1, beta2, eps;
    bool stochastic_rounding; /* of the segments' weights */
} ct_adamw_args;

/* ---- the table ---------------------------------------------------------------------------- */

/* X(name): the function `name` takes a ct_##name##_args. */
#define CT_OPS(X)                                                                                  \
    X(image_normalize_fwd)                                                                         \
    X(conv2d_fwd)                                                                                  \
    X(conv2d_bwd_data)                                                                             \
    X(conv2d_bwd_filter)                                                                           \
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
    X(linear_fwd)                                                                                  \
    X(linear_bwd)                                                                                  \
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

typedef enum ct_op {
#define CT_OP_ENUM(name) CT_OP_##name,
    CT_OPS(CT_OP_ENUM)
#undef CT_OP_ENUM
        CT_OP_COUNT
} ct_op;

typedef struct ct_backend {
    const char *name; /* "cpu" or "cuda" */

    /* Memory of the device, CT_ALIGNMENT-aligned and zeroed. free(NULL) is fine. */
    ct_status (*alloc)(ct_device *device, size_t bytes, const char *purpose, void **out);
    void (*free)(ct_device *device, void *memory);
    /* The host may reuse `host` as soon as upload returns; download waits for the data. */
    ct_status (*upload)(ct_device *device, void *memory, const void *host, size_t bytes);
    ct_status (*download)(ct_device *device, void *host, const void *memory, size_t bytes);
    ct_status (*zero)(ct_device *device, void *memory, size_t bytes);
    ct_status (*synchronize)(ct_device *device);

    /* Announces a coming call (tensor data may be NULL): the backend builds what it needs and
     * notes the workspace. `commit` then allocates the workspace. An operation that was never
     * announced still works, but may allocate on its first call. */
    ct_status (*prepare)(ct_device *device, ct_op op, const void *args);
    ct_status (*commit)(ct_device *device);

    /* optional. Runs body(context), a run of operations and `zero`s on this device; calls with
     * equal keys must make the same calls with the same arguments, so that the backend may record
     * the first ones and replay them later. Not for use with upload or download inside. */
    ct_status (*replay)(ct_device *device, uint64_t key, ct_status (*body)(void *context),
                        void *context);

    void (*destroy)(ct_device *device);

#define CT_OP_ENTRY(name) ct_status (*name)(ct_device * device, const ct_##name##_args *args);
    CT_OPS(CT_OP_ENTRY)
#undef CT_OP_ENTRY
} ct_backend;

/* First member of every backend's own device type. Not thread-safe: one thread drives a device. */
struct ct_device {
    const ct_backend *backend;
    size_t workspace_bytes; /* for reports */
    ct_dtype compute_dtype; /* of activations and weights */
    bool tf32;          /* products and convolutions read f32 operands with 10 bits of mantissa */
    bool fuses_moments; /* conv2d_fwd may form moments as it writes y: worth asking it for them */
    /* Packed token counts are rounded up to a multiple of this, so that few shapes occur: 1 where
     * nothing is recorded. Rows past cu_seqlens[N] belong to no sequence. */
    int token_multiple;
    ct_comm *comm; /* to the devices of the job's other ranks; NULL: there are none. Borrowed */
};

static inline void ct_device_destroy(ct_device *device)
{
    if (device) device->backend->destroy(device);
}

static inline ct_status ct_device_replay(ct_device *device, uint64_t key,
                                         ct_status (*body)(void *context), void *context)
{
    return device->backend->replay ? device->backend->replay(device, key, body, context)
                                   : body(context);
}

/* ---- one step's execution ------------------------------------------------------------------ */

/* Passed down through forward and backward. While planning, operations are announced instead of
 * run and `activations` only measures; the same code then runs with memory behind it. */
typedef struct ct_exec {
    ct_device *device;
    ct_arena *activations; /* forward pushes, backward releases in reverse */
    bool planning;
    bool training; /* batch statistics, dropout; what backward needs is kept */
    bool repeated; /* forward has run on this batch before: running statistics stay as they are */
    uint64_t seed; /* dropout masks are functions of (seed, step, micro, layer) */
    int32_t micro; /* which micro-batch of this rank's step, from 0 */
    int32_t micro_before;       /* micro-batches of the ranks before this one */
    bool sync_batchnorm;        /* batch statistics are those of all ranks */
    struct ct_reducer *reducer; /* told when gradients are complete; NULL: nobody is */
    ct_tensor step;             /* (1) i32 on the device: optimiser steps done before this one */
} ct_exec;

/* ct_op_linear_fwd(exec, &args) and so on: announce or run. */
#define CT_OP_DISPATCH(name)                                                                       \
    CT_NODISCARD static inline ct_status ct_op_##name(const ct_exec *exec,                         \
                                                      const ct_##name##_args *args)                \
    {                                                                                              \
        const ct_backend *backend = exec->device->backend;                                         \
        if (exec->planning) return backend->prepare(exec->device, CT_OP_##name, args);             \
        return backend->name(exec->device, args);                                                  \
    }
CT_OPS(CT_OP_DISPATCH)
#undef CT_OP_DISPATCH

/* Collectives of a pass; nothing needs to be announced for them. */
CT_NODISCARD static inline ct_status ct_exec_all_gather(const ct_exec *exec, const ct_tensor *to,
                                                        const ct_tensor *from)
{
    return exec->planning ? CT_OK : ct_comm_all_gather(exec->device->comm, to, from);
}
CT_NODISCARD static inline ct_status ct_exec_all_to_all(const ct_exec *exec, const ct_tensor *to,
                                                        const ct_tensor *from)
{
    return exec->planning ? CT_OK : ct_comm_all_to_all(exec->device->comm, to, from);
}
CT_NODISCARD static inline ct_status ct_exec_all_reduce(const ct_exec *exec, const ct_tensor *x)
{
    return exec->planning ? CT_OK : ct_comm_all_reduce(exec->device->comm, x);
}

/* Pushes room for `t` (shape and dtype set) on the activation stack and sets t->data. */
CT_NODISCARD static inline ct_status ct_exec_push(const ct_exec *exec, ct_tensor *t)
{
    return ct_arena_push(exec->activations, ct_tensor_bytes(t), &t->data);
}

#endif
