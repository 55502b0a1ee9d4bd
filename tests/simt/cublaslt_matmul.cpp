/* cuBLASLt's matmul: argument checks, the heuristic, and the product with its epilogue.
 *
 * An algorithm is tagged with the problem that it was chosen for, its workspace and the alignments
 * that were promised, and a call that does not keep to them is refused. So a cache with too small
 * a key, or a workspace that is too small for one of its users, is seen at once. */
#include "cublaslt.h"

#include "product.h"
#include "runtime.h"

#include <algorithm>
#include <cstring>

namespace simt
{
namespace
{

struct Problem {
    MatmulDesc desc;
    Layout a, b, c, d;
    int64_t m, n, k;

    bool has(uint32_t bit) const { return desc.epilogue & bit; }
    bool uses_bias() const
    {
        constexpr uint32_t gradients = 16 | CUBLASLT_EPILOGUE_BGRADA | CUBLASLT_EPILOGUE_BGRADB;
        return has(CUBLASLT_EPILOGUE_BIAS | gradients);
    }
    bool uses_aux() const { return has(128); }
    cudaDataType aux_type() const
    {
        return (cudaDataType)(desc.aux_type < 0 ? (int32_t)d.type : desc.aux_type);
    }
};

constexpr uint32_t EPILOGUE_DGELU_BIT = 64, EPILOGUE_BGRAD_BIT = 16;

/* What stands in cublasLtMatmulAlgo_t. */
struct Algorithm {
    uint64_t magic, problem, workspace_bytes;
    int32_t id;
    uint32_t alignment[4], bias_alignment, aux_alignment;
};
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t), "must fit");

constexpr uint64_t MAGIC = 0x53494d5420616c67u;

/* Different orders of summation, as different kernels of the library have. */
struct Kernel {
    int64_t k_block;
    uint64_t workspace_bytes;
    uint32_t reduction_scheme;
    int32_t splits;
};
const Kernel kernels[] = {{256, 1 << 20, CUBLASLT_REDUCTION_SCHEME_NONE, 1},
                          {512, 256 << 10, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 2},
                          {128, 0, CUBLASLT_REDUCTION_SCHEME_NONE, 1}};

/* FNV-1a over everything but pointers. */
uint64_t fingerprint(const Problem &p)
{
    uint64_t hash = 0xcbf29ce484222325u;
    auto add = [&hash](uint64_t value) {
        for (int i = 0; i < 8; i++) hash = (hash ^ ((value >> (8 * i)) & 0xff)) * 0x100000001b3u;
    };
    for (int32_t value : {p.desc.compute_type, p.desc.scale_type, p.desc.transa, p.desc.transb,
                          (int32_t)p.desc.epilogue, p.desc.aux_type, p.desc.bias_type})
        add((uint64_t)value);
    add((uint64_t)p.desc.aux_ld);
    for (const Layout *layout : {&p.a, &p.b, &p.c, &p.d}) {
        for (int64_t value : {(int64_t)layout->type, (int64_t)layout->order, (int64_t)layout->rows,
                              (int64_t)layout->cols, layout->ld, (int64_t)layout->batch_count,
                              layout->batch_stride})
            add((uint64_t)value);
    }
    return hash;
}

uint32_t alignment_of(const void *address, uint32_t most)
{
    uint32_t alignment = 1;
    while (alignment < most && (uintptr_t)address % (2 * alignment) == 0) alignment *= 2;
    return alignment;
}

