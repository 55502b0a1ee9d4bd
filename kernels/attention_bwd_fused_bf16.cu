#include "attention_bwd_fused_mma.cuh"

template cudaError_t
ctk::attention::backward_fused_mma(const problem &, const backward<__nv_bfloat16> &, cudaStream_t);
