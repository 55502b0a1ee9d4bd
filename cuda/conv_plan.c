/* Convolutions as cuDNN operation graphs, and the choice of an engine. */
#include "cuda/conv_plan.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "op.h"

enum { X_ID = 1, W_ID = 2, Y_ID = 3, SUM_ID = 4, SQUARE_SUM_ID = 5 };
enum { MAX_CONFIGS = 128 };

/* ---- the problem ---------------------------------------------------------------------------- */

ct_cuda_conv_problem ct_cuda_conv_problem_of(ct_cuda_conv_direction direction, const ct_tensor *x,
                                             const ct_tensor *w, const ct_tensor *y, int stride,
                                             int pad)
{
    ct_cuda_conv_problem p = {.direction = direction,
                              .dtype = x->dtype,
                              .n = x->dim[0],
                              .h = x->dim[1],
                              .w = x->dim[2],
                              .ci = x->dim[3],
                              .ho = y->dim[1],
                              .wo = y->dim[2],
                              .co = w->dim[0],
                              .kh = w->dim[1],
                              .kw = w->dim[2],
                              .stride_h = stride,
                              .stride_w = stride,
                              .pad = pad};
    assert(w->dim[3] == p.ci && y->dim[0] == p.n && y->dim[3] == p.co);
    assert(p.ho == (p.h + 2 * pad - p.kh) / stride + 1);
    assert(p.wo == (p.w + 2 * pad - p.kw) / stride + 1);
    if (pad == 0 && p.kw > 1 && p.kw == stride && p.w == p.wo * p.kw) {
        p.ci *= p.kw;
        p.w = p.wo;
        p.kw = p.stride_w = 1;
    }
    return p;
}

const char *ct_cuda_conv_operation(const ct_cuda_conv_problem *problem)
{
    static const char *const names[] = {"conv2d_fwd", "conv2d_bwd_data", "conv2d_bwd_filter"};
    return names[problem->direction];
}

void ct_cuda_conv_describe(const ct_cuda_conv_problem *problem, char text[CT_CUDA_CONV_TEXT])
{
    const ct_cuda_conv_problem *p = problem;
    snprintf(text, CT_CUDA_CONV_TEXT,
             "%s %s x %lldx%lldx%lldx%lld w %lldx%lldx%lldx%lld y %lldx%lldx%lldx%lld "
             "stride %lldx%lld pad %lld%s%s%s%s",
             ct_cuda_conv_operation(p), ct_dtype_name((ct_dtype)p->dtype), (long long)p->n,
             (long long)p->h, (long long)p->w, (long long)p->ci, (long long)p->co, (long long)p->kh,
             (long long)p->kw, (long long)p->ci, (long long)p->n, (long long)p->ho,
             (long long)p->wo, (long long)p->co, (long long)p->stride_h, (long long)p->stride_w,
             (long long)p->pad, p->tf32 ? " tf32" : "", p->deterministic ? " deterministic" : "",
             p->adds ? " adds" : "", p->sums ? " sums" : "");
}

size_t ct_cuda_conv_workspace_limit(const ct_cuda_conv_problem *problem)
{
    const ct_cuda_conv_problem *p = problem;
    const int64_t x = p->n * p->h * p->w * p->ci, y = p->n * p->ho * p->wo * p->co;
    const int64_t w = p->co * p->kh * p->kw * p->ci;
    int64_t largest = x > y ? x : y;
    if (w > largest) largest = w;
    const size_t twice = 2 * (size_t)largest * ct_dtype_bytes((ct_dtype)p->dtype);
    const size_t least = (size_t)256 << 20;
    return twice > least ? twice : least;
}

static uint32_t note(cudnnBackendNumericalNote_t note)
{
    return 1u << note;
}

/* op.h promises sums in f32: no engine that adds in a narrower type, or trades accuracy for fewer
 * products (Winograd, FFT). f32 that must stay f32 excludes tensor cores too, whose f32 is TF32. */
static bool allowed(const ct_cuda_conv_problem *problem, const ct_cudnn_engine *engine)
{
    uint32_t excluded = note(CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION) |
                        note(CUDNN_NUMERICAL_NOTE_FFT) | note(CUDNN_NUMERICAL_NOTE_WINOGRAD) |
                        note(CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4) |
                        note(CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6) |
                        note(CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13);
    if (problem->deterministic) excluded |= note(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC);
    /* cuDNN 9.19 does not note it, but what it compiles for sums adds by atomics (RED.ADD.F32 in
     * its code for sm_80, sm_90 and sm_100), in any order. */
    if (problem->deterministic && problem->sums && engine->runtime_compiled) return false;
    if (problem->dtype == CT_F32 && !problem->tf32)
        excluded |=
            note(CUDNN_NUMERICAL_NOTE_TENSOR_CORE) | note(CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS);
    return (engine->numerical_notes & excluded) == 0;
}

/* ---- its graph ------------------------------------------------------------------------------ */

static cudnnDataType_t cudnn_dtype(int64_t dtype)
{
    switch ((ct_dtype)dtype) {
    case CT_BF16:
        return CUDNN_DATA_BFLOAT16;
    case CT_F16:
        return CUDNN_DATA_HALF;
    default:
        return CUDNN_DATA_FLOAT;
    }
}

