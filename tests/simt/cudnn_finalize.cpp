/* Engines, heuristics, and what finalising a descriptor of the SIMT device's cuDNN checks. Engines
 * are few, and each is there for what a program may do wrong with it; heuristics propose the
 * tempting ones first. */
#include "cudnn_node.h"

namespace simt
{

const std::vector<Engine> &cudnn_engines()
{
    constexpr auto tensor = CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
    static const std::vector<Engine> list = {
        {{}, Arithmetic::exact, 0, 0, true},
        {{}, Arithmetic::exact, 32768, 2, true},
        {{tensor}, Arithmetic::tensor_core, 65536, 4, true},
        {{tensor, CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC}, Arithmetic::nondeterministic, 0, 0, true},
        {{tensor, CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION},
         Arithmetic::reduced,
         0,
         2,
         true},
        {{CUDNN_NUMERICAL_NOTE_WINOGRAD}, Arithmetic::reduced, 4096, 0, true},
        {{tensor}, Arithmetic::tensor_core, (size_t)1 << 42, 0, true}, /* more than any GPU has */
        {{}, Arithmetic::exact, 0, 0, false},
        /* As the real one: its sums are added to what is there, in any order, which it does not
         * note. */
        {{tensor}, Arithmetic::atomic_sums, 0, 0, true, true},
    };
    return list;
}

namespace
{

struct Proposal {
    int64_t engine, tile;
};

/* For sums over the result there are ready kernels in f16 only. */
std::vector<Proposal> proposals(const Convolution &c, cudnnBackendHeurMode_t mode)
{
    if (c.sums && c.y.type != CUDNN_DATA_HALF) return {{8, 0}};
    if (c.sums) return {{8, 0}, {2, 1}, {0, 0}};
    if (mode == CUDNN_HEUR_MODE_FALLBACK) return {{0, 0}};
    return {{7, 0}, {6, 0}, {4, 1}, {5, 0}, {3, 0}, {2, 3}, {2, 0}, {1, 1}, {0, 0}};
}

cudnnStatus_t finalize_tensor(Node &node)
{
    ConvolutionTensor &t = node.convolution.x;
    t.id = node.get<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID);
    t.type = node.get<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE);
    const int64_t alignment = node.get<int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT);
    for (size_t d = 0; d < 4; d++) {
        t.dim[d] = node.get<int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS, d);
        t.stride[d] = node.get<int64_t>(CUDNN_ATTR_TENSOR_STRIDES, d);
        if (t.dim[d] < 1 || t.stride[d] < 1)
            return cudnn_failed(CUDNN_STATUS_BAD_PARAM, "dimensions and strides must be positive");
    }
    if (alignment < 1 || (alignment & (alignment - 1)))
        return cudnn_failed(CUDNN_STATUS_BAD_PARAM, "the alignment must be a power of two");
    if (!cudnn_element_bytes(t.type))
        return cudnn_failed(CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE,
                            "only f32, bf16 and f16 are known here");
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t finalize_convolution(Node &node)
{
    Convolution &c = node.convolution;
    for (size_t d = 0; d < 2; d++) {
        c.stride[d] = node.get<int64_t>(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, d);
        c.pad[d] = node.get<int64_t>(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, d);
        c.dilation[d] = node.get<int64_t>(CUDNN_ATTR_CONVOLUTION_DILATIONS, d);
        if (c.stride[d] < 1 || c.dilation[d] < 1 || c.pad[d] < 0)
            return cudnn_failed(CUDNN_STATUS_BAD_PARAM,
                                "strides, dilations and paddings out of range");
        if (c.pad[d] != node.get<int64_t>(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, d))
            return cudnn_failed(CUDNN_STATUS_NOT_SUPPORTED_PADDING,
                                "paddings must be symmetric here");
    }
    if (node.get<int64_t>(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS) != 2 ||
        node.get<cudnnDataType_t>(CUDNN_ATTR_CONVOLUTION_COMP_TYPE) != CUDNN_DATA_FLOAT ||
        node.get<cudnnConvolutionMode_t>(CUDNN_ATTR_CONVOLUTION_CONV_MODE) !=
            CUDNN_CROSS_CORRELATION)
        return cudnn_failed(CUDNN_STATUS_NOT_SUPPORTED,
                            "only two-dimensional cross-correlation with f32 sums is known here");
    return CUDNN_STATUS_SUCCESS;
}

/* The attributes of the three operations follow each other in the same order. */
cudnnStatus_t finalize_operation(Node &node, Direction direction, int alpha, int convolution, int x,
                                 int w, int y)
{
    const auto name = [](int value) { return (cudnnBackendAttributeName_t)value; };
    node.convolution = node.part(name(convolution))->convolution;
    Convolution &c = node.convolution;
    c.direction = direction;
    c.x = node.part(name(x))->convolution.x;
    c.w = node.part(name(w))->convolution.x;
    c.y = node.part(name(y))->convolution.x;
    c.alpha = node.get<float>(name(alpha));
    c.beta = node.get<float>(name(alpha + 1));
    if (c.x.id == c.w.id || c.x.id == c.y.id || c.w.id == c.y.id)
        return cudnn_failed(CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES, "tensors share an id");
    bool fits = c.x.dim[0] == c.y.dim[0] && c.x.dim[1] == c.w.dim[1] && c.w.dim[0] == c.y.dim[1];
    for (int d = 0; d < 2; d++) {
        const int64_t window = (c.w.dim[2 + d] - 1) * c.dilation[d] + 1;
        const int64_t room = c.x.dim[2 + d] + 2 * c.pad[d] - window;
        fits = fits && room >= 0 && c.y.dim[2 + d] == room / c.stride[d] + 1;
    }
    return fits ? CUDNN_STATUS_SUCCESS
                : cudnn_failed(CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH,
                               "x, w and y do not fit together");
}

