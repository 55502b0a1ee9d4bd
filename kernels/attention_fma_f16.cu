#include "attention_fma.cuh"

namespace ctk::attention
{

template cudaError_t forward_fma(const problem &, const forward<__half> &, cudaStream_t);
template cudaError_t backward_fma(const problem &, const backward<__half> &, cudaStream_t);

} // namespace ctk::attention
