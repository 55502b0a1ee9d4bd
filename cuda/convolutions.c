/* conv2d_fwd, conv2d_bwd_data and conv2d_bwd_filter.
 *
 * Filter gradients are f32 and accumulate. With f32 operands cuDNN blends into dw itself (beta =
 * 1). With bf16 and f16 operands none of its convolution engines writes an f32 dw (version 9.19,
 * A100, H100 and B200: the heuristics propose nothing, and its run-time fusion engines would, at
 * about a second of compilation a shape): cuDNN sums in f32 and rounds dw to the compute dtype
 * once, in the workspace, and ctk_accumulate adds that to dw. Frameworks with automatic mixed
 * precision do the same.
 *
 * The moments that batch normalisation wants of y can come with it: cuDNN has kernels that sum y
 * and its squares as they write them, which saves a reading of y. Those for bf16 are compiled at
 * run time, half a second a shape, are of sm_80's kind on every GPU, and add by atomics, so that
 * they are out of the question while determinism is asked for; f16 has ready ones that are not.
 * Whether one is faster than the best plain kernel and a pass is for a GPU to say: a device uses
 * them only when asked to (ct_cuda_options.fused_statistics).
 *
 * Biases (patch embeddings only) are added by ctk_bias_activation; their gradients are column sums.
 */
#include "cuda/convolutions.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cuda/conv_plan.h"
#include "cuda/conv_tune.h"
#include "cuda/plan_cache.h"

enum { TUNED_PLANS = 8 };

typedef struct entry {
    ct_cuda_conv_problem problem;
    ct_cuda_conv_plan plan;
} entry;

struct ct_cuda_convolutions {
    cudnnHandle_t handle;
    entry *entries;
    size_t count, capacity;
    ct_plan_cache *cache; /* NULL: nothing is remembered */
};

ct_status ct_cuda_convolutions_create(ct_cuda_device *cuda, ct_cuda_convolutions **out)
{
    ct_cuda_convolutions *c;
    *out = NULL;
    CT_TRY(ct_alloc(1, sizeof *c, "cuDNN state", &c));
    ct_status status = CT_OK;
    const ct_cuda_options *options = &cuda->options;
    cudnnStatus_t error = cudnnCreate(&c->handle);
    if (error != CUDNN_STATUS_SUCCESS) {
        c->handle = NULL;
        status = ct_cudnn_failed(cuda->operation, "cudnnCreate", error, __FILE__, __LINE__);
    } else if ((error = cudnnSetStream(c->handle, cuda->stream)) != CUDNN_STATUS_SUCCESS) {
        status = ct_cudnn_failed(cuda->operation, "cudnnSetStream", error, __FILE__, __LINE__);
    } else if (options->autotune && options->plan_cache && options->plan_cache[0]) {
        status = ct_plan_cache_open(options->plan_cache, &c->cache);
    }
    if (status != CT_OK) {
        ct_cuda_convolutions_destroy(c);
        return status;
    }
    *out = c;
    return CT_OK;
}

void ct_cuda_convolutions_destroy(ct_cuda_convolutions *convolutions)
{
    if (!convolutions) return;
    for (size_t i = 0; i < convolutions->count; i++)
        ct_cuda_conv_plan_release(&convolutions->entries[i].plan);
    free(convolutions->entries);
    ct_plan_cache_close(convolutions->cache);
    if (convolutions->handle) cudnnDestroy(convolutions->handle);
    free(convolutions);
}

/* ---- choosing a plan ------------------------------------------------------------------------ */

static ct_cudnn_target target_of(const ct_cuda_device *cuda)
{
    return (ct_cudnn_target){.handle = cuda->convolutions->handle, .operation = cuda->operation};
}

/* Frees all but plans[keep], which moves to *out. */
static void keep_one(ct_cuda_conv_plan *plans, int count, int keep, ct_cuda_conv_plan *out)
{
    for (int i = 0; i < count; i++)
        if (i != keep) ct_cuda_conv_plan_release(&plans[i]);
    if (keep >= 0) *out = plans[keep];
}

