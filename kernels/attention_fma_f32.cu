#include "attention_fma.cuh"

namespace ctk::attention
{

template cudaError_t forward_fma(const problem &, const forward<float> &, cudaStream_t);
template cudaError_t backward_fma(const problem &, const backward<float> &, cudaStream_t);

} // namespace ctk::attention
