/* The GPU as a ct_device: what GPUs there are, creation and destruction, and the table. */
#include <stdlib.h>
#include <string.h>

#include "cuda/convolutions.h"
#include "cuda/graphs.h"
#include "cuda/internal.h"
#include "cuda/memory.h"
#include "cuda/products.h"
#include "cuda/staging.h"

/* A tile of the products' rows, so that few shapes need recording. The same whether steps are
 * recorded or not: sums over tokens, padding included, are then formed alike and the bits are
 * equal. */
#define TOKEN_MULTIPLE 128

int ct_cuda_count(const char **why)
{
    int count = 0, driver = 0;
    const char *reason = "no NVIDIA GPU was found";
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess) {
        (void)cudaGetLastError();
        count = 0;
        if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
            reason = "no NVIDIA driver was found";
        else if (error == cudaErrorInsufficientDriver)
            reason = "the NVIDIA driver is older than this build's CUDA needs";
        else if (error != cudaErrorNoDevice) reason = cudaGetErrorString(error);
    }
    if (count == 0 && why) *why = reason;
    return count;
}

bool ct_cuda_supports_bf16(int gpu)
{
    int major;
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, gpu) == cudaSuccess)
        return major >= 8;
    (void)cudaGetLastError();
    return false;
}

const char *ct_cuda_device_name(const ct_device *device)
{
    return ((const ct_cuda_device *)device)->properties.name;
}

/* ---- operations ---------------------------------------------------------------------------- */

static void begin(ct_device *device, const char *operation)
{
    ct_cuda(device)->operation = operation;
}

static ct_status finish(ct_device *device, ct_status status)
{
    ct_cuda_device *cuda = ct_cuda(device);
    CT_TRY(status);
    if (cuda->synchronous) CT_CUDA(cuda->operation, cudaStreamSynchronize(cuda->stream));
    return CT_OK;
}

