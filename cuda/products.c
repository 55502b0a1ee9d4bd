#include "cuda/products.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS 1024

/* All that a plan depends on. Only 64-bit members: no padding, so keys are hashed and compared as
 * bytes. */
typedef struct plan_key {
    int64_t m, n, k;
    int64_t transpose_a, transpose_b;
    int64_t dtype, c_dtype;
    int64_t epilogue;
    int64_t accumulates; /* beta is not 0 */
    int64_t a_alignment, b_alignment, c_alignment, bias_alignment;
} plan_key;

struct ct_cuda_plan {
    plan_key key;
    ct_cuda_plan *next; /* in its bucket */
    cublasLtMatmulDesc_t matmul;
    /* The library counts in columns: c^T = b^T a^T. So its A is our b, its B our a. */
    cublasLtMatrixLayout_t first, second, result;
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace_bytes;
    bool possible; /* false: the library has no algorithm */
};

struct ct_cuda_products {
    cublasLtHandle_t handle;
    ct_cuda_plan *buckets[BUCKETS];
};

ct_status ct_cuda_products_create(struct ct_cuda_products **out)
{
    struct ct_cuda_products *products;
    CT_TRY(ct_alloc(1, sizeof *products, "plans of matrix products", &products));
    const cublasStatus_t error = cublasLtCreate(&products->handle);
    if (error != CUBLAS_STATUS_SUCCESS) {
        free(products);
        return ct_cublas_failed(NULL, "cublasLtCreate", error, __FILE__, __LINE__);
    }
    *out = products;
    return CT_OK;
}

static void destroy_plan(ct_cuda_plan *plan)
{
    if (plan->result) (void)cublasLtMatrixLayoutDestroy(plan->result);
    if (plan->second) (void)cublasLtMatrixLayoutDestroy(plan->second);
    if (plan->first) (void)cublasLtMatrixLayoutDestroy(plan->first);
    if (plan->matmul) (void)cublasLtMatmulDescDestroy(plan->matmul);
    free(plan);
}

void ct_cuda_products_destroy(struct ct_cuda_products *products)
{
    if (!products) return;
    for (int i = 0; i < BUCKETS; i++)
        for (ct_cuda_plan *plan = products->buckets[i], *next; plan; plan = next) {
            next = plan->next;
            destroy_plan(plan);
        }
    (void)cublasLtDestroy(products->handle);
    free(products);
}

/* More than what every arena promises is of no use, and would only make more plans. */
static int64_t common_alignment(const void *one, const void *other)
{
    const uintptr_t bits = (uintptr_t)one | (uintptr_t)other | CT_ALIGNMENT;
    return (int64_t)(bits & (~bits + 1));
}

static plan_key key_of(const ct_cuda_product *p)
{
    return (plan_key){.m = p->m,
                      .n = p->n,
                      .k = p->k,
                      .transpose_a = p->transpose_a,
                      .transpose_b = p->transpose_b,
                      .dtype = (int64_t)p->dtype,
                      .c_dtype = (int64_t)p->c_dtype,
                      .epilogue = (int64_t)p->epilogue,
                      .accumulates = p->beta != 0.0f,
                      .a_alignment = common_alignment(p->a, NULL),
                      .b_alignment = common_alignment(p->b, NULL),
                      .c_alignment = common_alignment(p->c, p->aux),
                      .bias_alignment = common_alignment(p->bias, NULL)};
}

/* FNV-1a (Fowler, Noll, Vo) over 64-bit words, folded. */
static size_t bucket_of(const plan_key *key)
{
    uint64_t words[sizeof *key / sizeof(uint64_t)], hash = 0xcbf29ce484222325u;
    memcpy(words, key, sizeof words);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        hash = (hash ^ words[i]) * 0x100000001b3u;
    return (size_t)((hash ^ hash >> 32) % BUCKETS);
}

static cudaDataType_t data_type(ct_dtype dtype)
{
    return dtype == CT_BF16 ? CUDA_R_16BF : dtype == CT_F16 ? CUDA_R_16F : CUDA_R_32F;
}

static cublasLtEpilogue_t library_epilogue(int64_t epilogue)
{
    switch ((ct_cuda_epilogue)epilogue) {
    case CT_EPILOGUE_BIAS:
        return CUBLASLT_EPILOGUE_BIAS;
    case CT_EPILOGUE_GELU_BIAS:
        return CUBLASLT_EPILOGUE_GELU_BIAS;
    case CT_EPILOGUE_GELU_AUX_BIAS:
        return CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
    case CT_EPILOGUE_DGELU:
        return CUBLASLT_EPILOGUE_DGELU;
    case CT_EPILOGUE_NONE:
        break;
    }
    return CUBLASLT_EPILOGUE_DEFAULT;
}