NodePtr make_knob(int64_t value)
{
    const cudnnBackendKnobType_t type = CUDNN_KNOB_TYPE_TILE_SIZE;
    auto knob = std::make_shared<Node>();
    knob->type = CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR;
    knob->finalized = true;
    Attribute &t = knob->attributes[CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE];
    t = {CUDNN_TYPE_KNOB_TYPE, 1, std::vector<unsigned char>(sizeof type), {}};
    memcpy(t.bytes.data(), &type, sizeof type);
    Attribute &v = knob->attributes[CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE];
    v = {CUDNN_TYPE_INT64, 1, std::vector<unsigned char>(sizeof value), {}};
    memcpy(v.bytes.data(), &value, sizeof value);
    return knob;
}

NodePtr make_config(const NodePtr &graph, const Proposal &proposal)
{
    auto engine = std::make_shared<Node>(), config = std::make_shared<Node>();
    engine->type = CUDNN_BACKEND_ENGINE_DESCRIPTOR;
    config->type = CUDNN_BACKEND_ENGINECFG_DESCRIPTOR;
    engine->finalized = config->finalized = true;
    engine->attributes[CUDNN_ATTR_ENGINE_OPERATION_GRAPH] = {
        CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, {}, {graph}};
    Attribute &index = engine->attributes[CUDNN_ATTR_ENGINE_GLOBAL_INDEX];
    index = {CUDNN_TYPE_INT64, 1, std::vector<unsigned char>(sizeof(int64_t)), {}};
    memcpy(index.bytes.data(), &proposal.engine, sizeof(int64_t));
    config->attributes[CUDNN_ATTR_ENGINECFG_ENGINE] = {
        CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, {}, {engine}};
    if (cudnn_engines()[(size_t)proposal.engine].tiles)
        config->attributes[CUDNN_ATTR_ENGINECFG_KNOB_CHOICES] = {
            CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, {}, {make_knob(proposal.tile)}};
    return config;
}

/* No engine mixes types: as the real library's for convolutions alone. */
bool one_type(const Convolution &c)
{
    return c.x.type == c.w.type && c.x.type == c.y.type;
}

cudnnStatus_t finalize_gen_stats(Node &node)
{
    Convolution &c = node.convolution;
    c.y = node.part(CUDNN_ATTR_OPERATION_GENSTATS_XDESC)->convolution.x;
    c.sum = node.part(CUDNN_ATTR_OPERATION_GENSTATS_SUMDESC)->convolution.x;
    c.square_sum = node.part(CUDNN_ATTR_OPERATION_GENSTATS_SQSUMDESC)->convolution.x;
    if (node.get<cudnnGenStatsMode_t>(CUDNN_ATTR_OPERATION_GENSTATS_MODE) !=
            CUDNN_GENSTATS_SUM_SQSUM ||
        node.get<cudnnDataType_t>(CUDNN_ATTR_OPERATION_GENSTATS_MATH_PREC) != CUDNN_DATA_FLOAT)
        return cudnn_failed(CUDNN_STATUS_NOT_SUPPORTED, "only sums in f32 are known here");
    for (const ConvolutionTensor *t : {&c.sum, &c.square_sum})
        if (t->type != CUDNN_DATA_FLOAT || t->dim[0] != 1 || t->dim[1] != c.y.dim[1] ||
            t->dim[2] != 1 || t->dim[3] != 1)
            return cudnn_failed(CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH,
                                "sums are f32, one a channel");
    return CUDNN_STATUS_SUCCESS;
}

/* One convolution, or one and the sums over its result. */
cudnnStatus_t finalize_graph(Node &node)
{
    const std::vector<NodePtr> &steps = node.attributes.at(CUDNN_ATTR_OPERATIONGRAPH_OPS).parts;
    if (steps[0]->type == CUDNN_BACKEND_OPERATION_GEN_STATS_DESCRIPTOR)
        return cudnn_failed(CUDNN_STATUS_NOT_SUPPORTED_GRAPH_PATTERN, "sums of what?");
    Convolution &c = node.convolution;
    c = steps[0]->convolution;
    if (steps.size() == 1) return CUDNN_STATUS_SUCCESS;
    const Convolution &sums = steps[1]->convolution;
    if (steps[1]->type != CUDNN_BACKEND_OPERATION_GEN_STATS_DESCRIPTOR ||
        c.direction != Direction::forward || sums.y.id != c.y.id)
        return cudnn_failed(CUDNN_STATUS_NOT_SUPPORTED_GRAPH_PATTERN,
                            "of two operations, the second sums over the first one's result");
    c.sums = true;
    c.sum = sums.sum;
    c.square_sum = sums.square_sum;
    for (const ConvolutionTensor *t : {&c.x, &c.w, &c.y})
        if (t->id == c.sum.id || t->id == c.square_sum.id || c.sum.id == c.square_sum.id)
            return cudnn_failed(CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES, "tensors share an id");
    return CUDNN_STATUS_SUCCESS;
}

