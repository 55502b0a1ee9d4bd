#include "loss_fwd.cuh"

template cudaError_t ctk::loss::launch_forward(loss_kind, const problem &, const operand<__half> &,
                                               const operand<__half> &, const forward_band &,
                                               const ctk_launch *);