static bool has_bias(int64_t epilogue)
{
    return epilogue != CT_EPILOGUE_NONE && epilogue != CT_EPILOGUE_DGELU;
}

static bool has_aux(int64_t epilogue)
{
    return epilogue == CT_EPILOGUE_GELU_AUX_BIAS || epilogue == CT_EPILOGUE_DGELU;
}

static ct_status set(const ct_cuda_device *cuda, cublasLtMatmulDesc_t matmul,
                     cublasLtMatmulDescAttributes_t attribute, const void *value, size_t bytes)
{
    CT_CUBLAS(cuda->operation, cublasLtMatmulDescSetAttribute(matmul, attribute, value, bytes));
    return CT_OK;
}

static ct_status describe_matmul(const ct_cuda_device *cuda, ct_cuda_plan *plan)
{
    const plan_key *key = &plan->key;
    const cublasComputeType_t compute =
        cuda->options.precision == CT_CUDA_TF32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    CT_CUBLAS(cuda->operation, cublasLtMatmulDescCreate(&plan->matmul, compute, CUDA_R_32F));
    const cublasOperation_t first = key->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t second = key->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    CT_TRY(set(cuda, plan->matmul, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first));
    CT_TRY(set(cuda, plan->matmul, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second));
    if (key->epilogue == CT_EPILOGUE_NONE) return CT_OK;
    const cublasLtEpilogue_t epilogue = library_epilogue(key->epilogue);
    CT_TRY(set(cuda, plan->matmul, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
    /* The choice of an algorithm reads the alignment of pointers that run sets, nothing else. */
    const void *aligned = (const void *)(uintptr_t)key->bias_alignment;
    if (has_bias(key->epilogue))
        CT_TRY(
            set(cuda, plan->matmul, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &aligned, sizeof aligned));
    if (!has_aux(key->epilogue)) return CT_OK;
    aligned = (const void *)(uintptr_t)key->c_alignment;
    CT_TRY(set(cuda, plan->matmul, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &aligned,
               sizeof aligned));
    return set(cuda, plan->matmul, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &key->n, sizeof key->n);
}

/* A row-major (rows, cols) matrix is the library's (cols, rows). */
static ct_status describe_matrix(const ct_cuda_device *cuda, cublasLtMatrixLayout_t *out,
                                 int64_t dtype, int64_t rows, int64_t cols)
{
    CT_CUBLAS(cuda->operation, cublasLtMatrixLayoutCreate(out, data_type((ct_dtype)dtype),
                                                          (uint64_t)cols, (uint64_t)rows, cols));
    return CT_OK;
}

static ct_status describe(const ct_cuda_device *cuda, ct_cuda_plan *plan)
{
    const plan_key *key = &plan->key;
    CT_TRY(describe_matmul(cuda, plan));
    CT_TRY(describe_matrix(cuda, &plan->first, key->dtype, key->transpose_b ? key->n : key->k,
                           key->transpose_b ? key->k : key->n));
    CT_TRY(describe_matrix(cuda, &plan->second, key->dtype, key->transpose_a ? key->k : key->m,
                           key->transpose_a ? key->m : key->k));
    return describe_matrix(cuda, &plan->result, key->c_dtype, key->m, key->n);
}

/* How the parts of a sum that is split among blocks may be joined. Through f32 parts in the
 * workspace, added in order by a second kernel, always. In c itself only where c is f32, else the
 * parts would be rounded, and not when determinism is asked for: blocks then take turns. */
static uint32_t reduction_schemes(const ct_cuda_device *cuda, const plan_key *key)
{
    uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    if (key->c_dtype == CT_F32 && !cuda->options.deterministic)
        schemes |= CUBLASLT_REDUCTION_SCHEME_INPLACE;
    return schemes;
}

static ct_status set_preferences(const ct_cuda_device *cuda, const plan_key *key,
                                 cublasLtMatmulPreference_t preference)
{
    /* NVIDIA's advice: 32 MiB from Hopper on, 4 MiB before. */
    const uint64_t workspace = (uint64_t)(cuda->properties.major >= 9 ? 32 : 4) << 20;
    const uint32_t schemes = reduction_schemes(cuda, key);
    const uint32_t first = (uint32_t)key->b_alignment, second = (uint32_t)key->a_alignment;
    const uint32_t result = (uint32_t)key->c_alignment;
    const struct {
        cublasLtMatmulPreferenceAttributes_t attribute;
        const void *value;
        size_t bytes;
    } rows[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &first, sizeof first},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &second, sizeof second},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &result, sizeof result},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &result, sizeof result},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        CT_CUBLAS(cuda->operation,
                  cublasLtMatmulPreferenceSetAttribute(preference, rows[i].attribute, rows[i].value,
                                                       rows[i].bytes));
    return CT_OK;
}