/* The plan that an earlier run found fastest; out->plan stays NULL when there is none. */
static ct_status recall(ct_cuda_device *cuda, const ct_cuda_conv_problem *problem, const char *key,
                        ct_cuda_conv_plan *out)
{
    ct_cudnn_engine engine;
    const ct_cudnn_target target = target_of(cuda);
    const ct_plan_cache *cache = cuda->convolutions->cache;
    if (!cache || !ct_plan_cache_find(cache, key, &engine)) return CT_OK;
    CT_TRY(ct_cuda_conv_plan_of(&target, problem, &engine, out));
    if (!out->plan)
        ct_log(CT_LOG_WARNING, "%s: no engine %lld with these knobs for \"%s\"; it is timed anew",
               cuda->options.plan_cache, (long long)engine.index, key);
    return CT_OK;
}

static ct_status tune(ct_cuda_device *cuda, const ct_cuda_conv_problem *problem, const char *key,
                      ct_cuda_conv_plan *out)
{
    ct_cuda_conv_plan plans[TUNED_PLANS];
    const ct_cudnn_target target = target_of(cuda);
    int count, best = 0;
    CT_TRY(ct_cuda_conv_plans(&target, problem, plans, TUNED_PLANS, &count));
    const ct_status status =
        count > 1 ? ct_cuda_conv_tune(cuda, &target, problem, plans, count, &best) : CT_OK;
    keep_one(plans, count, status == CT_OK ? best : -1, out);
    CT_TRY(status);
    ct_plan_cache *cache = cuda->convolutions->cache;
    return cache ? ct_plan_cache_put(cache, key, &out->engine) : CT_OK;
}

static ct_status choose(ct_cuda_device *cuda, const ct_cuda_conv_problem *problem,
                        ct_cuda_conv_plan *out)
{
    const ct_cudnn_target target = target_of(cuda);
    enum cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    int count;
    CT_CUDA(cuda->operation, cudaStreamIsCapturing(cuda->stream, &capture));
    if (!cuda->options.autotune || capture != cudaStreamCaptureStatusNone)
        return ct_cuda_conv_plans(&target, problem, out, 1, &count);

    char text[CT_CUDA_CONV_TEXT], key[CT_CUDA_CONV_TEXT + 300];
    ct_cuda_conv_describe(problem, text);
    snprintf(key, sizeof key, "cudnn %zu, %s, %s", cudnnGetVersion(), cuda->properties.name, text);
    CT_TRY(recall(cuda, problem, key, out));
    return out->plan ? CT_OK : tune(cuda, problem, key, out);
}

/* *out = the plan of `problem`, valid until the next call; NULL when cuDNN has none with sums. */
static ct_status plan_of(ct_cuda_device *cuda, ct_cuda_conv_problem *problem,
                         const ct_cuda_conv_plan **out)
{
    if (!cuda->convolutions) CT_TRY(ct_cuda_convolutions_create(cuda, &cuda->convolutions));
    ct_cuda_convolutions *c = cuda->convolutions;
    problem->tf32 = problem->dtype == CT_F32 && cuda->options.precision == CT_CUDA_TF32;
    problem->deterministic = cuda->options.deterministic;
    for (size_t i = 0; i < c->count; i++)
        if (memcmp(&c->entries[i].problem, problem, sizeof *problem) == 0) {
            *out = c->entries[i].plan.plan ? &c->entries[i].plan : NULL;
            return CT_OK;
        }
    CT_TRY(ct_grow(&c->entries, &c->capacity, c->count + 1, sizeof *c->entries, "cuDNN plans"));
    entry *added = &c->entries[c->count];
    *added = (entry){.problem = *problem};
    const ct_status status = choose(cuda, problem, &added->plan);
    if (status != CT_OK && !(status == CT_ERR_UNSUPPORTED && problem->sums)) return status;
    c->count++;
    *out = status == CT_OK ? &added->plan : NULL;
    return CT_OK;
}

