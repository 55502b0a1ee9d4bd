/* cuBLASLt's handles and descriptors. */
#include "cublaslt.h"

#include "runtime.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace simt
{

cublasStatus_t refuse(cublasStatus_t status, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "SIMT cuBLASLt: %s (%s)\n", text, cublasLtGetStatusName(status));
    return status;
}

namespace
{

struct Field {
    int attribute;
    size_t offset, bytes;
};

#define FIELD(attribute, type, member)                                                             \
    {                                                                                              \
        attribute, offsetof(type, member), sizeof(type::member)                                    \
    }

const Field desc_fields[] = {
    FIELD(CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, MatmulDesc, compute_type),
    FIELD(CUBLASLT_MATMUL_DESC_SCALE_TYPE, MatmulDesc, scale_type),
    FIELD(CUBLASLT_MATMUL_DESC_POINTER_MODE, MatmulDesc, pointer_mode),
    FIELD(CUBLASLT_MATMUL_DESC_TRANSA, MatmulDesc, transa),
    FIELD(CUBLASLT_MATMUL_DESC_TRANSB, MatmulDesc, transb),
    FIELD(CUBLASLT_MATMUL_DESC_TRANSC, MatmulDesc, transc),
    FIELD(CUBLASLT_MATMUL_DESC_FILL_MODE, MatmulDesc, fill_mode),
    FIELD(CUBLASLT_MATMUL_DESC_EPILOGUE, MatmulDesc, epilogue),
    FIELD(CUBLASLT_MATMUL_DESC_BIAS_POINTER, MatmulDesc, bias),
    FIELD(CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, MatmulDesc, bias_batch_stride),
    FIELD(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, MatmulDesc, aux),
    FIELD(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, MatmulDesc, aux_ld),
    FIELD(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, MatmulDesc, aux_batch_stride),
    FIELD(CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, MatmulDesc, sm_count_target),
    FIELD(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE, MatmulDesc, aux_type),
    FIELD(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, MatmulDesc, bias_type),
};

const Field layout_fields[] = {
    FIELD(CUBLASLT_MATRIX_LAYOUT_TYPE, Layout, type),
    FIELD(CUBLASLT_MATRIX_LAYOUT_ORDER, Layout, order),
    FIELD(CUBLASLT_MATRIX_LAYOUT_ROWS, Layout, rows),
    FIELD(CUBLASLT_MATRIX_LAYOUT_COLS, Layout, cols),
    FIELD(CUBLASLT_MATRIX_LAYOUT_LD, Layout, ld),
    FIELD(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, Layout, batch_count),
    FIELD(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, Layout, batch_stride),
};

const Field preference_fields[] = {
    FIELD(CUBLASLT_MATMUL_PREF_SEARCH_MODE, Preference, search_mode),
    FIELD(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, Preference, max_workspace_bytes),
    FIELD(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, Preference, reduction_scheme_mask),
    FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, Preference, min_alignment[0]),
    FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, Preference, min_alignment[1]),
    FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, Preference, min_alignment[2]),
    FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, Preference, min_alignment[3]),
    FIELD(CUBLASLT_MATMUL_PREF_MAX_WAVES_COUNT, Preference, max_waves_count),
    FIELD(CUBLASLT_MATMUL_PREF_IMPL_MASK, Preference, impl_mask),
};

template <size_t count> const Field *find(const Field (&fields)[count], int attribute)
{
    for (const Field &field : fields)
        if (field.attribute == attribute) return &field;
    return nullptr;
}

