/* Each plan runs once to load its kernels and then a few times between two events; the shortest run
 * counts, because whatever disturbs a run only makes it longer. */
#include "cuda/conv_tune.h"

enum { TIMED_RUNS = 5 };

typedef struct bench {
    ct_cuda_device *cuda;
    cudaEvent_t start, stop;
    uint8_t *block;
    const ct_cuda_conv_problem *problem;
    ct_cuda_conv_memory memory; /* within the block */
} bench;

/* One block for the operands and the largest workspace. All operands hold small numbers: zeros
 * would let the chip clock higher than training does. */
static ct_status bench_open(bench *b, size_t workspace_bytes)
{
    const ct_cuda_conv_problem *p = b->problem;
    const size_t element = ct_dtype_bytes((ct_dtype)p->dtype);
    const size_t x = ct_cuda_aligned((size_t)(p->n * p->h * p->w * p->ci) * element);
    const size_t w = ct_cuda_aligned((size_t)(p->co * p->kh * p->kw * p->ci) * element);
    const size_t y = ct_cuda_aligned((size_t)(p->n * p->ho * p->wo * p->co) * element);
    const size_t sums = p->sums ? ct_cuda_aligned(2 * (size_t)p->co * sizeof(float)) : 0;
    const char *operation = b->cuda->operation;
    CT_CUDA(operation, cudaMalloc((void **)&b->block, x + w + y + sums + workspace_bytes));
    b->memory =
        (ct_cuda_conv_memory){.x = b->block,
                              .w = b->block + x,
                              .y = b->block + x + w,
                              .sums = sums ? (float *)(b->block + x + w + y) : NULL,
                              .workspace = workspace_bytes ? b->block + x + w + y + sums : NULL};
    /* 0x3c3c is 0.011 in bf16 and 1.06 in f16. */
    CT_CUDA(operation, cudaMemsetAsync(b->block, 0x3c, x + w + y + sums, b->cuda->stream));
    CT_CUDA(operation, cudaEventCreate(&b->start));
    CT_CUDA(operation, cudaEventCreate(&b->stop));
    return CT_OK;
}

/* After a failure, which was reported by the call that failed, runs may still be queued. */
static void bench_close(bench *b, bool failed)
{
    if (failed) (void)cudaStreamSynchronize(b->cuda->stream);
    if (b->start) (void)cudaEventDestroy(b->start);
    if (b->stop) (void)cudaEventDestroy(b->stop);
    if (b->block) (void)cudaFree(b->block);
}

static ct_status time_plan(bench *b, const ct_cudnn_target *target, const ct_cuda_conv_plan *plan,
                           float *shortest_ms)
{
    const char *operation = b->cuda->operation;
    *shortest_ms = 0.0f;
    CT_TRY(ct_cuda_conv_plan_run(target, plan, b->problem, &b->memory));
    for (int run = 0; run < TIMED_RUNS; run++) {
        float ms;
        CT_CUDA(operation, cudaEventRecord(b->start, b->cuda->stream));
        CT_TRY(ct_cuda_conv_plan_run(target, plan, b->problem, &b->memory));
        CT_CUDA(operation, cudaEventRecord(b->stop, b->cuda->stream));
        CT_CUDA(operation, cudaEventSynchronize(b->stop));
        CT_CUDA(operation, cudaEventElapsedTime(&ms, b->start, b->stop));
        if (run == 0 || ms < *shortest_ms) *shortest_ms = ms;
    }
    return CT_OK;
}

ct_status ct_cuda_conv_tune(ct_cuda_device *cuda, const ct_cudnn_target *target,
                            const ct_cuda_conv_problem *problem, const ct_cuda_conv_plan *plans,
                            int count, int *best)
{
    size_t workspace_bytes = 0;
    for (int i = 0; i < count; i++)
        if (plans[i].workspace_bytes > workspace_bytes) workspace_bytes = plans[i].workspace_bytes;
    bench b = {.cuda = cuda, .problem = problem};
    float best_ms = 0.0f, ms;
    *best = 0;
    ct_status status = bench_open(&b, workspace_bytes);
    for (int i = 0; i < count && status == CT_OK; i++) {
        status = time_plan(&b, target, &plans[i], &ms);
        if (status == CT_OK && (i == 0 || ms < best_ms)) {
            best_ms = ms;
            *best = i;
        }
    }
    bench_close(&b, status != CT_OK);
    return status;
}
