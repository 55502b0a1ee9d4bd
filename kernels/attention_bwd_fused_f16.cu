#include "attention_bwd_fused_mma.cuh"

template cudaError_t ctk::attention::backward_fused_mma(const problem &, const backward<__half> &,
                                                        cudaStream_t);
