#include "cuda/graphs.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"

#define MAX_KEYS 64

typedef struct recording {
    uint64_t key;
    uint64_t last_use;    /* of ct_cuda_graphs.uses */
    cudaGraphExec_t exec; /* NULL: not recorded */
    bool refused;         /* cannot be recorded */
} recording;

struct ct_cuda_graphs {
    uint64_t uses;
    int count;
    bool warned;
    recording recordings[MAX_KEYS];
};

ct_status ct_cuda_graphs_create(struct ct_cuda_graphs **out)
{
    return ct_alloc(1, sizeof **out, "recorded graphs", out);
}

void ct_cuda_graphs_drop(struct ct_cuda_graphs *graphs)
{
    if (!graphs) return;
    for (int i = 0; i < graphs->count; i++)
        if (graphs->recordings[i].exec) (void)cudaGraphExecDestroy(graphs->recordings[i].exec);
    graphs->count = 0;
}

void ct_cuda_graphs_destroy(struct ct_cuda_graphs *graphs)
{
    ct_cuda_graphs_drop(graphs);
    free(graphs);
}

static recording *find(struct ct_cuda_graphs *graphs, uint64_t key)
{
    for (int i = 0; i < graphs->count; i++)
        if (graphs->recordings[i].key == key) return &graphs->recordings[i];
    return NULL;
}

/* Takes the place of the key that has not been used for longest when all are taken. */
static ct_status remember(ct_cuda_device *cuda, uint64_t key)
{
    struct ct_cuda_graphs *graphs = cuda->graphs;
    recording *place = graphs->recordings;
    if (graphs->count < MAX_KEYS) {
        place = &graphs->recordings[graphs->count++];
    } else {
        for (int i = 1; i < MAX_KEYS; i++)
            if (graphs->recordings[i].last_use < place->last_use) place = &graphs->recordings[i];
        if (place->exec) { /* it may still be running */
            CT_CUDA("replay", cudaStreamSynchronize(cuda->stream));
            CT_CUDA("replay", cudaGraphExecDestroy(place->exec));
        }
    }
    *place = (recording){.key = key, .last_use = ++graphs->uses};
    return CT_OK;
}

/* What recording forbids, or lacks memory for: the run itself may be sound. */
static bool refuses(cudaError_t error)
{
    switch ((int)error) {
    case cudaErrorStreamCaptureUnsupported:
    case cudaErrorStreamCaptureInvalidated:
    case cudaErrorStreamCaptureIsolation:
    case cudaErrorStreamCaptureImplicit:
    case cudaErrorMemoryAllocation:
        return true;
    default:
        return false;
    }
}

/* Other ranks record the same step; a collective that is recorded there and not here never ends. */
static ct_status refuse(ct_cuda_device *cuda, recording *r, const char *why)
{
    (void)cudaGetLastError();
    if (cuda->shared)
        return ct_fail(CT_ERR_DEVICE,
                       "a step cannot be recorded as a CUDA graph, which all ranks must do alike "
                       "(cuda.graphs: false does without): %s",
                       why);
    r->refused = true;
    if (!cuda->graphs->warned)
        ct_log(CT_LOG_WARNING, "a step cannot be recorded as a CUDA graph and runs without: %s",
               why);
    cuda->graphs->warned = true;
    return CT_OK;
}

/* r->exec = the recorded run, or r->refused is set. Nothing of it has been carried out then. */
static ct_status record(ct_cuda_device *cuda, recording *r, ct_status (*body)(void *context),
                        void *context)
{
    /* Calls that would wait or allocate are refused in this thread; other threads may do so. */
    CT_CUDA("replay", cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal));
    const ct_status status = body(context);
    cudaGraph_t graph = NULL;
    const cudaError_t ended = cudaStreamEndCapture(cuda->stream, &graph);
    if (status != CT_OK || ended != cudaSuccess) {
        if (graph) (void)cudaGraphDestroy(graph);
        if (refuses(ended)) {
            char why[1024];
            snprintf(why, sizeof why, "%s",
                     status == CT_OK ? cudaGetErrorString(ended) : ct_error_message());
            return refuse(cuda, r, why);
        }
        if (status != CT_OK) return status;
        return ct_cuda_failed("replay", "cudaStreamEndCapture", ended, __FILE__, __LINE__);
    }
    const cudaError_t made = cudaGraphInstantiate(&r->exec, graph, 0);
    (void)cudaGraphDestroy(graph);
    if (made == cudaSuccess) return CT_OK;
    r->exec = NULL;
    if (!refuses(made))
        return ct_cuda_failed("replay", "cudaGraphInstantiate", made, __FILE__, __LINE__);
    return refuse(cuda, r, cudaGetErrorString(made));
}

ct_status ct_cuda_replay(ct_device *device, uint64_t key, ct_status (*body)(void *context),
                         void *context)
{
    ct_cuda_device *cuda = ct_cuda(device);
    CT_TRY(ct_cuda_check_job(cuda));
    if (!cuda->options.graphs) return body(context);
    recording *r = find(cuda->graphs, key);
    if (!r) {
        /* Only then remembered: the run may move the workspace, which forgets all keys. */
        CT_TRY(body(context));
        return remember(cuda, key);
    }
    r->last_use = ++cuda->graphs->uses;
    if (!r->exec && !r->refused) CT_TRY(record(cuda, r, body, context));
    if (r->refused) return body(context);
    CT_CUDA("replay", cudaGraphLaunch(r->exec, cuda->stream));
    return CT_OK;
}
