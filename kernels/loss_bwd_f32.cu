#include "loss_bwd.cuh"

template cudaError_t ctk::loss::launch_gradients(loss_kind, const problem &, const operand<float> &,
                                                 const operand<float> &,
                                                 const gradient_chunk<float> &, const ctk_launch *);
template cudaError_t ctk::loss::launch_products(const gradient_products<float> &,
                                                const ctk_launch *);
