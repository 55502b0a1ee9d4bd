/* The GPU backend: CUDA runtime, cuBLASLt, cuDNN and the kernels of kernels/. This header is plain
 * C and needs no CUDA; a build without the toolkit links absent.c, whose functions fail with a
 * clear message. */
#ifndef CT_CUDA_CUDA_H
#define CT_CUDA_CUDA_H

#include "comm.h"
#include "op.h"

/* How activations are stored and products formed. Parameters, gradients and moments are f32 always.
 */
typedef enum ct_cuda_precision {
    CT_CUDA_F32,  /* stored and multiplied in f32 */
    CT_CUDA_TF32, /* stored in f32, multiplied with 10 bits of mantissa */
    CT_CUDA_BF16,
    CT_CUDA_F16 /* wants loss scaling */
} ct_cuda_precision;

typedef struct ct_cuda_options {
    int gpu; /* ordinal, from 0 */
    ct_cuda_precision precision;
    bool deterministic;     /* only library algorithms that give the same bits every time */
    bool graphs;            /* `replay` records CUDA graphs */
    bool fused_statistics;  /* convolutions form batch normalisation's moments (not in f32) */
    bool autotune;          /* time the plans of a convolution instead of trusting the heuristic */
    const char *plan_cache; /* file that remembers autotuned choices; "" or NULL: none. Borrowed */
} ct_cuda_options;

/* GPUs that this process can use; 0 when there is no driver, no device or no GPU backend. Never
 * fails. *why (optional) = the reason when 0: a static string. */
int ct_cuda_count(const char **why);

/* bf16 needs compute capability 8.0, tf32 too, f16 7.0. CT_ERR_UNSUPPORTED names what is missing.
 */
CT_NODISCARD ct_status ct_cuda_device_create(const ct_cuda_options *options, ct_device **out);

/* "NVIDIA H100 80GB HBM3", for reports. Valid while the device lives. */
const char *ct_cuda_device_name(const ct_device *device);

/* The most bf16 is native on, for precision: auto. */
bool ct_cuda_supports_bf16(int gpu);

/* ---- several GPUs: NCCL (nccl.h) -----------------------------------------------------------
 * CT_ERR_UNSUPPORTED in a build without NCCL. */

#define CT_NCCL_ID_BYTES 128

/* id (CT_NCCL_ID_BYTES) = a name for a new communicator, made by one rank and told to all. */
CT_NODISCARD ct_status ct_cuda_nccl_id(void *id);

/* Meets the other ranks: all call it. `device` is a GPU of this process, one a rank, and outlives
 * the communicator. CT_ERR_DEVICE when not all came within timeout_seconds.
 *
 * What is started must be finished in the same run of ct_device_replay, if it is started in one.
 * Collectives may be recorded; whether one is must be the same on all ranks (graphs.h). Destroying
 * it waits for what was queued, and forgets what the device has recorded; nobody may abort it any
 * more by then. */
CT_NODISCARD ct_status ct_cuda_comm_create(ct_device *device, const void *id, int rank, int size,
                                           double timeout_seconds, ct_comm **out);

#endif
