/* What the two halves of the SIMT device's cuBLASLt share: the contents of the opaque descriptors
 * (cublaslt.cpp fills them, cublaslt_matmul.cpp reads them). They lie inside the toolkit's own
 * opaque structs, so that both Create and the inline Init functions of the header work.
 *
 * The subset: f32, bf16 and f16 operands, sums and scale factors in f32; column- and row-major
 * matrices, strided batches; epilogues DEFAULT, RELU, BIAS, RELU_BIAS, GELU and its AUX, BIAS and
 * gradient forms, BGRADA and BGRADB. ReLU bit masks, fp8 scaling and device pointer mode are
 * answered with CUBLAS_STATUS_NOT_SUPPORTED. */
#ifndef CT_TESTS_SIMT_CUBLASLT_H
#define CT_TESTS_SIMT_CUBLASLT_H

#include <cublasLt.h>

struct cublasLtContext {
};

namespace simt
{

struct MatmulDesc {
    int32_t compute_type, scale_type, pointer_mode, transa, transb, transc, fill_mode;
    uint32_t epilogue;
    int32_t sm_count_target, aux_type, bias_type;
    const void *bias;
    int64_t bias_batch_stride;
    void *aux;
    int64_t aux_ld, aux_batch_stride;
};

struct Layout {
    uint32_t type;
    int32_t order;
    uint64_t rows, cols;
    int64_t ld;
    int32_t batch_count;
    int64_t batch_stride;
};

struct Preference {
    uint32_t search_mode;
    uint64_t max_workspace_bytes;
    uint32_t reduction_scheme_mask;
    uint32_t min_alignment[4]; /* of A, B, C and D, in bytes */
    float max_waves_count;
    uint64_t impl_mask;
};

static_assert(sizeof(MatmulDesc) <= sizeof(cublasLtMatmulDescOpaque_t), "must fit");
static_assert(sizeof(Layout) <= sizeof(cublasLtMatrixLayoutOpaque_t), "must fit");
static_assert(sizeof(Preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t), "must fit");

inline MatmulDesc *contents(cublasLtMatmulDesc_t desc)
{
    return reinterpret_cast<MatmulDesc *>(desc);
}
inline Layout *contents(cublasLtMatrixLayout_t layout)
{
    return reinterpret_cast<Layout *>(layout);
}
inline Preference *contents(cublasLtMatmulPreference_t preference)
{
    return reinterpret_cast<Preference *>(preference);
}

/* Says on standard error why a call is refused, as cuBLASLt's log would, and returns `status`. */
cublasStatus_t refuse(cublasStatus_t status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

} // namespace simt

#endif
