#include "attention_bwd_long_mma.cuh"

template cudaError_t ctk::attention::backward_long_mma(const problem &, const backward<__half> &,
                                                       cudaStream_t);