static ct_status make_convolution(ct_cudnn_owner *owner, const ct_cudnn_target *target,
                                  const ct_cuda_conv_problem *problem,
                                  cudnnBackendDescriptor_t *out)
{
    const cudnnDataType_t compute = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t dimensions = 2, dilation[2] = {1, 1};
    const int64_t pad[2] = {problem->pad, problem->pad};
    const int64_t stride[2] = {problem->stride_h, problem->stride_w};
    const ct_cudnn_attribute attributes[] = {
        {CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute},
        {CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode},
        {CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &dimensions},
        {CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilation},
        {CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, stride},
        {CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, pad},
        {CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, pad},
    };
    return ct_cudnn_make(owner, target->operation, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, attributes,
                         7, out);
}

/* cuDNN has the same six attributes three times. */
static const struct {
    cudnnBackendDescriptorType_t type;
    cudnnBackendAttributeName_t convolution, x, w, y, alpha, beta;
} operations[] = {
    [CT_CUDA_CONV_FWD] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
    [CT_CUDA_CONV_BWD_DATA] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                               CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                               CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                               CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                               CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                               CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                               CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
    [CT_CUDA_CONV_BWD_FILTER] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA},
};

/* The sums of y's values and of their squares, a channel each. */
static ct_status make_sums(ct_cudnn_owner *owner, const ct_cudnn_target *target,
                           const ct_cuda_conv_problem *problem, cudnnBackendDescriptor_t y,
                           cudnnBackendDescriptor_t *out)
{
    const cudnnDataType_t compute = CUDNN_DATA_FLOAT;
    const cudnnGenStatsMode_t mode = CUDNN_GENSTATS_SUM_SQSUM;
    const int64_t channels[] = {1, 1, 1, problem->co};
    cudnnBackendDescriptor_t sum, square_sum;
    CT_TRY(ct_cudnn_make_tensor(owner, target->operation, SUM_ID, compute, channels, &sum));
    CT_TRY(ct_cudnn_make_tensor(owner, target->operation, SQUARE_SUM_ID, compute, channels,
                                &square_sum));
    const ct_cudnn_attribute attributes[] = {
        {CUDNN_ATTR_OPERATION_GENSTATS_MODE, CUDNN_TYPE_GENSTATS_MODE, 1, &mode},
        {CUDNN_ATTR_OPERATION_GENSTATS_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &compute},
        {CUDNN_ATTR_OPERATION_GENSTATS_XDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &y},
        {CUDNN_ATTR_OPERATION_GENSTATS_SUMDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &sum},
        {CUDNN_ATTR_OPERATION_GENSTATS_SQSUMDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &square_sum},
    };
    return ct_cudnn_make(owner, target->operation, CUDNN_BACKEND_OPERATION_GEN_STATS_DESCRIPTOR,
                         attributes, 5, out);
}

static ct_status make_graph(ct_cudnn_owner *owner, const ct_cudnn_target *target,
                            const ct_cuda_conv_problem *problem, cudnnBackendDescriptor_t *out)
{
    const ct_cuda_conv_problem *p = problem;
    const cudnnDataType_t dtype = cudnn_dtype(p->dtype);
    const float alpha = 1.0f, beta = p->adds ? 1.0f : 0.0f;
    cudnnBackendDescriptor_t convolution, x, w, y, steps[2];
    CT_TRY(make_convolution(owner, target, p, &convolution));
    CT_TRY(ct_cudnn_make_tensor(owner, target->operation, X_ID, dtype,
                                (int64_t[]){p->n, p->h, p->w, p->ci}, &x));
    CT_TRY(ct_cudnn_make_tensor(owner, target->operation, W_ID, dtype,
                                (int64_t[]){p->co, p->kh, p->kw, p->ci}, &w));
    CT_TRY(ct_cudnn_make_tensor(owner, target->operation, Y_ID, dtype,
                                (int64_t[]){p->n, p->ho, p->wo, p->co}, &y));
    const ct_cudnn_attribute attributes[] = {
        {operations[p->direction].convolution, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &convolution},
        {operations[p->direction].x, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &x},
        {operations[p->direction].w, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &w},
        {operations[p->direction].y, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &y},
        {operations[p->direction].alpha, CUDNN_TYPE_FLOAT, 1, &alpha},
        {operations[p->direction].beta, CUDNN_TYPE_FLOAT, 1, &beta},
    };
    CT_TRY(ct_cudnn_make(owner, target->operation, operations[p->direction].type, attributes, 6,
                         &steps[0]));
    if (p->sums) CT_TRY(make_sums(owner, target, p, y, &steps[1]));
    return ct_cudnn_make_graph(owner, target, steps, p->sums ? 2 : 1, out);
}

/* ---- plans ---------------------------------------------------------------------------------- */

void ct_cuda_conv_plan_release(ct_cuda_conv_plan *plan)
{
    ct_cudnn_release(&plan->owner);
    *plan = (ct_cuda_conv_plan){0};
}

