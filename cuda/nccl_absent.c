/* Instead of nccl.c in a GPU build without NCCL: one GPU only. */
#include "cuda/cuda.h"

static const char reason[] =
    "this build has no NCCL, which several GPUs need: it was not found when "
    "it was configured";

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
