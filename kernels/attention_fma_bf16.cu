#include "attention_fma.cuh"

namespace ctk::attention
{

template cudaError_t forward_fma(const problem &, const forward<__nv_bfloat16> &, cudaStream_t);
template cudaError_t backward_fma(const problem &, const backward<__nv_bfloat16> &, cudaStream_t);

} // namespace ctk::attention
