#include "attention_fwd_mma.cuh"

template cudaError_t ctk::attention::forward_mma(const problem &, const forward<__nv_bfloat16> &,
                                                 cudaStream_t);