template <size_t count>
cublasStatus_t set(const Field (&fields)[count], void *object, int attribute, const void *value,
                   size_t bytes, const char *call)
{
    const Field *field = find(fields, attribute);
    if (!field)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "%s: attribute %d is not modelled", call,
                      attribute);
    if (!object || !value) return refuse(CUBLAS_STATUS_INVALID_VALUE, "%s: NULL", call);
    if (bytes != field->bytes)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "%s: attribute %d has %zu bytes, not %zu", call,
                      attribute, field->bytes, bytes);
    memcpy((char *)object + field->offset, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

template <size_t count>
cublasStatus_t get(const Field (&fields)[count], const void *object, int attribute, void *value,
                   size_t bytes, size_t *written, const char *call)
{
    const Field *field = find(fields, attribute);
    bool asks_size = bytes == 0 && written;
    if (!field || !object || (!asks_size && (!value || bytes != field->bytes)))
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "%s: attribute %d, %zu bytes", call, attribute,
                      bytes);
    if (!asks_size) memcpy(value, (const char *)object + field->offset, field->bytes);
    if (written) *written = field->bytes;
    return CUBLAS_STATUS_SUCCESS;
}

/* Create is Init on memory of one's own. */
template <class Handle, class Fill>
cublasStatus_t create(Handle *handle, const char *kind, Fill fill)
{
    if (!handle) return CUBLAS_STATUS_INVALID_VALUE;
    *handle = nullptr;
    if (injected("library")) return CUBLAS_STATUS_ALLOC_FAILED;
    Handle fresh = new std::remove_pointer_t<Handle>;
    cublasStatus_t status = fill(fresh);
    if (status != CUBLAS_STATUS_SUCCESS) {
        delete fresh;
        return status;
    }
    object_created(fresh, kind);
    *handle = fresh;
    return CUBLAS_STATUS_SUCCESS;
}

template <class Handle> cublasStatus_t destroy(Handle handle, const char *kind, const char *call)
{
    if (!handle) return CUBLAS_STATUS_SUCCESS;
    object_destroyed(handle, kind, call);
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

const char *const HANDLE = "cuBLASLt handle", *const DESC = "cuBLASLt matmul descriptor",
                  *const LAYOUT = "cuBLASLt layout", *const PREFERENCE = "cuBLASLt preference";

} // namespace
} // namespace simt

using namespace simt;

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    if (sticky_error() != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
    return create(handle, HANDLE, [](cublasLtHandle_t) { return CUBLAS_STATUS_SUCCESS; });
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    return destroy(handle, HANDLE, "cublasLtDestroy");
}

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t desc, size_t bytes,
                                               cublasComputeType_t compute_type,
                                               cudaDataType_t scale_type)
{
    if (!desc) return CUBLAS_STATUS_INVALID_VALUE;
    if (bytes < sizeof *desc) return CUBLAS_STATUS_ALLOC_FAILED;
    memset(desc, 0, sizeof *desc);
    MatmulDesc *fields = contents(desc);
    fields->compute_type = compute_type;
    fields->scale_type = scale_type;
    fields->pointer_mode = CUBLASLT_POINTER_MODE_HOST;
    fields->fill_mode = CUBLAS_FILL_MODE_FULL;
    fields->epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    fields->aux_type = fields->bias_type = -1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc,
                                        cublasComputeType_t compute_type, cudaDataType_t scale_type)
{
    return create(desc, DESC, [=](cublasLtMatmulDesc_t fresh) {
        return cublasLtMatmulDescInit_internal(fresh, sizeof *fresh, compute_type, scale_type);
    });
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    return destroy(desc, DESC, "cublasLtMatmulDescDestroy");
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    return set(desc_fields, desc, attribute, value, bytes, "cublasLtMatmulDescSetAttribute");
}

cublasStatus_t cublasLtMatmulDescGetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute, void *value,
                                              size_t bytes, size_t *written)
{
    return get(desc_fields, desc, attribute, value, bytes, written,
               "cublasLtMatmulDescGetAttribute");
}

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t layout, size_t bytes,
                                                 cudaDataType type, uint64_t rows, uint64_t cols,
                                                 int64_t ld)
{
    if (!layout) return CUBLAS_STATUS_INVALID_VALUE;
    if (bytes < sizeof *layout) return CUBLAS_STATUS_ALLOC_FAILED;
    memset(layout, 0, sizeof *layout);
    *contents(layout) = {(uint32_t)type, CUBLASLT_ORDER_COL, rows, cols, ld, 1, 0};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld)
{
    return create(layout, LAYOUT, [=](cublasLtMatrixLayout_t fresh) {
        return cublasLtMatrixLayoutInit_internal(fresh, sizeof *fresh, type, rows, cols, ld);
    });
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    return destroy(layout, LAYOUT, "cublasLtMatrixLayoutDestroy");
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                const void *value, size_t bytes)
{
    return set(layout_fields, layout, attribute, value, bytes, "cublasLtMatrixLayoutSetAttribute");
}