cublasStatus_t check_layout(const Layout &layout, char name, int32_t batch_count, const char *call)
{
    int64_t least = (int64_t)(layout.order == CUBLASLT_ORDER_COL ? layout.rows : layout.cols);
    if (layout.order != CUBLASLT_ORDER_COL && layout.order != CUBLASLT_ORDER_ROW)
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "%s: order %d of %c", call, layout.order, name);
    if (layout.rows == 0 || layout.cols == 0)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "%s: %c is empty", call, name);
    if (layout.ld < least)
        return refuse(CUBLAS_STATUS_INVALID_VALUE,
                      "%s: leading dimension %lld of %c, at least %lld", call, (long long)layout.ld,
                      name, (long long)least);
    if (layout.batch_count != batch_count || batch_count < 1)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "%s: %d matrices %c, %d matrices D", call,
                      layout.batch_count, name, batch_count);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t check_types(const Problem &p, const char *call)
{
    bool tf32 = p.desc.compute_type == CUBLAS_COMPUTE_32F_FAST_TF32;
    bool f32 = tf32 || p.desc.compute_type == CUBLAS_COMPUTE_32F ||
               p.desc.compute_type == CUBLAS_COMPUTE_32F_PEDANTIC;
    cudaDataType a = (cudaDataType)p.a.type, d = (cudaDataType)p.d.type;
    bool outputs = d == a || d == CUDA_R_32F;
    if (!f32 || p.desc.scale_type != CUDA_R_32F ||
        p.desc.pointer_mode != CUBLASLT_POINTER_MODE_HOST || p.desc.transc != CUBLAS_OP_N ||
        p.desc.fill_mode != CUBLAS_FILL_MODE_FULL)
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED,
                      "%s: compute type %d, scale type %d, pointer mode %d, C transposed %d", call,
                      p.desc.compute_type, p.desc.scale_type, p.desc.pointer_mode, p.desc.transc);
    if (!element_bytes(a) || p.b.type != p.a.type || p.c.type != p.d.type || !outputs ||
        (tf32 && a != CUDA_R_32F))
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED,
                      "%s: types A %u, B %u, C %u, D %u with compute type %d", call, p.a.type,
                      p.b.type, p.c.type, p.d.type, p.desc.compute_type);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t check_epilogue(const Problem &p, const char *call)
{
    static const uint32_t known[] = {
        CUBLASLT_EPILOGUE_DEFAULT,     CUBLASLT_EPILOGUE_RELU,          CUBLASLT_EPILOGUE_BIAS,
        CUBLASLT_EPILOGUE_RELU_BIAS,   CUBLASLT_EPILOGUE_GELU,          CUBLASLT_EPILOGUE_GELU_AUX,
        CUBLASLT_EPILOGUE_GELU_BIAS,   CUBLASLT_EPILOGUE_GELU_AUX_BIAS, CUBLASLT_EPILOGUE_DGELU,
        CUBLASLT_EPILOGUE_DGELU_BGRAD, CUBLASLT_EPILOGUE_BGRADA,        CUBLASLT_EPILOGUE_BGRADB};
    if (std::find(std::begin(known), std::end(known), p.desc.epilogue) == std::end(known))
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "%s: epilogue %u", call, p.desc.epilogue);
    if (p.desc.epilogue == CUBLASLT_EPILOGUE_DEFAULT) return CUBLAS_STATUS_SUCCESS;
    if (p.d.order != CUBLASLT_ORDER_COL)
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "%s: an epilogue with row-major D", call);
    if (p.uses_bias() && p.desc.bias_type >= 0 && p.desc.bias_type != (int32_t)p.d.type)
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "%s: bias of type %d, D of type %u", call,
                      p.desc.bias_type, p.d.type);
    if (p.uses_bias() && !p.has(CUBLASLT_EPILOGUE_BIAS) && p.d.batch_count > 1)
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "%s: a bias gradient of a batch", call);
    if (!p.uses_aux()) return CUBLAS_STATUS_SUCCESS;
    if (p.aux_type() != (cudaDataType)p.d.type)
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "%s: auxiliary matrix of type %d, D of type %u",
                      call, p.aux_type(), p.d.type);
    if (p.desc.aux_ld < p.m || p.desc.aux_ld % 8 != 0 || p.desc.aux_batch_stride % 8 != 0)
        return refuse(CUBLAS_STATUS_INVALID_VALUE,
                      "%s: auxiliary leading dimension %lld; at least %lld and a multiple of 8",
                      call, (long long)p.desc.aux_ld, (long long)p.m);
    return CUBLAS_STATUS_SUCCESS;
}

