#include "loss_fwd.cuh"

template cudaError_t ctk::loss::launch_forward(loss_kind, const problem &, const operand<float> &,
                                               const operand<float> &, const forward_band &,
                                               const ctk_launch *);