#define DEFINE(name)                                                                               \
    static ct_status run_##name(ct_device *device, const ct_##name##_args *args)                   \
    {                                                                                              \
        begin(device, #name);                                                                      \
        return finish(device, ct_cuda_##name(device, args));                                       \
    }
CT_OPS(DEFINE)
#undef DEFINE

static ct_status prepare_op(ct_device *device, ct_op op, const void *args)
{
    switch ((int)op) {
#define CASE(name)                                                                                 \
    case CT_OP_##name:                                                                             \
        begin(device, #name);                                                                      \
        return ct_cuda_##name(device, (const ct_##name##_args *)args);
        CT_OPS(CASE)
#undef CASE
    default:
        return ct_fail(CT_ERR_INTERNAL, "operation %d is unknown", (int)op);
    }
}

static ct_status prepare(ct_device *device, ct_op op, const void *args)
{
    ct_cuda(device)->preparing = true;
    ct_status status = prepare_op(device, op, args);
    ct_cuda(device)->preparing = false;
    return status;
}

static ct_status commit(ct_device *device)
{
    begin(device, NULL);
    return ct_cuda_grow_workspace(ct_cuda(device));
}

static ct_status synchronize(ct_device *device)
{
    CT_CUDA("synchronize", cudaStreamSynchronize(ct_cuda(device)->stream));
    return ct_cuda_check_job(ct_cuda(device));
}

/* ---- creation ------------------------------------------------------------------------------ */

/* From any state of creation, and after faults: errors are not looked at, so that the message of
 * the first one stays. */
static void destroy(ct_device *device)
{
    ct_cuda_device *cuda = ct_cuda(device);
    if (!cuda) return;
    if (cuda->stream) (void)cudaStreamSynchronize(cuda->stream);
    if (cuda->copy_stream) (void)cudaStreamSynchronize(cuda->copy_stream);
    ct_cuda_graphs_destroy(cuda->graphs);
    ct_cuda_convolutions_destroy(cuda->convolutions);
    ct_cuda_products_destroy(cuda->products);
    ct_cuda_staging_destroy(cuda->staging);
    if (cuda->workspace) (void)cudaFree(cuda->workspace);
    if (cuda->copy_stream) (void)cudaStreamDestroy(cuda->copy_stream);
    if (cuda->stream) (void)cudaStreamDestroy(cuda->stream);
    (void)cudaGetLastError();
    free(cuda);
}

static const ct_backend cuda_backend = {.name = "cuda",
                                        .alloc = ct_cuda_alloc,
                                        .free = ct_cuda_free,
                                        .upload = ct_cuda_upload,
                                        .download = ct_cuda_download,
                                        .zero = ct_cuda_zero,
                                        .synchronize = synchronize,
                                        .prepare = prepare,
                                        .commit = commit,
                                        .replay = ct_cuda_replay,
                                        .destroy = destroy,
#define ENTRY(name) .name = run_##name,
                                        CT_OPS(ENTRY)
#undef ENTRY
};

static const struct {
    const char *name;
    ct_dtype dtype;
    int major; /* the least compute capability */
} precisions[] = {[CT_CUDA_F32] = {"f32", CT_F32, 0},
                  [CT_CUDA_TF32] = {"tf32", CT_F32, 8},
                  [CT_CUDA_BF16] = {"bf16", CT_BF16, 8},
                  [CT_CUDA_F16] = {"fp16", CT_F16, 7}};

static ct_status check_gpu(const ct_cuda_options *options, struct cudaDeviceProp *properties)
{
    const char *why;
    const int count = ct_cuda_count(&why);
    if (count == 0) return ct_fail(CT_ERR_UNSUPPORTED, "no GPU to compute on: %s", why);
    if (options->gpu < 0 || options->gpu >= count)
        return ct_fail(CT_ERR_UNSUPPORTED, "GPU %d was asked for, but there are %d, from 0",
                       options->gpu, count);
    CT_CUDA(NULL, cudaGetDeviceProperties(properties, options->gpu));
    const int needed = precisions[options->precision].major;
    if (properties->major < needed)
        return ct_fail(CT_ERR_UNSUPPORTED,
                       "precision: %s needs compute capability %d.0 or more; %s has %d.%d",
                       precisions[options->precision].name, needed, properties->name,
                       properties->major, properties->minor);
    return CT_OK;
}

static ct_status set_up(ct_cuda_device *cuda)
{
    CT_CUDA(NULL, cudaSetDevice(cuda->options.gpu));
    CT_CUDA(NULL, cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking));
    CT_CUDA(NULL, cudaStreamCreateWithFlags(&cuda->copy_stream, cudaStreamNonBlocking));
    CT_TRY(ct_cuda_staging_create(&cuda->staging));
    CT_TRY(ct_cuda_graphs_create(&cuda->graphs));
    return ct_cuda_products_create(&cuda->products);
}

ct_status ct_cuda_device_create(const ct_cuda_options *options, ct_device **out)
{
    ct_cuda_device *cuda;
    CT_TRY(ct_alloc(1, sizeof *cuda, "the GPU", &cuda));
    const char *synchronous = getenv("CT_CUDA_SYNC");
    cuda->base.backend = &cuda_backend;
    cuda->options = *options;
    cuda->synchronous = synchronous && strcmp(synchronous, "1") == 0;
    if (cuda->synchronous) cuda->options.graphs = false; /* nothing to wait for while recording */
    cuda->base.compute_dtype = precisions[options->precision].dtype;
    cuda->base.tf32 = options->precision == CT_CUDA_TF32;
    cuda->base.fuses_moments = options->fused_statistics && options->precision != CT_CUDA_F32;
    cuda->base.token_multiple = TOKEN_MULTIPLE;
    ct_status status;
    CT_TRY_GOTO(status, check_gpu(options, &cuda->properties), fail);
    CT_TRY_GOTO(status, set_up(cuda), fail);
    *out = &cuda->base;
    return CT_OK;
fail:
    destroy(&cuda->base);
    return status;
}