/* Reads the descriptors into *p and checks all that does not depend on pointers. */
cublasStatus_t describe(cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                        cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                        cublasLtMatrixLayout_t d, Problem *p, const char *call)
{
    if (!desc || !a || !b || !c || !d)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "%s: a descriptor is NULL", call);
    *p = {*contents(desc), *contents(a), *contents(b), *contents(c), *contents(d), 0, 0, 0};
    const std::pair<const Layout *, char> layouts[] = {
        {&p->a, 'A'}, {&p->b, 'B'}, {&p->c, 'C'}, {&p->d, 'D'}};
    for (const auto &layout : layouts) {
        cublasStatus_t status = check_layout(*layout.first, layout.second, p->d.batch_count, call);
        if (status != CUBLAS_STATUS_SUCCESS) return status;
    }
    bool ta = p->desc.transa != CUBLAS_OP_N, tb = p->desc.transb != CUBLAS_OP_N;
    p->m = (int64_t)p->d.rows;
    p->n = (int64_t)p->d.cols;
    p->k = (int64_t)(ta ? p->a.rows : p->a.cols);
    int64_t a_rows = (int64_t)(ta ? p->a.cols : p->a.rows);
    int64_t b_rows = (int64_t)(tb ? p->b.cols : p->b.rows);
    int64_t b_cols = (int64_t)(tb ? p->b.rows : p->b.cols);
    if (a_rows != p->m || b_cols != p->n || b_rows != p->k || p->c.rows != p->d.rows ||
        p->c.cols != p->d.cols || p->c.order != p->d.order)
        return refuse(CUBLAS_STATUS_INVALID_VALUE,
                      "%s: op(A) %lld x %lld, op(B) %lld x %lld, C %llu x %llu, D %lld x %lld",
                      call, (long long)a_rows, (long long)p->k, (long long)b_rows,
                      (long long)b_cols, (unsigned long long)p->c.rows,
                      (unsigned long long)p->c.cols, (long long)p->m, (long long)p->n);
    cublasStatus_t status = check_types(*p, call);
    return status == CUBLAS_STATUS_SUCCESS ? check_epilogue(*p, call) : status;
}

/* ---- running ------------------------------------------------------------------------------- */

struct Call {
    Problem p;
    const char *a, *b, *c;
    char *d;
    float alpha, beta;
    char *workspace;
    size_t workspace_bytes;
    int64_t k_block;

    void check_memory() const;
    void run() const;
    void run_one(int64_t batch, float *product) const;
    void sum_inputs(const MatrixView &left, const MatrixView &right) const;
};

struct Range {
    const char *name, *start;
    size_t bytes;

    bool overlaps(const Range &other) const
    {
        return start < other.start + other.bytes && other.start < start + bytes;
    }
};

size_t extent_bytes(const Layout &layout)
{
    bool columns = layout.order == CUBLASLT_ORDER_COL;
    uint64_t outer = columns ? layout.cols : layout.rows,
             inner = columns ? layout.rows : layout.cols;
    uint64_t elements = (outer - 1) * (uint64_t)layout.ld + inner +
                        (uint64_t)(layout.batch_count - 1) * (uint64_t)layout.batch_stride;
    return elements * element_bytes((cudaDataType)layout.type);
}

