/* The table's memory entries that are more than one call. Transfers are in staging.h. */
#ifndef CT_CUDA_MEMORY_H
#define CT_CUDA_MEMORY_H

#include "cuda/internal.h"

/* Zeroed in the order of `stream`. CT_ERR_MEMORY says what is free and what to make smaller. */
CT_NODISCARD ct_status ct_cuda_alloc(ct_device *device, size_t bytes, const char *purpose,
                                     void **out);

/* Waits for the device, and drops recorded graphs: they may name the memory. */
void ct_cuda_free(ct_device *device, void *memory);

CT_NODISCARD ct_status ct_cuda_zero(ct_device *device, void *memory, size_t bytes);

/* Makes the workspace as large as base.workspace_bytes. */
CT_NODISCARD ct_status ct_cuda_grow_workspace(ct_cuda_device *cuda);

#endif
