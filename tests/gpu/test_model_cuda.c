/* The whole model on the GPU backend in f32 against PyTorch: loss, every gradient by name and ten
 * optimiser steps (tests/model/training_test.c). */
#include "cuda/cuda.h"
#include "model/support.h"
#include "model/tests.h"

ct_status model_device_create(ct_device **out)
{
    return ct_cuda_device_create(
        &(ct_cuda_options){.precision = CT_CUDA_F32, .deterministic = true, .graphs = true}, out);
}

int main(void)
{
    return run_training_tests();
}