/* The choice in progress. */
typedef struct selection {
    const ct_cudnn_target *target;
    const ct_cuda_conv_problem *problem;
    size_t limit;
    ct_cuda_conv_plan *plans;
    int capacity, count;
    ct_cuda_conv_plan least; /* of those beyond the limit; its plan is NULL: none yet */
} selection;

/* A plan takes its configuration out of `owner`: cuDNN does not say that it keeps what it needs of
 * it. */
static ct_status consider(selection *s, ct_cudnn_owner *owner, cudnnBackendDescriptor_t config)
{
    ct_cuda_conv_plan plan = {0};
    CT_TRY(ct_cudnn_read_engine(s->target, config, &plan.engine));
    if (!allowed(s->problem, &plan.engine)) return CT_OK;
    ct_status status = ct_cudnn_transfer(owner, &plan.owner, config);
    if (status == CT_OK)
        status =
            ct_cudnn_make_plan(&plan.owner, s->target, config, &plan.plan, &plan.workspace_bytes);
    if (status == CT_OK && plan.plan) {
        if (plan.workspace_bytes <= s->limit) {
            s->plans[s->count++] = plan;
            return CT_OK;
        }
        if (!s->least.plan || plan.workspace_bytes < s->least.workspace_bytes) {
            ct_cuda_conv_plan_release(&s->least);
            s->least = plan;
            return CT_OK;
        }
    }
    ct_cuda_conv_plan_release(&plan);
    return status;
}

static ct_status consider_all(selection *s, ct_cudnn_owner *owner)
{
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_B,
                                                   CUDNN_HEUR_MODE_FALLBACK};
    cudnnBackendDescriptor_t graph, configs[MAX_CONFIGS];
    CT_TRY(make_graph(owner, s->target, s->problem, &graph));
    for (size_t m = 0; m < sizeof modes / sizeof *modes && s->count == 0; m++) {
        int proposed;
        CT_TRY(
            ct_cudnn_heuristic(owner, s->target, graph, modes[m], configs, MAX_CONFIGS, &proposed));
        for (int i = 0; i < proposed && s->count < s->capacity; i++)
            CT_TRY(consider(s, owner, configs[i]));
    }
    return CT_OK;
}

ct_status ct_cuda_conv_plans(const ct_cudnn_target *target, const ct_cuda_conv_problem *problem,
                             ct_cuda_conv_plan *plans, int capacity, int *count)
{
    selection s = {.target = target,
                   .problem = problem,
                   .limit = ct_cuda_conv_workspace_limit(problem),
                   .plans = plans,
                   .capacity = capacity};
    ct_cudnn_owner owner = {0};
    ct_status status = consider_all(&s, &owner);
    ct_cudnn_release(&owner);
    if (status == CT_OK && s.count == 0 && s.least.plan) {
        plans[s.count++] = s.least;
        s.least = (ct_cuda_conv_plan){0};
    }
    ct_cuda_conv_plan_release(&s.least);
    *count = s.count;
    if (status == CT_OK && s.count == 0) {
        char text[CT_CUDA_CONV_TEXT];
        ct_cuda_conv_describe(problem, text);
        status = ct_fail(CT_ERR_UNSUPPORTED, "cuDNN %zu has no plan for %s on this GPU",
                         cudnnGetVersion(), text);
    }
    while (status != CT_OK && *count) ct_cuda_conv_plan_release(&plans[--*count]);
    return status;
}

ct_status ct_cuda_conv_plan_of(const ct_cudnn_target *target, const ct_cuda_conv_problem *problem,
                               const ct_cudnn_engine *engine, ct_cuda_conv_plan *plan)
{
    cudnnBackendDescriptor_t graph, config;
    *plan = (ct_cuda_conv_plan){0};
    ct_cudnn_owner *owner = &plan->owner;
    ct_status status;
    CT_TRY_GOTO(status, make_graph(owner, target, problem, &graph), done);
    CT_TRY_GOTO(status, ct_cudnn_make_config(owner, target, graph, engine, &config), done);
    if (!config) goto done;
    CT_TRY_GOTO(status, ct_cudnn_read_engine(target, config, &plan->engine), done);
    if (!allowed(problem, &plan->engine)) goto done;
    status = ct_cudnn_make_plan(owner, target, config, &plan->plan, &plan->workspace_bytes);
done:
    if (status != CT_OK || !plan->plan) ct_cuda_conv_plan_release(plan);
    return status;
}

ct_status ct_cuda_conv_plan_run(const ct_cudnn_target *target, const ct_cuda_conv_plan *plan,
                                const ct_cuda_conv_problem *problem,
                                const ct_cuda_conv_memory *memory)
{
    static const int64_t ids[] = {X_ID, W_ID, Y_ID, SUM_ID, SQUARE_SUM_ID};
    void *const pointers[] = {memory->x, memory->w, memory->y, memory->sums,
                              problem->sums ? memory->sums + problem->co : NULL};
    return ct_cudnn_run(target, plan->plan, ids, pointers, problem->sums ? 5 : 3,
                        memory->workspace);
}
