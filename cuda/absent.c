#include "cuda/cuda.h"

static const char reason[] = "this build has no GPU backend: the CUDA toolkit with cuDNN was not "
                             "found when it was configured";

int ct_cuda_count(const char **why)
{
    if (why) *why = reason;
    return 0;
}

ct_status ct_cuda_device_create(const ct_cuda_options *options, ct_device **out)
{
    (void)options;
    (void)out;
    return ct_fail(CT_ERR_UNSUPPORTED, "%s", reason);
}

const char *ct_cuda_device_name(const ct_device *device)
{
    (void)device;
    return "none";
}

bool ct_cuda_supports_bf16(int gpu)
{
    (void)gpu;
    return false;
}

ct_status ct_cuda_nccl_id(void *id)
{
    (void)id;
    return ct_fail(CT_ERR_UNSUPPORTED, "%s", reason);
}

ct_status ct_cuda_comm_create(ct_device *device, const void *id, int rank, int size,
                              double timeout_seconds, ct_comm **out)
{
    (void)device;
    (void)id;
    (void)rank;
    (void)size;
    (void)timeout_seconds;
    (void)out;
    return ct_fail(CT_ERR_UNSUPPORTED, "%s", reason);
}
