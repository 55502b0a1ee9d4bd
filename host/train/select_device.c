#include "train/select_device.h"

#include "base/log.h"
#include "cpu/cpu.h"
#include "cuda/cuda.h"

static ct_status open_cpu(const ct_config *config, int threads, ct_device **out)
{
    if (config->precision != CT_PRECISION_AUTO && config->precision != CT_PRECISION_F32)
        return ct_fail(CT_ERR_UNSUPPORTED, "precision: the cpu device computes in f32 only; use "
                                           "precision: f32 or auto");
    return ct_cpu_device_create(threads, out);
}

/* By ct_precision; auto is settled before. */
static const struct {
    const char *name;
    ct_cuda_precision precision;
} gpu_precisions[] = {[CT_PRECISION_F32] = {"f32", CT_CUDA_F32},
                      [CT_PRECISION_TF32] = {"tf32", CT_CUDA_TF32},
                      [CT_PRECISION_BF16] = {"bf16", CT_CUDA_BF16},
                      [CT_PRECISION_F16] = {"fp16", CT_CUDA_F16}};

static ct_status open_gpu(const ct_config *config, int gpu, ct_device **out)
{
    ct_precision precision = config->precision;
    if (precision == CT_PRECISION_AUTO)
        precision = ct_cuda_supports_bf16(gpu) ? CT_PRECISION_BF16 : CT_PRECISION_F32;
    const ct_cuda_options options = {.gpu = gpu,
                                     .precision = gpu_precisions[precision].precision,
                                     .deterministic = config->cuda.deterministic,
                                     .graphs = config->cuda.graphs,
                                     .fused_statistics = config->cuda.fused_statistics,
                                     .autotune = config->cuda.autotune,
                                     .plan_cache = config->cuda.plan_cache};
    if (options.fused_statistics && precision == CT_PRECISION_F32)
        ct_log(CT_LOG_WARNING, "cuda.fused_statistics has no effect in f32");
    else if (options.fused_statistics && options.deterministic && precision != CT_PRECISION_F16)
        ct_log(CT_LOG_WARNING,
               "cuda.fused_statistics has no effect in %s while cuda.deterministic is on: cuDNN's "
               "kernels for it add in any order",
               gpu_precisions[precision].name);
    CT_TRY(ct_cuda_device_create(&options, out));
    ct_log(CT_LOG_INFO, "GPU %d: %s, computing in %s", gpu, ct_cuda_device_name(*out),
           gpu_precisions[precision].name);
    return CT_OK;
}

ct_status ct_device_check(const ct_config *config, const ct_device_wish *wish)
{
    const char *why = "";
    if (wish->gpu && config->device == CT_DEVICE_CPU)
        return ct_fail(CT_ERR_ARGUMENT, "--gpus contradicts device: cpu; leave one of them out");
    const int count = ct_cuda_count(&why);
    if (wish->gpu && count == 0) return ct_fail(CT_ERR_UNSUPPORTED, "--gpus: %s", why);
    if (count > 0 && wish->ordinal >= count)
        return ct_fail(CT_ERR_UNSUPPORTED, "GPU %d was asked for, but this process sees %d, from 0",
                       wish->ordinal, count);
    return CT_OK;
}

ct_status ct_device_select(const ct_config *config, const ct_device_wish *wish, ct_device **out,
                           int *threads)
{
    static const ct_device_wish nothing = {.sharing = 1};
    if (!wish) wish = &nothing;
    const int share = ct_cpu_count() / wish->sharing;
    *threads = config->threads > 0 ? (int)config->threads : share > 1 ? share : 1;
    if (config->device == CT_DEVICE_CPU && !wish->gpu) return open_cpu(config, *threads, out);
    const char *why = "";
    CT_TRY(ct_device_check(config, wish));
    if (ct_cuda_count(&why) > 0) return open_gpu(config, wish->ordinal, out);
    if (config->device == CT_DEVICE_CUDA)
        return ct_fail(CT_ERR_UNSUPPORTED, "device: cuda: %s; use device: cpu or auto", why);
    ct_log(CT_LOG_INFO, "computing on the processor: %s", why);
    return open_cpu(config, *threads, out);
}
