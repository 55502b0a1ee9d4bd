/* Descriptors, configurations and plans of cuDNN's graph interface. */
#include "cuda/cudnn_graph.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "cuda/internal.h"

/* ---- descriptors ---------------------------------------------------------------------------- */

void ct_cudnn_release(ct_cudnn_owner *owner)
{
    while (owner->count) cudnnBackendDestroyDescriptor(owner->items[--owner->count]);
    free(owner->items);
    *owner = (ct_cudnn_owner){0};
}

ct_status ct_cudnn_transfer(ct_cudnn_owner *from, ct_cudnn_owner *to,
                            cudnnBackendDescriptor_t descriptor)
{
    CT_TRY(
        ct_grow(&to->items, &to->capacity, to->count + 1, sizeof *to->items, "cuDNN descriptors"));
    size_t i = 0;
    while (i < from->count && from->items[i] != descriptor) i++;
    assert(i < from->count);
    memmove(from->items + i, from->items + i + 1, (from->count - i - 1) * sizeof *from->items);
    from->count--;
    to->items[to->count++] = descriptor;
    return CT_OK;
}

/* An empty descriptor: to be set, or to be filled by cudnnBackendGetAttribute. */
static ct_status create(ct_cudnn_owner *owner, const char *operation,
                        cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *out)
{
    CT_TRY(ct_grow(&owner->items, &owner->capacity, owner->count + 1, sizeof *owner->items,
                   "cuDNN descriptors"));
    CT_CUDNN(operation, cudnnBackendCreateDescriptor(type, out));
    owner->items[owner->count++] = *out;
    return CT_OK;
}

ct_status ct_cudnn_make(ct_cudnn_owner *owner, const char *operation,
                        cudnnBackendDescriptorType_t type, const ct_cudnn_attribute *attributes,
                        int count, cudnnBackendDescriptor_t *out)
{
    CT_TRY(create(owner, operation, type, out));
    for (int i = 0; i < count; i++)
        CT_CUDNN(operation, cudnnBackendSetAttribute(*out, attributes[i].name, attributes[i].type,
                                                     attributes[i].count, attributes[i].values));
    CT_CUDNN(operation, cudnnBackendFinalize(*out));
    return CT_OK;
}

/* Whether a status only says that this engine, here, cannot do it, or that no engine knows what a
 * file asked for. Everything else (no memory, a broken library, a lost device) is an error. */
static bool unsupported(cudnnStatus_t status)
{
    return CUDNN_STATUS_CATEGORY(status) == CUDNN_STATUS_NOT_SUPPORTED ||
           CUDNN_STATUS_CATEGORY(status) == CUDNN_STATUS_BAD_PARAM ||
           status == CUDNN_STATUS_INTERNAL_ERROR_COMPILATION_FAILED;
}

/* As ct_cudnn_make, but *out is NULL when what it describes is not supported. */
static ct_status make_if_supported(ct_cudnn_owner *owner, const char *operation,
                                   cudnnBackendDescriptorType_t type,
                                   const ct_cudnn_attribute *attributes, int count,
                                   cudnnBackendDescriptor_t *out)
{
    cudnnBackendDescriptor_t descriptor;
    *out = NULL;
    CT_TRY(create(owner, operation, type, &descriptor));
    cudnnStatus_t status = CUDNN_STATUS_SUCCESS;
    for (int i = 0; i < count && status == CUDNN_STATUS_SUCCESS; i++)
        status = cudnnBackendSetAttribute(descriptor, attributes[i].name, attributes[i].type,
                                          attributes[i].count, attributes[i].values);
    if (status == CUDNN_STATUS_SUCCESS) status = cudnnBackendFinalize(descriptor);
    if (status == CUDNN_STATUS_SUCCESS) *out = descriptor;
    else if (!unsupported(status))
        return ct_cudnn_failed(operation, "cudnnBackendFinalize", status, __FILE__, __LINE__);
    return CT_OK;
}

ct_status ct_cudnn_make_properties(ct_cudnn_owner *owner, const char *json,
                                   cudnnBackendDescriptor_t *out)
{
    const ct_cudnn_attribute attribute = {CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                                          CUDNN_TYPE_CHAR, (int64_t)strlen(json) + 1, json};
    return ct_cudnn_make(owner, "device properties", CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR,
                         &attribute, 1, out);
}

ct_status ct_cudnn_make_tensor(ct_cudnn_owner *owner, const char *operation, int64_t id,
                               cudnnDataType_t dtype, const int64_t dim[4],
                               cudnnBackendDescriptor_t *out)
{
    /* cuDNN names dimensions in the order N C H W, whatever the memory's. */
    const int64_t n = dim[0], h = dim[1], w = dim[2], c = dim[3];
    const int64_t dimensions[4] = {n, c, h, w}, strides[4] = {h * w * c, 1, w * c, c};
    const int64_t alignment = 16;
    const ct_cudnn_attribute attributes[] = {
        {CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id},
        {CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &dtype},
        {CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dimensions},
        {CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides},
        {CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment},
    };
    return ct_cudnn_make(owner, operation, CUDNN_BACKEND_TENSOR_DESCRIPTOR, attributes, 5, out);
}

