/* What a descriptor of the SIMT device's cuDNN holds (cudnn.cpp sets and reads attributes,
 * cudnn_finalize.cpp checks them and draws the conclusions). */
#ifndef CT_TESTS_SIMT_CUDNN_NODE_H
#define CT_TESTS_SIMT_CUDNN_NODE_H

#include "cudnn_convolution.h"

#include <cstring>
#include <map>
#include <memory>
#include <vector>

namespace simt
{

struct Engine {
    std::vector<cudnnBackendNumericalNote_t> notes;
    Arithmetic arithmetic;
    size_t workspace_bytes; /* and 4 KiB for each step of the knob TILE_SIZE */
    int64_t tiles;          /* values of TILE_SIZE; 0: no knob */
    bool runs;              /* false: its plan turns out not to be supported */
    bool compiled = false;  /* at run time; for sums only */
};

/* By global index. */
const std::vector<Engine> &cudnn_engines();

struct Node;
using NodePtr = std::shared_ptr<Node>;

struct Attribute {
    cudnnBackendAttributeType_t type;
    int64_t count = 0;
    std::vector<unsigned char> bytes;
    std::vector<NodePtr> parts; /* of type BACKEND_DESCRIPTOR */
};

struct Node {
    cudnnBackendDescriptorType_t type;
    bool finalized = false;
    std::map<cudnnBackendAttributeName_t, Attribute> attributes;
    Convolution convolution{};    /* of tensors (its x), operations, graphs and plans */
    std::vector<NodePtr> results; /* of a heuristic */
    size_t workspace_bytes = 0;   /* of a plan */

    bool has(cudnnBackendAttributeName_t name) const { return attributes.count(name) != 0; }

    template <typename T> T get(cudnnBackendAttributeName_t name, size_t i = 0) const
    {
        T value;
        memcpy(&value, attributes.at(name).bytes.data() + i * sizeof(T), sizeof value);
        return value;
    }
    const NodePtr &part(cudnnBackendAttributeName_t name, size_t i = 0) const
    {
        return attributes.at(name).parts.at(i);
    }
};

/* Checks a descriptor whose attributes are all there. */
cudnnStatus_t cudnn_finalize(Node &node);

/* Keeps the text for cudnnGetLastErrorString, and returns the status. */
cudnnStatus_t cudnn_failed(cudnnStatus_t status, const char *text);

} // namespace simt

#endif