/* Every operand in a live allocation; what is written overlaps nothing else (D may be C). */
void Call::check_memory() const
{
    std::vector<Range> read = {{"A", a, extent_bytes(p.a)}, {"B", b, extent_bytes(p.b)}};
    std::vector<Range> written = {{"D", d, extent_bytes(p.d)}};
    if (workspace_bytes) written.push_back({"the workspace", workspace, workspace_bytes});
    if (beta != 0 && c != d) read.push_back({"C", c, extent_bytes(p.c)});
    size_t d_bytes = element_bytes((cudaDataType)p.d.type);
    uint64_t last = (uint64_t)(p.d.batch_count - 1);
    if (p.uses_bias()) {
        uint64_t length = (uint64_t)(p.has(CUBLASLT_EPILOGUE_BGRADB) ? p.n : p.m) +
                          last * (uint64_t)p.desc.bias_batch_stride;
        Range bias = {"the bias", (const char *)p.desc.bias, length * d_bytes};
        (p.has(CUBLASLT_EPILOGUE_BIAS) ? read : written).push_back(bias);
    }
    if (p.uses_aux()) {
        uint64_t elements =
            (uint64_t)((p.n - 1) * p.desc.aux_ld + p.m) + last * (uint64_t)p.desc.aux_batch_stride;
        Range aux = {"the auxiliary matrix", (const char *)p.desc.aux, elements * d_bytes};
        (p.has(EPILOGUE_DGELU_BIT) ? read : written).push_back(aux);
    }
    for (const auto *list : {&read, &written})
        for (const Range &range : *list)
            if (!is_device_memory(range.start, range.bytes))
                fault("cublasLtMatmul: %zu bytes of %s are not within a live device allocation: %s",
                      range.bytes, range.name, describe_address(range.start));
    for (size_t i = 0; i < written.size(); i++) {
        for (const Range &other : read)
            if (written[i].overlaps(other))
                fault("cublasLtMatmul: %s overlaps %s: %s", written[i].name, other.name,
                      describe_address(written[i].start));
        for (size_t j = 0; j < i; j++)
            if (written[i].overlaps(written[j]))
                fault("cublasLtMatmul: %s overlaps %s: %s", written[i].name, written[j].name,
                      describe_address(written[i].start));
    }
}

MatrixView view_of(const Layout &layout, const char *data, int64_t batch, bool transposed)
{
    cudaDataType type = (cudaDataType)layout.type;
    bool columns = layout.order == CUBLASLT_ORDER_COL;
    int64_t row_stride = columns ? 1 : layout.ld, column_stride = columns ? layout.ld : 1;
    if (transposed) std::swap(row_stride, column_stride);
    const char *start = data + batch * layout.batch_stride * (int64_t)element_bytes(type);
    return {start, type, row_stride, column_stride};
}

/* The epilogues BGRADA and BGRADB: sums of the inputs over k, not scaled by alpha. */
void Call::sum_inputs(const MatrixView &left, const MatrixView &right) const
{
    bool of_a = p.desc.epilogue == CUBLASLT_EPILOGUE_BGRADA;
    for (int64_t i = 0; i < (of_a ? p.m : p.n); i++) {
        double sum = 0;
        for (int64_t j = 0; j < p.k; j++)
            sum += of_a ? load_element(left.type, left.data,
                                       i * left.row_stride + j * left.column_stride)
                        : load_element(right.type, right.data,
                                       j * right.row_stride + i * right.column_stride);
        store_element((cudaDataType)p.d.type, const_cast<void *>(p.desc.bias), i, (float)sum);
    }
}

void Call::run_one(int64_t batch, float *product) const
{
    MatrixView left = view_of(p.a, a, batch, p.desc.transa != CUBLAS_OP_N);
    MatrixView right = view_of(p.b, b, batch, p.desc.transb != CUBLAS_OP_N);
    MatrixView added = view_of(p.c, c, batch, false), out = view_of(p.d, d, batch, false);
    bool tf32 = p.desc.compute_type == CUBLAS_COMPUTE_32F_FAST_TF32;
    multiply(p.m, p.n, p.k, left, right, tf32, k_block, product);
    if (p.has(CUBLASLT_EPILOGUE_BGRADA | CUBLASLT_EPILOGUE_BGRADB)) sum_inputs(left, right);

    cudaDataType type = (cudaDataType)p.d.type;
    int64_t bias_start = batch * p.desc.bias_batch_stride;
    int64_t aux_start = batch * p.desc.aux_batch_stride;
    std::vector<double> row_sums((size_t)(p.has(EPILOGUE_BGRAD_BIT) ? p.m : 0));
    for (int64_t j = 0; j < p.n; j++) {
        for (int64_t i = 0; i < p.m; i++) {
            float value = alpha * product[j * p.m + i];
            int64_t aux_index = aux_start + j * p.desc.aux_ld + i;
            if (beta != 0)
                value += beta * load_element(type, added.data,
                                             i * added.row_stride + j * added.column_stride);
            if (p.has(CUBLASLT_EPILOGUE_BIAS))
                value += load_element(type, p.desc.bias, bias_start + i);
            if (p.has(EPILOGUE_DGELU_BIT))
                value *= gelu_tanh_derivative(load_element(type, p.desc.aux, aux_index));
            else if (p.uses_aux()) store_element(type, p.desc.aux, aux_index, value);
            if (p.has(CUBLASLT_EPILOGUE_GELU)) value = gelu_tanh(value);
            if (p.has(CUBLASLT_EPILOGUE_RELU)) value = value > 0 || value != value ? value : 0;
            if (p.has(EPILOGUE_BGRAD_BIT)) row_sums[(size_t)i] += value;
            store_element(type, const_cast<void *>(out.data),
                          i * out.row_stride + j * out.column_stride, value);
        }
    }
    for (size_t i = 0; i < row_sums.size(); i++)
        store_element(type, const_cast<void *>(p.desc.bias), (int64_t)i, (float)row_sums[i]);
}

