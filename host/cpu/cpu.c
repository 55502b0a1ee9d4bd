#include "cpu/cpu.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/internal.h"
#include "cpu/onednn.h"

static ct_status allocate(size_t bytes, const char *purpose, void **out)
{
    /* aligned_alloc wants a multiple of the alignment; 0 bytes still give a pointer to free. */
    size_t rounded = bytes ? ct_cpu_aligned(bytes) : CT_ALIGNMENT;
    *out = rounded < bytes ? NULL : aligned_alloc(CT_ALIGNMENT, rounded);
    if (!*out) return ct_fail(CT_ERR_MEMORY, "out of memory: %zu bytes for %s", bytes, purpose);
    return CT_OK;
}

static ct_status cpu_alloc(ct_device *device, size_t bytes, const char *purpose, void **out)
{
    (void)device;
    CT_TRY(allocate(bytes, purpose, out));
    memset(*out, 0, bytes);
    return CT_OK;
}

static void cpu_free(ct_device *device, void *memory)
{
    (void)device;
    free(memory);
}

static ct_status cpu_upload(ct_device *device, void *memory, const void *host, size_t bytes)
{
    (void)device;
    if (bytes) memcpy(memory, host, bytes);
    return CT_OK;
}

static ct_status cpu_download(ct_device *device, void *host, const void *memory, size_t bytes)
{
    (void)device;
    if (bytes) memcpy(host, memory, bytes);
    return CT_OK;
}

static ct_status cpu_zero(ct_device *device, void *memory, size_t bytes)
{
    (void)device;
    if (bytes) memset(memory, 0, bytes);
    return CT_OK;
}

/* Operations have finished when they return. */
static ct_status cpu_synchronize(ct_device *device)
{
    (void)device;
    return CT_OK;
}

/* Contents are scratch, so growing need not copy. */
static ct_status grow_workspace(ct_cpu_device *cpu)
{
    if (cpu->base.workspace_bytes <= cpu->workspace_capacity) return CT_OK;
    free(cpu->workspace);
    cpu->workspace = NULL;
    cpu->workspace_capacity = 0;
    CT_TRY(allocate(cpu->base.workspace_bytes, "the operations' workspace", &cpu->workspace));
    cpu->workspace_capacity = cpu->base.workspace_bytes;
    return CT_OK;
}

ct_status ct_cpu_workspace(ct_cpu_device *cpu, size_t bytes, void *out)
{
    if (bytes > cpu->base.workspace_bytes) cpu->base.workspace_bytes = ct_cpu_aligned(bytes);
    if (!cpu->preparing) CT_TRY(grow_workspace(cpu));
    void *pointer = cpu->preparing ? NULL : cpu->workspace;
    memcpy(out, &pointer, sizeof pointer);
    return CT_OK;
}

static ct_status prepare_op(ct_device *device, ct_op op, const void *args)
{
    switch ((int)op) {
#define CASE(name)                                                                                 \
    case CT_OP_##name:                                                                             \
        return ct_cpu_##name(device, (const ct_##name##_args *)args);
        CT_CPU_PREPARED_OPS(CASE)
#undef CASE
    default:
        return CT_OK;
    }
}

static ct_status cpu_prepare(ct_device *device, ct_op op, const void *args)
{
    ct_cpu_device *cpu = ct_cpu(device);
    cpu->preparing = true;
    ct_status status = prepare_op(device, op, args);
    cpu->preparing = false;
    return status;
}

static ct_status cpu_commit(ct_device *device)
{
    return grow_workspace(ct_cpu(device));
}

static void cpu_destroy(ct_device *device)
{
    ct_cpu_device *cpu = ct_cpu(device);
    if (!cpu) return;
    ct_onednn_destroy(cpu->onednn);
    free(cpu->workspace);
    free(cpu);
}

static const ct_backend cpu_backend = {.name = "cpu",
                                       .alloc = cpu_alloc,
                                       .free = cpu_free,
                                       .upload = cpu_upload,
                                       .download = cpu_download,
                                       .zero = cpu_zero,
                                       .synchronize = cpu_synchronize,
                                       .prepare = cpu_prepare,
                                       .commit = cpu_commit,
                                       .destroy = cpu_destroy,
#define ENTRY(name) .name = ct_cpu_##name,
                                       CT_OPS(ENTRY)
#undef ENTRY
};

ct_status ct_cpu_device_create(int threads, ct_device **out)
{
    if (threads < 0)
        return ct_fail(CT_ERR_ARGUMENT, "number of threads must be 0 (all) or more, not %d",
                       threads);
    ct_cpu_device *cpu;
    CT_TRY(ct_alloc(1, sizeof *cpu, "the CPU device", &cpu));
    cpu->base.backend = &cpu_backend;
    cpu->base.compute_dtype = CT_F32;
    cpu->base.token_multiple = 1;
    cpu->threads = threads ? threads : ct_cpu_count();
    ct_status status;
    CT_TRY_GOTO(status, ct_onednn_create(cpu->threads, &cpu->onednn), fail);
    *out = &cpu->base;
    return CT_OK;
fail:
    cpu_destroy(&cpu->base);
    return status;
}