const Convolution &convolution_of(const NodePtr &graph)
{
    return graph->convolution;
}

/* Sums come from kernels whose channels are whole vectors. */
bool has_engines(const Convolution &c)
{
    return one_type(c) && !(c.sums && c.y.dim[1] % 8 != 0);
}

cudnnStatus_t finalize_config(const Node &node)
{
    const NodePtr &engine = node.part(CUDNN_ATTR_ENGINECFG_ENGINE);
    const Engine &e = cudnn_engines()[(size_t)engine->get<int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX)];
    if (!node.has(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES)) return CUDNN_STATUS_SUCCESS;
    for (const NodePtr &knob : node.attributes.at(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES).parts) {
        const int64_t value = knob->get<int64_t>(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE);
        if (knob->get<cudnnBackendKnobType_t>(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE) !=
                CUDNN_KNOB_TYPE_TILE_SIZE ||
            value < 0 || value >= e.tiles)
            return cudnn_failed(CUDNN_STATUS_BAD_PARAM, "the engine has no such knob or value");
    }
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t finalize_plan(Node &node)
{
    const NodePtr &config = node.part(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
    const NodePtr &engine = config->part(CUDNN_ATTR_ENGINECFG_ENGINE);
    const NodePtr &graph = engine->part(CUDNN_ATTR_ENGINE_OPERATION_GRAPH);
    const Engine &e = cudnn_engines()[(size_t)engine->get<int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX)];
    const Convolution &c = convolution_of(graph);
    if (!e.runs || !has_engines(c) || (e.compiled && !c.sums))
        return cudnn_failed(CUDNN_STATUS_NOT_SUPPORTED_SHAPE,
                            "the engine does not support the shape");
    if (graph->get<cudnnHandle_t>(CUDNN_ATTR_OPERATIONGRAPH_HANDLE) !=
        node.get<cudnnHandle_t>(CUDNN_ATTR_EXECUTION_PLAN_HANDLE))
        return cudnn_failed(CUDNN_STATUS_BAD_PARAM, "the graph is of another handle");
    node.convolution = convolution_of(graph);
    node.convolution.arithmetic = e.arithmetic;
    node.workspace_bytes = e.workspace_bytes;
    if (config->has(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES))
        for (const NodePtr &knob : config->attributes.at(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES).parts)
            node.workspace_bytes +=
                4096 * (size_t)knob->get<int64_t>(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE);
    return CUDNN_STATUS_SUCCESS;
}

} // namespace

cudnnStatus_t cudnn_finalize(Node &node)
{
    switch (node.type) {
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR:
        return finalize_tensor(node);
    case CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR:
        return finalize_convolution(node);
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
        return finalize_operation(
            node, Direction::forward, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y);
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
        return finalize_operation(node, Direction::backward_data,
                                  CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                                  CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                                  CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                                  CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                                  CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY);
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR:
        return finalize_operation(node, Direction::backward_filter,
                                  CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                                  CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                                  CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                                  CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                                  CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY);
    case CUDNN_BACKEND_OPERATION_GEN_STATS_DESCRIPTOR:
        return finalize_gen_stats(node);
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR:
        return finalize_graph(node);
    case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR: {
        const NodePtr &graph = node.part(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
        if (!has_engines(convolution_of(graph))) return CUDNN_STATUS_SUCCESS;
        const auto mode = node.get<cudnnBackendHeurMode_t>(CUDNN_ATTR_ENGINEHEUR_MODE);
        for (const Proposal &proposal : proposals(convolution_of(graph), mode))
            node.results.push_back(make_config(graph, proposal));
        return CUDNN_STATUS_SUCCESS;
    }
    case CUDNN_BACKEND_ENGINE_DESCRIPTOR: {
        const int64_t index = node.get<int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX);
        if (index < 0 || index >= (int64_t)cudnn_engines().size())
            return cudnn_failed(CUDNN_STATUS_NOT_SUPPORTED,
                                "the graph has no engine of that index");
        return CUDNN_STATUS_SUCCESS;
    }
    case CUDNN_BACKEND_ENGINECFG_DESCRIPTOR:
        return finalize_config(node);
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR:
        return finalize_plan(node);
    case CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR:
        return node.attributes[CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS].count ==
                       node.attributes[CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS].count
                   ? CUDNN_STATUS_SUCCESS
                   : cudnn_failed(CUDNN_STATUS_BAD_PARAM, "as many pointers as ids are needed");
    default:
        return CUDNN_STATUS_SUCCESS;
    }
}

} // namespace simt
