/* The SIMT device's cuDNN: the part of the graph interface that builds and runs one convolution,
 * with the sums over its result if wanted.
 *
 * Descriptors keep what was set, with the checks of the real library: known attributes, their types
 * and counts, everything needed set before it is finalised, nothing set after, parts finalised
 * before they are used. What a descriptor is made of stays alive with it. A run touches its
 * operands and its workspace only when its turn on the stream comes; it leaves NaN in the
 * workspace. */
#include "cudnn_node.h"
#include "runtime.h"

#include <algorithm>
#include <cstdio>

struct cudnnContext {
    cudaStream_t stream = nullptr;
};

namespace simt
{
namespace
{

/* ---- descriptors -------------------------------------------------------------------------------
 */

/* What cudnnBackendDescriptor_t points to. */
struct Descriptor {
    NodePtr node;
};

constexpr size_t LAST_ERROR_BYTES = 256;
constexpr char DESCRIPTOR[] = "cuDNN descriptor", HANDLE[] = "cuDNN handle";

char *last_error()
{
    static char text[LAST_ERROR_BYTES];
    return text;
}

Descriptor *checked(cudnnBackendDescriptor_t descriptor, const char *call)
{
    object_check(descriptor, DESCRIPTOR, call);
    return static_cast<Descriptor *>(descriptor);
}

size_t type_bytes(cudnnBackendAttributeType_t type)
{
    switch (type) {
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_DOUBLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
        return 8;
    default:
        return 4; /* float and enumerations */
    }
}

/* ---- what may be set ---------------------------------------------------------------------------
 */

struct Rule {
    cudnnBackendDescriptorType_t owner;
    cudnnBackendAttributeName_t name;
    cudnnBackendAttributeType_t type;
    int64_t least, most;
    bool needed;
    cudnnBackendDescriptorType_t part = CUDNN_BACKEND_POINTWISE_DESCRIPTOR; /* when a descriptor */
};

#define OPERATION(owner, prefix, x, w, y)                                                          \
    {owner, prefix##_ALPHA, CUDNN_TYPE_FLOAT, 1, 1, true},                                         \
        {owner, prefix##_BETA, CUDNN_TYPE_FLOAT, 1, 1, true},                                      \
        {owner, prefix##_CONV_DESC, PART, 1, 1, true, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR},       \
        {owner, prefix##_##x, PART, 1, 1, true, CUDNN_BACKEND_TENSOR_DESCRIPTOR},                  \
        {owner, prefix##_##w, PART, 1, 1, true, CUDNN_BACKEND_TENSOR_DESCRIPTOR},                  \
    {                                                                                              \
        owner, prefix##_##y, PART, 1, 1, true, CUDNN_BACKEND_TENSOR_DESCRIPTOR                     \
    }

const std::vector<Rule> &rules()
{
    constexpr auto PART = CUDNN_TYPE_BACKEND_DESCRIPTOR;
    constexpr auto INT = CUDNN_TYPE_INT64;
    constexpr auto TENSOR = CUDNN_BACKEND_TENSOR_DESCRIPTOR;
    constexpr auto CONV = CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR;
    constexpr auto STATS = CUDNN_BACKEND_OPERATION_GEN_STATS_DESCRIPTOR;
    constexpr auto GRAPH = CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR;
    constexpr auto HEUR = CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR;
    constexpr auto ENGINE = CUDNN_BACKEND_ENGINE_DESCRIPTOR;
    constexpr auto KNOB = CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR;
    constexpr auto CONFIG = CUDNN_BACKEND_ENGINECFG_DESCRIPTOR;
    constexpr auto PLAN = CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR;
    constexpr auto PACK = CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR;
    static const std::vector<Rule> list = {
        {TENSOR, CUDNN_ATTR_TENSOR_UNIQUE_ID, INT, 1, 1, true},
        {TENSOR, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1, true},
        {TENSOR, CUDNN_ATTR_TENSOR_DIMENSIONS, INT, 4, 4, true},
        {TENSOR, CUDNN_ATTR_TENSOR_STRIDES, INT, 4, 4, true},
        {TENSOR, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, INT, 1, 1, true},
        {CONV, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1, true},
        {CONV, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, 1, true},
        {CONV, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, INT, 1, 1, true},
        {CONV, CUDNN_ATTR_CONVOLUTION_DILATIONS, INT, 2, 2, true},
        {CONV, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, INT, 2, 2, true},
        {CONV, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, INT, 2, 2, true},
        {CONV, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, INT, 2, 2, true},
        OPERATION(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                  CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD, X, W, Y),
        OPERATION(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                  CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA, DX, W, DY),
        OPERATION(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                  CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER, X, DW, DY),
        {GRAPH, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, 1, true},
        {STATS, CUDNN_ATTR_OPERATION_GENSTATS_MODE, CUDNN_TYPE_GENSTATS_MODE, 1, 1, true},
        {STATS, CUDNN_ATTR_OPERATION_GENSTATS_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, 1, true},
        {STATS, CUDNN_ATTR_OPERATION_GENSTATS_XDESC, PART, 1, 1, true, TENSOR},
        {STATS, CUDNN_ATTR_OPERATION_GENSTATS_SUMDESC, PART, 1, 1, true, TENSOR},
        {STATS, CUDNN_ATTR_OPERATION_GENSTATS_SQSUMDESC, PART, 1, 1, true, TENSOR},
        {GRAPH, CUDNN_ATTR_OPERATIONGRAPH_OPS, PART, 1, 2, true},
        {HEUR, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, PART, 1, 1, true, GRAPH},
        {HEUR, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, 1, true},
        {ENGINE, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, PART, 1, 1, true, GRAPH},
        {ENGINE, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, INT, 1, 1, true},
        {KNOB, CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, 1, true},
        {KNOB, CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, INT, 1, 1, true},
        {CONFIG, CUDNN_ATTR_ENGINECFG_ENGINE, PART, 1, 1, true, ENGINE},
        {CONFIG, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, PART, 1, 64, false, KNOB},
        {PLAN, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, 1, true},
        {PLAN, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, PART, 1, 1, true, CONFIG},
        {PACK, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, INT, 1, 64, true},
        {PACK, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 1, 64, true},
        {PACK, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, 1, false},
    };
    return list;
}

const Rule *rule_of(cudnnBackendDescriptorType_t owner, cudnnBackendAttributeName_t name)
{
    for (const Rule &rule : rules())
        if (rule.owner == owner && rule.name == name) return &rule;
    return nullptr;
}

} // namespace

cudnnStatus_t cudnn_failed(cudnnStatus_t status, const char *text)
{
    snprintf(last_error(), LAST_ERROR_BYTES, "%s", text);
    return status;
}

namespace
{

/* ---- running -----------------------------------------------------------------------------------
 */

/* Where the tensor lies: all of it on the device, and aligned as its descriptor promises. */
void *operand(const Node &pack, const ConvolutionTensor &t, const char *name)
{
    const Attribute &ids = pack.attributes.at(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    for (size_t i = 0; i < (size_t)ids.count; i++) {
        if (pack.get<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, i) != t.id) continue;
        void *data = pack.get<void *>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, i);
        const size_t bytes = (size_t)t.span() * cudnn_element_bytes(t.type);
        if (!is_device_memory(data, bytes))
            fault("cudnnBackendExecute: %s needs %zu bytes of device memory at %p: %s", name, bytes,
                  data, describe_address(data));
        if ((uintptr_t)data % 16)
            fault("cudnnBackendExecute: %s at %p is not 16-byte aligned", name, data);
        return data;
    }
    fault("cudnnBackendExecute: the variant pack has no pointer for %s (id %lld)", name,
          (long long)t.id);
}

bool overlap(const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    const char *p = static_cast<const char *>(a), *q = static_cast<const char *>(b);
    return p < q + b_bytes && q < p + a_bytes;
}

struct Operand {
    void *data;
    size_t bytes;
    bool written;
};

Operand operand_of(const Node &pack, const ConvolutionTensor &t, const char *name, bool written)
{
    return {operand(pack, t, name), (size_t)t.span() * cudnn_element_bytes(t.type), written};
}

cudnnStatus_t execute(cudnnHandle_t handle, const Node &plan, const Node &pack)
{
    const Convolution c = plan.convolution;
    const Operand x = operand_of(pack, c.x, "x", c.direction == Direction::backward_data);
    const Operand w = operand_of(pack, c.w, "w", c.direction == Direction::backward_filter);
    const Operand y = operand_of(pack, c.y, "y", c.direction == Direction::forward);
    Operand sum{}, square_sum{};
    std::vector<Operand> operands = {x, w, y};
    if (c.sums) {
        sum = operand_of(pack, c.sum, "the sums", true);
        square_sum = operand_of(pack, c.square_sum, "the sums of squares", true);
        operands.insert(operands.end(), {sum, square_sum});
    }
    void *workspace = pack.has(CUDNN_ATTR_VARIANT_PACK_WORKSPACE)
                          ? pack.get<void *>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE)
                          : nullptr;
    const size_t workspace_bytes = plan.workspace_bytes;
    if (workspace_bytes && !is_device_memory(workspace, workspace_bytes))
        fault("cudnnBackendExecute: the workspace of %zu bytes at %p: %s", workspace_bytes,
              workspace, describe_address(workspace));
    for (size_t i = 0; i < operands.size(); i++) {
        const Operand &one = operands[i];
        for (size_t j = 0; j < i; j++)
            if ((one.written || operands[j].written) &&
                overlap(one.data, one.bytes, operands[j].data, operands[j].bytes))
                fault("cudnnBackendExecute: an operand overlaps the result");
        if (workspace_bytes && overlap(one.data, one.bytes, workspace, workspace_bytes))
            fault("cudnnBackendExecute: an operand overlaps the workspace");
    }
    const cudaError_t error = enqueue_library_call(handle->stream, "cuDNN convolution", [=] {
        convolve(c, x.data, w.data, y.data, sum.data, square_sum.data);
        if (workspace_bytes) memset(workspace, 0xff, workspace_bytes);
    });
    return error == cudaSuccess
               ? CUDNN_STATUS_SUCCESS
               : cudnn_failed(CUDNN_STATUS_EXECUTION_FAILED, "the call could not be queued");
}

/* ---- attributes --------------------------------------------------------------------------------
 */

cudnnStatus_t set_parts(Attribute &attribute, const Rule &rule, const void *values)
{
    for (int64_t i = 0; i < attribute.count; i++) {
        void *part;
        memcpy(&part, static_cast<const char *>(values) + (size_t)i * sizeof part, sizeof part);
        if (!part) return cudnn_failed(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "a NULL descriptor");
        const NodePtr &node = checked(part, "cudnnBackendSetAttribute")->node;
        if (rule.part != CUDNN_BACKEND_POINTWISE_DESCRIPTOR && node->type != rule.part)
            return cudnn_failed(CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE,
                                "a descriptor of another type is needed");
        if (!node->finalized)
            return cudnn_failed(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED,
                                "the descriptor is not finalised");
        attribute.parts.push_back(node);
    }
    return CUDNN_STATUS_SUCCESS;
}

/* The first `requested` of the nodes, into descriptors that the caller created. */
cudnnStatus_t give_parts(const std::vector<NodePtr> &nodes, int64_t requested, int64_t *count,
                         void *out)
{
    const int64_t given = std::min<int64_t>(requested, (int64_t)nodes.size());
    for (int64_t i = 0; i < given; i++) {
        void *descriptor;
        memcpy(&descriptor, static_cast<char *>(out) + (size_t)i * sizeof descriptor,
               sizeof descriptor);
        Descriptor *target = checked(descriptor, "cudnnBackendGetAttribute");
        if (target->node->type != nodes[(size_t)i]->type)
            return cudnn_failed(CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE,
                                "a descriptor of another type is needed");
        target->node = nodes[(size_t)i];
    }
    if (count) *count = given;
    return CUDNN_STATUS_SUCCESS;
}

template <typename T>
cudnnStatus_t give(const std::vector<T> &values, int64_t requested, int64_t *count, void *out)
{
    const size_t given = std::min((size_t)requested, values.size());
    if (given) memcpy(out, values.data(), given * sizeof(T));
    if (count) *count = (int64_t)given;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t get(const Node &node, cudnnBackendAttributeName_t name,
                  cudnnBackendAttributeType_t type, int64_t requested, int64_t *count, void *out)
{
    if (!node.finalized)
        return cudnn_failed(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED,
                            "the descriptor is not finalised");
    if (node.type == CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR && name == CUDNN_ATTR_ENGINEHEUR_RESULTS &&
        type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
        if (requested) return give_parts(node.results, requested, count, out);
        *count = (int64_t)node.results.size(); /* asked for none, it tells how many there are */
        return CUDNN_STATUS_SUCCESS;
    }
    if (node.type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR &&
        name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE && type == CUDNN_TYPE_INT64)
        return give<int64_t>({(int64_t)node.workspace_bytes}, requested, count, out);
    if (node.type == CUDNN_BACKEND_ENGINE_DESCRIPTOR && name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE &&
        type == CUDNN_TYPE_NUMERICAL_NOTE) {
        const int64_t index = node.get<int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX);
        return give(cudnn_engines()[(size_t)index].notes, requested, count, out);
    }
    if (node.type == CUDNN_BACKEND_ENGINE_DESCRIPTOR && name == CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE &&
        type == CUDNN_TYPE_BEHAVIOR_NOTE) {
        const int64_t index = node.get<int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX);
        std::vector<cudnnBackendBehaviorNote_t> notes;
        if (cudnn_engines()[(size_t)index].compiled)
            notes.push_back(CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION);
        return give(notes, requested, count, out);
    }
    const Rule *rule = rule_of(node.type, name);
    if (!rule) return cudnn_failed(CUDNN_STATUS_BAD_PARAM, "an attribute that is not known here");
    if (rule->type != type)
        return cudnn_failed(CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, "an attribute of another type");
    if (!node.has(name)) return give<int64_t>({}, 0, count, out);
    const Attribute &attribute = node.attributes.at(name);
    if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
        return give_parts(attribute.parts, requested, count, out);
    const int64_t given = std::min(requested, attribute.count);
    memcpy(out, attribute.bytes.data(), (size_t)given * type_bytes(type));
    if (count) *count = given;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t set(Node &node, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                  int64_t count, const void *values)
{
    if (node.finalized)
        return cudnn_failed(CUDNN_STATUS_BAD_PARAM, "the descriptor is finalised already");
    if (!values) return cudnn_failed(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "no values");
    const Rule *rule = rule_of(node.type, name);
    if (!rule) return cudnn_failed(CUDNN_STATUS_BAD_PARAM, "an attribute that is not known here");
    if (rule->type != type)
        return cudnn_failed(CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, "an attribute of another type");
    if (count < rule->least || count > rule->most)
        return cudnn_failed(CUDNN_STATUS_BAD_PARAM_OUT_OF_BOUND, "too few or too many values");
    Attribute attribute;
    attribute.type = type;
    attribute.count = count;
    if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
        const cudnnStatus_t status = set_parts(attribute, *rule, values);
        if (status != CUDNN_STATUS_SUCCESS) return status;
    } else {
        const unsigned char *bytes = static_cast<const unsigned char *>(values);
        attribute.bytes.assign(bytes, bytes + (size_t)count * type_bytes(type));
    }
    if (type == CUDNN_TYPE_HANDLE)
        object_check(*static_cast<const cudnnHandle_t *>(values), HANDLE,
                     "cudnnBackendSetAttribute");
    node.attributes[name] = std::move(attribute);
    return CUDNN_STATUS_SUCCESS;
}

} // namespace
} // namespace simt

/* ---- the interface -----------------------------------------------------------------------------
 */

using namespace simt;

extern "C" {

size_t cudnnGetVersion(void)
{
    return CUDNN_VERSION;
}

const char *cudnnGetErrorString(cudnnStatus_t status)
{
    switch (status) {
#define NAME(value)                                                                                \
    case value:                                                                                    \
        return #value;
        NAME(CUDNN_STATUS_SUCCESS)
        NAME(CUDNN_STATUS_NOT_INITIALIZED)
        NAME(CUDNN_STATUS_BAD_PARAM)
        NAME(CUDNN_STATUS_BAD_PARAM_NULL_POINTER)
        NAME(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED)
        NAME(CUDNN_STATUS_BAD_PARAM_OUT_OF_BOUND)
        NAME(CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH)
        NAME(CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES)
        NAME(CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE)
        NAME(CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE)
        NAME(CUDNN_STATUS_NOT_SUPPORTED)
        NAME(CUDNN_STATUS_NOT_SUPPORTED_SHAPE)
        NAME(CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE)
        NAME(CUDNN_STATUS_NOT_SUPPORTED_PADDING)
        NAME(CUDNN_STATUS_INTERNAL_ERROR)
        NAME(CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED)
        NAME(CUDNN_STATUS_EXECUTION_FAILED)
#undef NAME
    default:
        return "CUDNN_STATUS_UNKNOWN";
    }
}

void cudnnGetLastErrorString(char *message, size_t max_size)
{
    if (message && max_size) snprintf(message, max_size, "%s", last_error());
    last_error()[0] = '\0';
}

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle)
{
    check_not_running("cudnnCreate");
    if (!handle) return cudnn_failed(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "no handle");
    if (injected("library"))
        return cudnn_failed(CUDNN_STATUS_NOT_INITIALIZED, "an injected failure");
    *handle = new cudnnContext;
    object_created(*handle, HANDLE);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle)
{
    check_not_running("cudnnDestroy");
    object_destroyed(handle, HANDLE, "cudnnDestroy");
    delete handle;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream)
{
    check_not_running("cudnnSetStream");
    object_check(handle, HANDLE, "cudnnSetStream");
    if (injected("library"))
        return cudnn_failed(CUDNN_STATUS_INTERNAL_ERROR, "an injected failure");
    handle->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t *out)
{
    check_not_running("cudnnBackendCreateDescriptor");
    if (!out) return cudnn_failed(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "no descriptor");
    if (std::none_of(rules().begin(), rules().end(),
                     [type](const Rule &rule) { return rule.owner == type; }))
        return cudnn_failed(CUDNN_STATUS_NOT_SUPPORTED, "a descriptor that is not known here");
    if (injected("library"))
        return cudnn_failed(CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED,
                            "an injected failure");
    Descriptor *descriptor = new Descriptor{std::make_shared<Node>()};
    descriptor->node->type = type;
    object_created(descriptor, DESCRIPTOR);
    *out = descriptor;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor)
{
    check_not_running("cudnnBackendDestroyDescriptor");
    object_destroyed(descriptor, DESCRIPTOR, "cudnnBackendDestroyDescriptor");
    delete static_cast<Descriptor *>(descriptor);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count,
                                       const void *values)
{
    check_not_running("cudnnBackendSetAttribute");
    return set(*checked(descriptor, "cudnnBackendSetAttribute")->node, name, type, count, values);
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t requested,
                                       int64_t *count, void *out)
{
    check_not_running("cudnnBackendGetAttribute");
    const NodePtr node = checked(descriptor, "cudnnBackendGetAttribute")->node;
    if (requested < 0 || (requested > 0 && !out) || (requested == 0 && !count))
        return cudnn_failed(CUDNN_STATUS_BAD_PARAM, "no room for the values");
    return get(*node, name, type, requested, count, out);
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor)
{
    check_not_running("cudnnBackendFinalize");
    Node &node = *checked(descriptor, "cudnnBackendFinalize")->node;
    if (node.finalized)
        return cudnn_failed(CUDNN_STATUS_BAD_PARAM, "the descriptor is finalised already");
    for (const Rule &rule : rules())
        if (rule.owner == node.type && rule.needed && !node.has(rule.name))
            return cudnn_failed(CUDNN_STATUS_BAD_PARAM, "an attribute is missing");
    if (injected("library"))
        return cudnn_failed(CUDNN_STATUS_INTERNAL_ERROR, "an injected failure");
    const cudnnStatus_t status = cudnn_finalize(node);
    node.finalized = status == CUDNN_STATUS_SUCCESS;
    return status;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t pack)
{
    check_not_running("cudnnBackendExecute");
    object_check(handle, HANDLE, "cudnnBackendExecute");
    const Node &p = *checked(plan, "cudnnBackendExecute")->node;
    const Node &v = *checked(pack, "cudnnBackendExecute")->node;
    if (p.type != CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR ||
        v.type != CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)
        return cudnn_failed(CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE,
                            "a plan and a variant pack are needed");
    if (!p.finalized || !v.finalized)
        return cudnn_failed(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED,
                            "the plan or the variant pack is not finalised");
    if (p.get<cudnnHandle_t>(CUDNN_ATTR_EXECUTION_PLAN_HANDLE) != handle)
        return cudnn_failed(CUDNN_STATUS_BAD_PARAM, "the plan is of another handle");
    return execute(handle, p, v);
}

} /* extern "C" */
