/* cuDNN's graph ("backend") interface from C: each descriptor is made, set and finalised by one
 * call.
 *
 *   tensors -> operations -> graph -> heuristic -> configurations (engine + knobs) -> plan -> run
 *
 * A plan is made for a target: the GPU behind a handle, or a GPU that is only described, as
 * cuDNN's JSON of device properties. The second kind needs no GPU and cannot run; it answers which
 * plans cuDNN would have (cuDNN 9's "deviceless" compilation).
 *
 * Ownership: descriptors belong to a ct_cudnn_owner and end with it, in reverse order.
 * Source: cuDNN 9 backend API reference, cudnnBackend*. */
#ifndef CT_CUDA_CUDNN_GRAPH_H
#define CT_CUDA_CUDNN_GRAPH_H

#include <cudnn.h>
#include <stdbool.h>

#include "base/status.h"

typedef struct ct_cudnn_owner {
    cudnnBackendDescriptor_t *items;
    size_t count, capacity;
} ct_cudnn_owner;

typedef struct ct_cudnn_target {
    cudnnHandle_t handle;                /* NULL: a described GPU */
    cudnnBackendDescriptor_t properties; /* NULL: the handle's GPU */
    const char *operation;               /* for messages: "conv2d_fwd"; may be NULL */
} ct_cudnn_target;

typedef struct ct_cudnn_attribute {
    cudnnBackendAttributeName_t name;
    cudnnBackendAttributeType_t type;
    int64_t count;
    const void *values;
} ct_cudnn_attribute;

/* What tells one configuration from another, and enough to make it again. */
#define CT_CUDNN_MAX_KNOBS 32
typedef struct ct_cudnn_engine {
    int64_t index; /* CUDNN_ATTR_ENGINE_GLOBAL_INDEX */
    int knob_count;
    struct {
        int64_t type; /* cudnnBackendKnobType_t */
        int64_t value;
    } knobs[CT_CUDNN_MAX_KNOBS];
    uint32_t numerical_notes; /* bit n: has cudnnBackendNumericalNote_t n */
    bool runtime_compiled;    /* CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION */
} ct_cudnn_engine;

void ct_cudnn_release(ct_cudnn_owner *owner);

/* Moves a descriptor of `from` to `to`. */
CT_NODISCARD ct_status ct_cudnn_transfer(ct_cudnn_owner *from, ct_cudnn_owner *to,
                                         cudnnBackendDescriptor_t descriptor);

/* *out = a finalised descriptor of `type` with the attributes, owned by `owner`. */
CT_NODISCARD ct_status ct_cudnn_make(ct_cudnn_owner *owner, const char *operation,
                                     cudnnBackendDescriptorType_t type,
                                     const ct_cudnn_attribute *attributes, int count,
                                     cudnnBackendDescriptor_t *out);

/* *out = the properties of a GPU described by cuDNN's JSON (NUL-terminated). */
CT_NODISCARD ct_status ct_cudnn_make_properties(ct_cudnn_owner *owner, const char *json,
                                                cudnnBackendDescriptor_t *out);

/* *out = a 4-dimensional tensor whose memory is `dim` = (N, H, W, C) row-major; a filter (Co, KH,
 * KW, Ci) is the same with N = Co. 16-byte aligned. */
CT_NODISCARD ct_status ct_cudnn_make_tensor(ct_cudnn_owner *owner, const char *operation,
                                            int64_t id, cudnnDataType_t dtype, const int64_t dim[4],
                                            cudnnBackendDescriptor_t *out);

/* *out = the graph of operations that tensors with equal ids connect. */
CT_NODISCARD ct_status ct_cudnn_make_graph(ct_cudnn_owner *owner, const ct_cudnn_target *target,
                                           const cudnnBackendDescriptor_t *operations, int count,
                                           cudnnBackendDescriptor_t *out);

/* configs[0 .. *count) = what a heuristic proposes, best first, at most `capacity`; none when it
 * does not support the graph. */
CT_NODISCARD ct_status ct_cudnn_heuristic(ct_cudnn_owner *owner, const ct_cudnn_target *target,
                                          cudnnBackendDescriptor_t graph,
                                          cudnnBackendHeurMode_t mode,
                                          cudnnBackendDescriptor_t *configs, int capacity,
                                          int *count);

CT_NODISCARD ct_status ct_cudnn_read_engine(const ct_cudnn_target *target,
                                            cudnnBackendDescriptor_t config, ct_cudnn_engine *out);

/* *out = the configuration with that index and those knobs; NULL when the graph has no such. */
CT_NODISCARD ct_status ct_cudnn_make_config(ct_cudnn_owner *owner, const ct_cudnn_target *target,
                                            cudnnBackendDescriptor_t graph,
                                            const ct_cudnn_engine *engine,
                                            cudnnBackendDescriptor_t *out);

/* *out = the plan of a configuration, *workspace_bytes what a run needs; *out is NULL when the
 * engine turns out not to support it, which is no error. */
CT_NODISCARD ct_status ct_cudnn_make_plan(ct_cudnn_owner *owner, const ct_cudnn_target *target,
                                          cudnnBackendDescriptor_t config,
                                          cudnnBackendDescriptor_t *out, size_t *workspace_bytes);

/* Queues a run on the handle's stream. ids[i] is at pointers[i], i < count. */
CT_NODISCARD ct_status ct_cudnn_run(const ct_cudnn_target *target, cudnnBackendDescriptor_t plan,
                                    const int64_t *ids, void *const *pointers, int count,
                                    void *workspace);

#endif