/* ---- operations ----------------------------------------------------------------------------- */

typedef struct forward {
    ct_cuda_conv_problem problem;
    const ct_cuda_conv_plan *plan;
    size_t sums_offset, workspace_bytes;
} forward;

/* With moments, the plan that forms sums too, if the device is to use one and cuDNN has it; else a
 * kernel of our own follows, in the workspace that the plan is done with. */
static ct_status plan_forward(ct_cuda_device *cuda, const ct_conv2d_fwd_args *args, forward *f)
{
    *f = (forward){.problem = ct_cuda_conv_problem_of(CT_CUDA_CONV_FWD, &args->x, &args->w,
                                                      &args->y, args->stride, args->pad)};
    const bool moments = ct_tensor_present(&args->moments);
    f->problem.sums = moments && cuda->base.fuses_moments;
    CT_TRY(plan_of(cuda, &f->problem, &f->plan));
    if (!f->plan) {
        f->problem.sums = 0;
        CT_TRY(plan_of(cuda, &f->problem, &f->plan));
    }
    f->workspace_bytes = f->plan->workspace_bytes;
    if (f->problem.sums) {
        f->sums_offset = ct_cuda_aligned(f->workspace_bytes);
        f->workspace_bytes = f->sums_offset + ct_tensor_bytes(&args->moments);
    } else if (moments) {
        const ct_batchnorm_moments_args separate = {.moments = args->moments, .x = args->y};
        f->workspace_bytes = ct_cuda_larger(
            f->workspace_bytes,
            ctk_batchnorm_moments_workspace(&separate, cuda->properties.multiProcessorCount));
    }
    return CT_OK;
}

static ct_status finish_moments(ct_cuda_device *cuda, const ct_conv2d_fwd_args *args,
                                const forward *f, void *workspace, const float *sums)
{
    const ct_batchnorm_moments_args separate = {.moments = args->moments, .x = args->y};
    const ctk_launch launch = ct_cuda_launch(cuda, workspace);
    if (f->problem.sums)
        CT_CUDA(cuda->operation,
                ctk_moments_of_sums(&args->moments, sums,
                                    f->problem.n * f->problem.ho * f->problem.wo, &launch));
    else CT_CUDA(cuda->operation, ctk_batchnorm_moments(&separate, &launch));
    return CT_OK;
}

static ct_status add_bias(ct_cuda_device *cuda, const ct_conv2d_fwd_args *args, const forward *f)
{
    const ct_tensor rows = ct_tensor2(args->y.data, args->y.dtype,
                                      f->problem.n * f->problem.ho * f->problem.wo, f->problem.co);
    const ct_tensor none = {0};
    const ctk_launch launch = ct_cuda_launch(cuda, NULL);
    CT_CUDA(cuda->operation,
            ctk_bias_activation(&rows, &none, &rows, &args->bias, CT_ACT_NONE, &launch));
    return CT_OK;
}

ct_status ct_cuda_conv2d_fwd(ct_device *device, const ct_conv2d_fwd_args *args)
{
    ct_cuda_device *cuda = ct_cuda(device);
    assert(!ct_tensor_present(&args->moments) || !ct_tensor_present(&args->bias));
    forward f;
    uint8_t *workspace;
    CT_TRY(plan_forward(cuda, args, &f));
    CT_TRY(ct_cuda_workspace(cuda, f.workspace_bytes, &workspace));
    if (cuda->preparing) return CT_OK;
    const ct_cudnn_target target = target_of(cuda);
    const ct_cuda_conv_memory memory = {
        .x = args->x.data,
        .w = args->w.data,
        .y = args->y.data,
        .sums = f.problem.sums ? (float *)(workspace + f.sums_offset) : NULL,
        .workspace = workspace};
    /* cuDNN does not say whether a kernel that adds by atomics begins with zeros. */
    if (memory.sums)
        CT_CUDA(cuda->operation,
                cudaMemsetAsync(memory.sums, 0, ct_tensor_bytes(&args->moments), cuda->stream));
    CT_TRY(ct_cuda_conv_plan_run(&target, f.plan, &f.problem, &memory));
    if (ct_tensor_present(&args->moments))
        return finish_moments(cuda, args, &f, workspace, memory.sums);
    return ct_tensor_present(&args->bias) ? add_bias(cuda, args, &f) : CT_OK;
}

