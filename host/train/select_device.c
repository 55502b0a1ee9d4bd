#include "train/select_device.h"

#include "cpu/cpu.h"

ct_status ct_device_select(const ct_config *config, int gpus, ct_device **out, int *threads)
{
    if (gpus > 0)
        return ct_fail(CT_ERR_UNSUPPORTED,
                       "--gpus %d: this build has no GPU backend; leave --gpus out to train on the "
                       "processor",
                       gpus);
    if (config->device == CT_DEVICE_CUDA)
        return ct_fail(CT_ERR_UNSUPPORTED, "device: cuda: this build has no GPU backend; use "
                                           "device: cpu or auto");
    if (config->precision != CT_PRECISION_F32)
        return ct_fail(CT_ERR_UNSUPPORTED,
                       "precision: the cpu device computes in f32 only; use precision: f32");
    *threads = config->threads > 0 ? (int)config->threads : ct_cpu_count();
    return ct_cpu_device_create(*threads, out);
}