void Call::run() const
{
    check_memory();
    if (workspace_bytes) memset(workspace, 0xff, workspace_bytes); /* it is the library's now */
    std::vector<float> product((size_t)(p.m * p.n));
    for (int64_t batch = 0; batch < p.d.batch_count; batch++) run_one(batch, product.data());
}

/* The checks of a call's pointers against the algorithm's promises. */
cublasStatus_t check_pointers(const Call &call, const Algorithm &algorithm, size_t workspace_bytes)
{
    const char *name = "cublasLtMatmul";
    const std::pair<const char *, char> operands[] = {
        {call.a, 'A'}, {call.b, 'B'}, {call.c, 'C'}, {call.d, 'D'}};
    for (size_t i = 0; i < 4; i++) {
        if (!operands[i].first)
            return refuse(CUBLAS_STATUS_INVALID_VALUE, "%s: %c is NULL", name, operands[i].second);
        if ((uintptr_t)operands[i].first % algorithm.alignment[i] != 0)
            return refuse(CUBLAS_STATUS_NOT_SUPPORTED,
                          "%s: %c is not %u-byte-aligned, as the preference promised", name,
                          operands[i].second, algorithm.alignment[i]);
    }
    if (call.p.uses_bias() &&
        (!call.p.desc.bias || (uintptr_t)call.p.desc.bias % algorithm.bias_alignment != 0))
        return refuse(CUBLAS_STATUS_INVALID_VALUE,
                      "%s: bias %p, the algorithm was chosen for %u-byte alignment", name,
                      call.p.desc.bias, algorithm.bias_alignment);
    if (call.p.uses_aux() &&
        (!call.p.desc.aux || (uintptr_t)call.p.desc.aux % algorithm.aux_alignment != 0))
        return refuse(CUBLAS_STATUS_INVALID_VALUE,
                      "%s: auxiliary matrix %p, the algorithm was chosen for %u-byte alignment",
                      name, call.p.desc.aux, algorithm.aux_alignment);
    if (workspace_bytes < algorithm.workspace_bytes)
        return refuse(CUBLAS_STATUS_INVALID_VALUE,
                      "%s: workspace of %zu bytes, the algorithm needs %llu", name, workspace_bytes,
                      (unsigned long long)algorithm.workspace_bytes);
    if (algorithm.workspace_bytes && (!call.workspace || (uintptr_t)call.workspace % 256 != 0))
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "%s: workspace %p is not 256-byte-aligned", name,
                      (void *)call.workspace);
    return CUBLAS_STATUS_SUCCESS;
}

