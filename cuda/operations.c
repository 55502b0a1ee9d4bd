/* The operations that are one launcher of kernels/ each. */
#include "cuda/internal.h"

/* Scratch memory that an operation's kernels need; 0 for most. */
static size_t workspace_of(const ct_cuda_device *cuda, ct_op op, const void *args)
{
    const int sm_count = cuda->properties.multiProcessorCount;
    switch ((int)op) {
#define CASE(name)                                                                                 \
    case CT_OP_##name:                                                                             \
        return ctk_##name##_workspace((const ct_##name##_args *)args, sm_count);
        CTK_WORKSPACE_OPS(CASE)
#undef CASE
    default:
        return 0;
    }
}

#define DEFINE(name)                                                                               \
    ct_status ct_cuda_##name(ct_device *device, const ct_##name##_args *args)                      \
    {                                                                                              \
        ct_cuda_device *cuda = ct_cuda(device);                                                    \
        void *workspace;                                                                           \
        CT_TRY(ct_cuda_workspace(cuda, workspace_of(cuda, CT_OP_##name, args), &workspace));       \
        if (cuda->preparing) return CT_OK;                                                         \
        const ctk_launch launch = ct_cuda_launch(cuda, workspace);                                 \
        CT_CUDA(cuda->operation, ctk_##name(args, &launch));                                       \
        return CT_OK;                                                                              \
    }
CTK_OPS(DEFINE)
#undef DEFINE
