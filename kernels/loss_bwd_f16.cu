#include "loss_bwd.cuh"

template cudaError_t ctk::loss::launch_gradients(loss_kind, const problem &,
                                                 const operand<__half> &, const operand<__half> &,
                                                 const gradient_chunk<__half> &,
                                                 const ctk_launch *);
template cudaError_t ctk::loss::launch_products(const gradient_products<__half> &,
                                                const ctk_launch *);
