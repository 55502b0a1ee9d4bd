#include "loss_fwd.cuh"

template cudaError_t ctk::loss::launch_forward(loss_kind, const problem &,
                                               const operand<__nv_bfloat16> &,
                                               const operand<__nv_bfloat16> &, const forward_band &,
                                               const ctk_launch *);
