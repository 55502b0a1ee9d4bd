#include "loss_bwd.cuh"

template cudaError_t ctk::loss::launch_gradients(loss_kind, const problem &,
                                                 const operand<__nv_bfloat16> &,
                                                 const operand<__nv_bfloat16> &,
                                                 const gradient_chunk<__nv_bfloat16> &,
                                                 const ctk_launch *);
template cudaError_t ctk::loss::launch_products(const gradient_products<__nv_bfloat16> &,
                                                const ctk_launch *);