/* The library's first choice. */
static ct_status choose(const ct_cuda_device *cuda, ct_cuda_plan *plan)
{
    cublasLtMatmulPreference_t preference;
    CT_CUBLAS(cuda->operation, cublasLtMatmulPreferenceCreate(&preference));
    cublasLtMatmulHeuristicResult_t found = {0};
    int count = 0;
    ct_status status = set_preferences(cuda, &plan->key, preference);
    cublasStatus_t error = CUBLAS_STATUS_SUCCESS;
    if (status == CT_OK)
        error = cublasLtMatmulAlgoGetHeuristic(cuda->products->handle, plan->matmul, plan->first,
                                               plan->second, plan->result, plan->result, preference,
                                               1, &found, &count);
    (void)cublasLtMatmulPreferenceDestroy(preference);
    CT_TRY(status);
    if (error != CUBLAS_STATUS_SUCCESS && error != CUBLAS_STATUS_NOT_SUPPORTED)
        return ct_cublas_failed(cuda->operation, "cublasLtMatmulAlgoGetHeuristic", error, __FILE__,
                                __LINE__);
    plan->possible = error == CUBLAS_STATUS_SUCCESS && count > 0;
    plan->algorithm = found.algo;
    plan->workspace_bytes = plan->possible ? found.workspaceSize : 0;
    return CT_OK;
}

static ct_status make_plan(ct_cuda_device *cuda, const plan_key *key, ct_cuda_plan **out)
{
    ct_cuda_plan *plan;
    CT_TRY(ct_alloc(1, sizeof *plan, "the plan of a matrix product", &plan));
    plan->key = *key;
    ct_status status;
    CT_TRY_GOTO(status, describe(cuda, plan), fail);
    CT_TRY_GOTO(status, choose(cuda, plan), fail);
    *out = plan;
    return CT_OK;
fail:
    destroy_plan(plan);
    return status;
}

ct_status ct_cuda_product_plan(ct_cuda_device *cuda, const ct_cuda_product *product,
                               ct_cuda_plan **out)
{
    assert(product->m > 0 && product->n > 0 && product->k > 0);
    const plan_key key = key_of(product);
    ct_cuda_plan **bucket = &cuda->products->buckets[bucket_of(&key)], *plan = *bucket;
    while (plan && memcmp(&plan->key, &key, sizeof key) != 0) plan = plan->next;
    if (!plan) {
        CT_TRY(make_plan(cuda, &key, &plan));
        plan->next = *bucket;
        *bucket = plan;
    }
    if (!plan->possible)
        return ct_fail(CT_ERR_UNSUPPORTED,
                       "%s: cuBLASLt has no algorithm for a product of (%lld, %lld) and (%lld, "
                       "%lld) in %s on this GPU",
                       cuda->operation ? cuda->operation : "product", (long long)key.m,
                       (long long)key.k, (long long)key.k, (long long)key.n,
                       ct_dtype_name(product->dtype));
    *out = plan;
    return CT_OK;
}

size_t ct_cuda_product_workspace(const ct_cuda_plan *plan)
{
    return plan->workspace_bytes;
}

ct_status ct_cuda_product_run(ct_cuda_device *cuda, ct_cuda_plan *plan,
                              const ct_cuda_product *product, void *workspace)
{
    if (has_bias(product->epilogue))
        CT_TRY(set(cuda, plan->matmul, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &product->bias,
                   sizeof product->bias));
    if (has_aux(product->epilogue))
        CT_TRY(set(cuda, plan->matmul, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &product->aux,
                   sizeof product->aux));
    CT_CUBLAS(cuda->operation,
              cublasLtMatmul(cuda->products->handle, plan->matmul, &product->alpha, product->b,
                             plan->first, product->a, plan->second, &product->beta, product->c,
                             plan->result, product->c, plan->result, &plan->algorithm, workspace,
                             plan->workspace_bytes, cuda->stream));
    return CT_OK;
}