cublasStatus_t cublasLtMatrixLayoutGetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                void *value, size_t bytes, size_t *written)
{
    return get(layout_fields, layout, attribute, value, bytes, written,
               "cublasLtMatrixLayoutGetAttribute");
}

cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t preference,
                                                     size_t bytes)
{
    if (!preference) return CUBLAS_STATUS_INVALID_VALUE;
    if (bytes < sizeof *preference) return CUBLAS_STATUS_ALLOC_FAILED;
    memset(preference, 0, sizeof *preference);
    Preference *fields = contents(preference);
    fields->search_mode = CUBLASLT_SEARCH_BEST_FIT;
    fields->reduction_scheme_mask = CUBLASLT_REDUCTION_SCHEME_MASK;
    for (uint32_t &alignment : fields->min_alignment) alignment = 256;
    fields->impl_mask = ~(uint64_t)0;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    return create(preference, PREFERENCE, [](cublasLtMatmulPreference_t fresh) {
        return cublasLtMatmulPreferenceInit_internal(fresh, sizeof *fresh);
    });
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    return destroy(preference, PREFERENCE, "cublasLtMatmulPreferenceDestroy");
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes)
{
    return set(preference_fields, preference, attribute, value, bytes,
               "cublasLtMatmulPreferenceSetAttribute");
}

cublasStatus_t cublasLtMatmulPreferenceGetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    void *value, size_t bytes, size_t *written)
{
    return get(preference_fields, preference, attribute, value, bytes, written,
               "cublasLtMatmulPreferenceGetAttribute");
}

size_t cublasLtGetVersion(void)
{
    return CUBLAS_VERSION;
}

size_t cublasLtGetCudartVersion(void)
{
    return CUDART_VERSION;
}

const char *cublasLtGetStatusName(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
        return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_ARCH_MISMATCH:
        return "CUBLAS_STATUS_ARCH_MISMATCH";
    case CUBLAS_STATUS_MAPPING_ERROR:
        return "CUBLAS_STATUS_MAPPING_ERROR";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_INTERNAL_ERROR:
        return "CUBLAS_STATUS_INTERNAL_ERROR";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    case CUBLAS_STATUS_LICENSE_ERROR:
        return "CUBLAS_STATUS_LICENSE_ERROR";
    }
    return "unrecognized status";
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "success";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "the library was not initialized";
    case CUBLAS_STATUS_ALLOC_FAILED:
        return "the resource allocation failed";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "an unsupported value or parameter was passed to the function";
    case CUBLAS_STATUS_ARCH_MISMATCH:
        return "the function requires an architectural feature absent from the device";
    case CUBLAS_STATUS_MAPPING_ERROR:
        return "an access to GPU memory space failed";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "the function failed to launch on the GPU";
    case CUBLAS_STATUS_INTERNAL_ERROR:
        return "an internal operation failed";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "the requested functionality is not supported";
    case CUBLAS_STATUS_LICENSE_ERROR:
        return "the license check failed";
    }
    return "unrecognized status";
}

/* cublas_api.h declares these for cuBLAS proper; programs use them for cuBLASLt's statuses too. */
const char *cublasGetStatusName(cublasStatus_t status)
{
    return cublasLtGetStatusName(status);
}

const char *cublasGetStatusString(cublasStatus_t status)
{
    return cublasLtGetStatusString(status);
}
}