ct_status ct_cudnn_make_graph(ct_cudnn_owner *owner, const ct_cudnn_target *target,
                              const cudnnBackendDescriptor_t *operations, int count,
                              cudnnBackendDescriptor_t *out)
{
    const ct_cudnn_attribute attributes[] = {
        {CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, count, operations},
        {CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &target->handle},
    };
    return ct_cudnn_make(owner, target->operation, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR,
                         attributes, target->handle ? 2 : 1, out);
}

/* ---- configurations --------------------------------------------------------------------------
 */

ct_status ct_cudnn_heuristic(ct_cudnn_owner *owner, const ct_cudnn_target *target,
                             cudnnBackendDescriptor_t graph, cudnnBackendHeurMode_t mode,
                             cudnnBackendDescriptor_t *configs, int capacity, int *count)
{
    *count = 0;
    const ct_cudnn_attribute attributes[] = {
        {CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph},
        {CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode},
        {CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &target->properties},
    };
    cudnnBackendDescriptor_t heuristic;
    CT_TRY(make_if_supported(owner, target->operation, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR,
                             attributes, target->properties ? 3 : 2, &heuristic));
    if (!heuristic) return CT_OK;

    int64_t proposed = 0, got = 0;
    CT_CUDNN(target->operation,
             cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                      CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &proposed, NULL));
    if (proposed > capacity) proposed = capacity;
    if (proposed == 0) return CT_OK;
    for (int64_t i = 0; i < proposed; i++)
        CT_TRY(create(owner, target->operation, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &configs[i]));
    CT_CUDNN(target->operation,
             cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                      CUDNN_TYPE_BACKEND_DESCRIPTOR, proposed, &got, configs));
    *count = (int)(got < proposed ? got : proposed);
    return CT_OK;
}

static ct_status read_notes(const ct_cudnn_target *target, cudnnBackendDescriptor_t engine,
                            ct_cudnn_engine *out)
{
    cudnnBackendNumericalNote_t numerical[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    cudnnBackendBehaviorNote_t behavior[CUDNN_BEHAVIOR_NOTE_TYPE_COUNT];
    int64_t count = 0;
    CT_CUDNN(target->operation,
             cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                      CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT,
                                      &count, numerical));
    out->numerical_notes = 0;
    for (int64_t i = 0; i < count && i < CUDNN_NUMERICAL_NOTE_TYPE_COUNT; i++)
        out->numerical_notes |= 1u << numerical[i];
    count = 0;
    CT_CUDNN(target->operation,
             cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE,
                                      CUDNN_TYPE_BEHAVIOR_NOTE, CUDNN_BEHAVIOR_NOTE_TYPE_COUNT,
                                      &count, behavior));
    out->runtime_compiled = false;
    for (int64_t i = 0; i < count && i < CUDNN_BEHAVIOR_NOTE_TYPE_COUNT; i++)
        if (behavior[i] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION) out->runtime_compiled = true;
    return CT_OK;
}

static ct_status read_knobs(ct_cudnn_owner *owner, const ct_cudnn_target *target,
                            cudnnBackendDescriptor_t config, ct_cudnn_engine *out)
{
    cudnnBackendDescriptor_t choices[CT_CUDNN_MAX_KNOBS];
    int64_t count = 0, one;
    /* Asked for no more than their number, cuDNN says 0: room first, then all at once. */
    for (int i = 0; i < CT_CUDNN_MAX_KNOBS; i++)
        CT_TRY(create(owner, target->operation, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, &choices[i]));
    CT_CUDNN(target->operation, cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
                                                         CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                                         CT_CUDNN_MAX_KNOBS, &count, choices));
    if (count > CT_CUDNN_MAX_KNOBS)
        return ct_fail(CT_ERR_INTERNAL, "cuDNN engine %lld has %lld knobs; room was made for %d",
                       (long long)out->index, (long long)count, CT_CUDNN_MAX_KNOBS);
    out->knob_count = (int)count;
    for (int i = 0; i < out->knob_count; i++) {
        cudnnBackendKnobType_t type;
        CT_CUDNN(target->operation,
                 cudnnBackendGetAttribute(choices[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE,
                                          CUDNN_TYPE_KNOB_TYPE, 1, &one, &type));
        CT_CUDNN(target->operation,
                 cudnnBackendGetAttribute(choices[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE,
                                          CUDNN_TYPE_INT64, 1, &one, &out->knobs[i].value));
        out->knobs[i].type = type;
    }
    return CT_OK;
}

static ct_status read_engine(ct_cudnn_owner *owner, const ct_cudnn_target *target,
                             cudnnBackendDescriptor_t config, ct_cudnn_engine *out)
{
    int64_t one = 0;
    cudnnBackendDescriptor_t engine;
    CT_TRY(create(owner, target->operation, CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine));
    CT_CUDNN(target->operation,
             cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE,
                                      CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &one, &engine));
    CT_CUDNN(target->operation, cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX,
                                                         CUDNN_TYPE_INT64, 1, &one, &out->index));
    CT_TRY(read_notes(target, engine, out));
    return read_knobs(owner, target, config, out);
}