/* How kernel `id` would compute `p`, if the preference allows it. */
bool choose(const Problem &p, const Preference &preference, int32_t id, Algorithm *out)
{
    const Kernel &kernel = kernels[id];
    if (kernel.reduction_scheme && !(kernel.reduction_scheme & preference.reduction_scheme_mask))
        return false;
    *out = {};
    out->magic = MAGIC;
    out->problem = fingerprint(p);
    out->workspace_bytes = std::min(kernel.workspace_bytes, preference.max_workspace_bytes);
    out->id = id;
    for (int i = 0; i < 4; i++) out->alignment[i] = std::max(1u, preference.min_alignment[i]);
    out->bias_alignment = alignment_of(p.desc.bias, 16);
    out->aux_alignment = alignment_of(p.desc.aux, 16);
    return true;
}

} // namespace
} // namespace simt

using namespace simt;

extern "C" {

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t *results,
                                              int *returned)
{
    const char *call = "cublasLtMatmulAlgoGetHeuristic";
    if (returned) *returned = 0;
    if (!handle || !preference || !results || !returned || requested < 1)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "%s: an argument is NULL or zero", call);
    object_check(handle, "cuBLASLt handle", call);
    if (injected("library")) return CUBLAS_STATUS_INTERNAL_ERROR;
    Problem p;
    cublasStatus_t status = describe(desc, a, b, c, d, &p, call);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    int count = 0;
    for (int32_t id = 0; id < (int32_t)std::size(kernels) && count < requested; id++) {
        Algorithm algorithm;
        if (!choose(p, *contents(preference), id, &algorithm)) continue;
        cublasLtMatmulHeuristicResult_t &result = results[count++];
        result = {};
        memcpy(&result.algo, &algorithm, sizeof algorithm);
        result.workspaceSize = algorithm.workspace_bytes;
        result.state = CUBLAS_STATUS_SUCCESS;
        result.wavesCount = 1;
    }
    *returned = count;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute,
                                                    void *value, size_t bytes, size_t *written)
{
    Algorithm algorithm;
    if (!algo || !value || bytes != sizeof(int32_t)) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(&algorithm, algo, sizeof algorithm);
    if (algorithm.magic != MAGIC) return CUBLAS_STATUS_INVALID_VALUE;
    const Kernel &kernel = kernels[algorithm.id];
    int32_t answer;
    switch (attribute) {
    case CUBLASLT_ALGO_CONFIG_ID:
        answer = algorithm.id;
        break;
    case CUBLASLT_ALGO_CONFIG_SPLITK_NUM:
        answer = kernel.splits;
        break;
    case CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME:
        answer = (int32_t)kernel.reduction_scheme;
        break;
    default:
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "algorithm attribute %d", (int)attribute);
    }
    memcpy(value, &answer, sizeof answer);
    if (written) *written = sizeof answer;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    if (!handle || !alpha || !beta)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "cublasLtMatmul: handle, alpha or beta is NULL");
    object_check(handle, "cuBLASLt handle", "cublasLtMatmul");
    Call call = {};
    cublasStatus_t status =
        describe(desc, a_layout, b_layout, c_layout, d_layout, &call.p, "cublasLtMatmul");
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    call.a = (const char *)a;
    call.b = (const char *)b;
    call.c = (const char *)c;
    call.d = (char *)d;
    call.alpha = *(const float *)alpha;
    call.beta = *(const float *)beta;
    call.workspace = (char *)workspace;

    Algorithm algorithm;
    if (algo) {
        memcpy(&algorithm, algo, sizeof algorithm);
        if (algorithm.magic != MAGIC || algorithm.problem != fingerprint(call.p))
            return refuse(CUBLAS_STATUS_NOT_SUPPORTED,
                          "cublasLtMatmul: the algorithm was chosen for another problem");
    } else { /* the library asks its own heuristic, for the pointers at hand */
        Preference preference = {};
        preference.max_workspace_bytes = workspace_bytes;
        const void *operands[] = {a, b, c, d};
        for (int i = 0; i < 4; i++) preference.min_alignment[i] = alignment_of(operands[i], 256);
        choose(call.p, preference, 0, &algorithm);
    }
    status = check_pointers(call, algorithm, workspace_bytes);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    call.workspace_bytes = algorithm.workspace_bytes;
    call.k_block = kernels[algorithm.id].k_block;
    cudaError_t error = enqueue_library_call(stream, "cublasLtMatmul", [call] { call.run(); });
    return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
}