ct_status ct_cuda_conv2d_bwd_data(ct_device *device, const ct_conv2d_bwd_data_args *args)
{
    ct_cuda_device *cuda = ct_cuda(device);
    ct_cuda_conv_problem problem = ct_cuda_conv_problem_of(
        CT_CUDA_CONV_BWD_DATA, &args->dx, &args->w, &args->dy, args->stride, args->pad);
    problem.adds = args->accumulate;
    const ct_cuda_conv_plan *plan;
    void *workspace;
    CT_TRY(plan_of(cuda, &problem, &plan));
    CT_TRY(ct_cuda_workspace(cuda, plan->workspace_bytes, &workspace));
    if (cuda->preparing) return CT_OK;
    const ct_cudnn_target target = target_of(cuda);
    const ct_cuda_conv_memory memory = {
        .x = args->dx.data, .w = args->w.data, .y = args->dy.data, .workspace = workspace};
    return ct_cuda_conv_plan_run(&target, plan, &problem, &memory);
}

/* The workspace: the plan's own, then dw in the compute dtype unless cuDNN accumulates; after both
 * have served, the column sums' from the start. */
ct_status ct_cuda_conv2d_bwd_filter(ct_device *device, const ct_conv2d_bwd_filter_args *args)
{
    ct_cuda_device *cuda = ct_cuda(device);
    ct_cuda_conv_problem problem = ct_cuda_conv_problem_of(
        CT_CUDA_CONV_BWD_FILTER, &args->x, &args->dw, &args->dy, args->stride, args->pad);
    const bool direct = args->x.dtype == CT_F32;
    problem.adds = direct;
    const ct_cuda_conv_plan *plan;
    CT_TRY(plan_of(cuda, &problem, &plan));
    const ct_tensor rows =
        ct_tensor2(args->dy.data, args->dy.dtype, problem.n * problem.ho * problem.wo, problem.co);
    ct_tensor dw = args->dw;
    dw.dtype = args->x.dtype;
    const size_t offset = ct_cuda_aligned(plan->workspace_bytes);
    size_t bytes = direct ? plan->workspace_bytes : offset + ct_tensor_bytes(&dw);
    if (ct_tensor_present(&args->dbias))
        bytes = ct_cuda_larger(
            bytes, ctk_column_sums_workspace(&rows, cuda->properties.multiProcessorCount));
    uint8_t *workspace;
    CT_TRY(ct_cuda_workspace(cuda, bytes, &workspace));
    if (cuda->preparing) return CT_OK;

    const ct_cudnn_target target = target_of(cuda);
    const ctk_launch launch = ct_cuda_launch(cuda, workspace);
    dw.data = direct ? args->dw.data : workspace + offset;
    const ct_cuda_conv_memory memory = {
        .x = args->x.data, .w = dw.data, .y = args->dy.data, .workspace = workspace};
    CT_TRY(ct_cuda_conv_plan_run(&target, plan, &problem, &memory));
    if (!direct) CT_CUDA(cuda->operation, ctk_accumulate(&args->dw, &dw, &launch));
    if (ct_tensor_present(&args->dbias))
        CT_CUDA(cuda->operation, ctk_column_sums(&args->dbias, &rows, &launch));
    return CT_OK;
}