ct_status ct_cudnn_read_engine(const ct_cudnn_target *target, cudnnBackendDescriptor_t config,
                               ct_cudnn_engine *out)
{
    ct_cudnn_owner temporary = {0};
    *out = (ct_cudnn_engine){0};
    const ct_status status = read_engine(&temporary, target, config, out);
    ct_cudnn_release(&temporary);
    return status;
}

ct_status ct_cudnn_make_config(ct_cudnn_owner *owner, const ct_cudnn_target *target,
                               cudnnBackendDescriptor_t graph, const ct_cudnn_engine *engine,
                               cudnnBackendDescriptor_t *out)
{
    assert(engine->knob_count <= CT_CUDNN_MAX_KNOBS);
    *out = NULL;
    cudnnBackendDescriptor_t descriptor, choices[CT_CUDNN_MAX_KNOBS];
    const ct_cudnn_attribute attributes[] = {
        {CUDNN_ATTR_ENGINE_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph},
        {CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &engine->index},
        {CUDNN_ATTR_ENGINE_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &target->properties},
    };
    CT_TRY(make_if_supported(owner, target->operation, CUDNN_BACKEND_ENGINE_DESCRIPTOR, attributes,
                             target->properties ? 3 : 2, &descriptor));
    if (!descriptor) return CT_OK;
    for (int i = 0; i < engine->knob_count; i++) {
        const cudnnBackendKnobType_t type = (cudnnBackendKnobType_t)engine->knobs[i].type;
        const ct_cudnn_attribute knob[] = {
            {CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &type},
            {CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &engine->knobs[i].value},
        };
        CT_TRY(make_if_supported(owner, target->operation, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR,
                                 knob, 2, &choices[i]));
        if (!choices[i]) return CT_OK;
    }
    const ct_cudnn_attribute config[] = {
        {CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &descriptor},
        {CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, engine->knob_count,
         choices},
    };
    return make_if_supported(owner, target->operation, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, config,
                             engine->knob_count ? 2 : 1, out);
}

/* ---- plans ----------------------------------------------------------------------------------- */

ct_status ct_cudnn_make_plan(ct_cudnn_owner *owner, const ct_cudnn_target *target,
                             cudnnBackendDescriptor_t config, cudnnBackendDescriptor_t *out,
                             size_t *workspace_bytes)
{
    *workspace_bytes = 0;
    const ct_cudnn_attribute attributes[] = {
        {CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config},
        target->properties
            ? (ct_cudnn_attribute){CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP,
                                   CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &target->properties}
            : (ct_cudnn_attribute){CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1,
                                   &target->handle},
    };
    CT_TRY(make_if_supported(owner, target->operation, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR,
                             attributes, 2, out));
    if (!*out) return CT_OK;
    int64_t bytes = 0, one = 0;
    CT_CUDNN(target->operation,
             cudnnBackendGetAttribute(*out, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                      CUDNN_TYPE_INT64, 1, &one, &bytes));
    *workspace_bytes = bytes > 0 ? (size_t)bytes : 0;
    return CT_OK;
}

ct_status ct_cudnn_run(const ct_cudnn_target *target, cudnnBackendDescriptor_t plan,
                       const int64_t *ids, void *const *pointers, int count, void *workspace)
{
    ct_cudnn_owner temporary = {0};
    const ct_cudnn_attribute attributes[] = {
        {CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, ids},
        {CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, pointers},
        {CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace},
    };
    cudnnBackendDescriptor_t pack;
    ct_status status = ct_cudnn_make(&temporary, target->operation,
                                     CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, attributes, 3, &pack);
    if (status == CT_OK) {
        const cudnnStatus_t error = cudnnBackendExecute(target->handle, plan, pack);
        if (error != CUDNN_STATUS_SUCCESS)
            status = ct_cudnn_failed(target->operation, "cudnnBackendExecute", error, __FILE__,
                                     __LINE__);
    }
    ct_cudnn_release(&temporary);
    return status;
}
