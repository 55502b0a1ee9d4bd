/* cuBLASLt's products and epilogues against plain loops in f64, and what it refuses. */
#include "runtime_support.h"

#include <cublasLt.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "simt/product.h"

namespace
{

constexpr size_t WORKSPACE = 64 << 10;

#define LT(call) CHECK((call) == CUBLAS_STATUS_SUCCESS)

struct Shape {
    int64_t m, n, k;
    bool ta, tb;
    cudaDataType in, out;
    int32_t batch;
    cublasComputeType_t compute;
};

/* A device matrix of `count` elements, values in [-1, 1) rounded to its type. */
struct Array {
    cudaDataType type;
    int64_t count;
    void *device = nullptr;
    std::vector<char> host;

    Array(cudaDataType type_, int64_t count_, bool fill) : type(type_), count(count_)
    {
        host.resize((size_t)count * simt::element_bytes(type));
        for (int64_t i = 0; i < count; i++)
            simt::store_element(type, host.data(), i,
                                fill ? (float)simt::random_below(2048) / 1024 - 1 : NAN);
        OK(cudaMalloc(&device, host.size()));
        OK(cudaMemcpy(device, host.data(), host.size(), cudaMemcpyHostToDevice));
        OK(cudaDeviceSynchronize());
    }
    Array(const Array &) = delete;
    ~Array() { OK(cudaFree(device)); }

    double at(int64_t i) const { return simt::load_element(type, host.data(), i); }
    void download() { OK(cudaMemcpy(host.data(), device, host.size(), cudaMemcpyDeviceToHost)); }
};

struct Matmul {
    Shape s;
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulPreference_t preference;
    int64_t lda, ldb, ldd, aux_ld;

    explicit Matmul(const Shape &shape) : s(shape)
    {
        int64_t a_rows = s.ta ? s.k : s.m, b_rows = s.tb ? s.n : s.k;
        lda = a_rows + 3;
        ldb = b_rows + 1;
        ldd = s.m + 2;
        aux_ld = (s.m + 7) / 8 * 8;
        LT(cublasLtCreate(&handle));
        LT(cublasLtMatmulDescCreate(&desc, s.compute, CUDA_R_32F));
        LT(cublasLtMatrixLayoutCreate(&a, s.in, (uint64_t)a_rows, (uint64_t)(s.ta ? s.m : s.k),
                                      lda));
        LT(cublasLtMatrixLayoutCreate(&b, s.in, (uint64_t)b_rows, (uint64_t)(s.tb ? s.k : s.n),
                                      ldb));
        LT(cublasLtMatrixLayoutCreate(&d, s.out, (uint64_t)s.m, (uint64_t)s.n, ldd));
        LT(cublasLtMatmulPreferenceCreate(&preference));
        uint64_t most = WORKSPACE;
        LT(cublasLtMatmulPreferenceSetAttribute(
            preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most, sizeof most));
        set(CUBLASLT_MATMUL_DESC_TRANSA, s.ta ? CUBLAS_OP_T : CUBLAS_OP_N);
        set(CUBLASLT_MATMUL_DESC_TRANSB, s.tb ? CUBLAS_OP_T : CUBLAS_OP_N);
        batch(a, a_bytes());
        batch(b, b_bytes());
        batch(d, d_count());
    }
    ~Matmul()
    {
        LT(cublasLtMatmulPreferenceDestroy(preference));
        for (cublasLtMatrixLayout_t layout : {a, b, d}) LT(cublasLtMatrixLayoutDestroy(layout));
        LT(cublasLtMatmulDescDestroy(desc));
        LT(cublasLtDestroy(handle));
    }

    int64_t a_bytes() const { return lda * (s.ta ? s.m : s.k); }
    int64_t b_bytes() const { return ldb * (s.tb ? s.k : s.n); }
    int64_t d_count() const { return ldd * s.n; }

    template <class T> void set(cublasLtMatmulDescAttributes_t attribute, T value)
    {
        LT(cublasLtMatmulDescSetAttribute(desc, attribute, &value, sizeof value));
    }
    void batch(cublasLtMatrixLayout_t layout, int64_t stride)
    {
        LT(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &s.batch,
                                            sizeof s.batch));
        LT(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                            &stride, sizeof stride));
    }
    int choose(cublasLtMatmulHeuristicResult_t *results, int most)
    {
        int found;
        LT(cublasLtMatmulAlgoGetHeuristic(handle, desc, a, b, d, d, preference, most, results,
                                          &found));
        return found;
    }
};

double gelu(double x)
{
    return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

double gelu_slope(double x)
{
    double h = 1e-6;
    return (gelu(x + h) - gelu(x - h)) / (2 * h);
}

double rounding(cudaDataType type)
{
    return type == CUDA_R_32F ? 1.2e-7 : type == CUDA_R_16F ? 9.8e-4 : 7.9e-3;
}

/* Sums of k products of numbers in [-1, 1) wander to about sqrt(k) / 3; each of the k roundings is
 * relative to that, and they add up as sqrt(k). `size` scales the sum. */
void near(double found, double expected, double size, const Shape &s)
{
    double k = (double)s.k, products = 1.2e-7 * (k / 3 + 1);
    if (s.compute == CUBLAS_COMPUTE_32F_FAST_TF32) products += std::ldexp(1, -11) * std::sqrt(k);
    double limit = rounding(s.out) * (std::fabs(expected) + 1e-6) + products * size;
    if (!(std::fabs(found - expected) <= limit)) {
        fprintf(stderr, "%g, expected %g within %g\n", found, expected, limit);
        CHECK(!"close enough");
    }
}

/* One call with every result compared; the f64 loop is the epilogue's definition. */
void compare(const Shape &s, uint32_t epilogue, float alpha, float beta)
{
    Matmul call(s);
    Array a(s.in, call.a_bytes() * s.batch, true), b(s.in, call.b_bytes() * s.batch, true);
    Array c(s.out, call.d_count() * s.batch, true), d(s.out, call.d_count() * s.batch, false);
    bool adds_bias = epilogue & CUBLASLT_EPILOGUE_BIAS, dgelu = epilogue & 64;
    Array bias(s.out, std::max(s.m, s.n), adds_bias), aux(s.out, call.aux_ld * s.n, dgelu);
    Array workspace(CUDA_R_32F, WORKSPACE / 4, true);
    call.set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    if (epilogue & (4 | 16 | 256 | 512)) call.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias.device);
    if (epilogue & 128) {
        call.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, aux.device);
        call.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, call.aux_ld);
    }
    cublasLtMatmulHeuristicResult_t chosen[8];
    int found = call.choose(chosen, 8);
    CHECK(found >= 2 && chosen[0].workspaceSize > 0 && chosen[0].workspaceSize <= WORKSPACE);
    const cublasLtMatmulHeuristicResult_t &use = chosen[simt::random_below((uint32_t)found)];
    LT(cublasLtMatmul(call.handle, call.desc, &alpha, a.device, call.a, b.device, call.b, &beta,
                      c.device, call.d, d.device, call.d, &use.algo, workspace.device, WORKSPACE,
                      nullptr));
    for (Array *array : {&d, &bias, &aux, &workspace}) array->download();
    if (use.workspaceSize) CHECK(std::isnan(workspace.at(0)));

    std::vector<double> row_sums((size_t)s.m), a_sums((size_t)s.m), b_sums((size_t)s.n);
    for (int64_t z = 0; z < s.batch; z++)
        for (int64_t j = 0; j < s.n; j++) {
            b_sums[(size_t)j] = 0;
            for (int64_t i = 0; i < s.m; i++) {
                double sum = 0;
                a_sums[(size_t)i] = b_sums[(size_t)j] = 0;
                for (int64_t p = 0; p < s.k; p++) {
                    double left =
                        a.at(z * call.a_bytes() + (s.ta ? i * call.lda + p : p * call.lda + i));
                    double right =
                        b.at(z * call.b_bytes() + (s.tb ? p * call.ldb + j : j * call.ldb + p));
                    sum += left * right;
                    a_sums[(size_t)i] += left;
                    b_sums[(size_t)j] += right;
                }
                int64_t at = z * call.d_count() + j * call.ldd + i;
                double value = alpha * sum + beta * c.at(at);
                if (adds_bias) value += bias.at(i);
                if ((epilogue & 128) && !dgelu) near(aux.at(j * call.aux_ld + i), value, 1, s);
                if (dgelu) value *= gelu_slope(aux.at(j * call.aux_ld + i));
                if (epilogue & CUBLASLT_EPILOGUE_GELU) value = gelu(value);
                if (epilogue & CUBLASLT_EPILOGUE_RELU) value = std::max(value, 0.0);
                row_sums[(size_t)i] += value;
                near(d.at(at), value, 1, s);
            }
        }
    for (int64_t i = 0; i < s.m && (epilogue & 16); i++)
        near(bias.at(i), row_sums[(size_t)i], (double)s.n, s);
    for (int64_t i = 0; i < s.m && (epilogue & 256); i++) near(bias.at(i), a_sums[(size_t)i], 1, s);
    for (int64_t j = 0; j < s.n && (epilogue & 512); j++) near(bias.at(j), b_sums[(size_t)j], 1, s);
}

const cudaDataType F32 = CUDA_R_32F, F16 = CUDA_R_16F, BF16 = CUDA_R_16BF;
const cublasComputeType_t FULL = CUBLAS_COMPUTE_32F, TF32 = CUBLAS_COMPUTE_32F_FAST_TF32;

void products_of_all_types_and_forms(void **)
{
    expect_success({}, [] {
        const std::pair<cudaDataType, cudaDataType> types[] = {
            {F32, F32}, {F16, F16}, {BF16, BF16}, {BF16, F32}, {F16, F32}};
        for (const auto &type : types)
            for (int form = 0; form < 4; form++)
                compare({37, 29, 530, (form & 1) != 0, (form & 2) != 0, type.first, type.second,
                         1 + form % 2, FULL},
                        CUBLASLT_EPILOGUE_DEFAULT, 0.5f, form % 2 ? 0.25f : 0.0f);
        compare({64, 17, 96, true, false, F32, F32, 1, TF32}, CUBLASLT_EPILOGUE_DEFAULT, 1, 0);
        compare({150, 201, 8, true, false, F32, F32, 1, FULL}, CUBLASLT_EPILOGUE_DEFAULT, 1, 1);
        compare({1, 1, 1, false, false, F32, F32, 1, FULL}, CUBLASLT_EPILOGUE_DEFAULT, 1, 0);
        return 0;
    });
}

void every_epilogue(void **)
{
    expect_success({}, [] {
        const cublasLtEpilogue_t epilogues[] = {
            CUBLASLT_EPILOGUE_RELU,      CUBLASLT_EPILOGUE_BIAS,
            CUBLASLT_EPILOGUE_RELU_BIAS, CUBLASLT_EPILOGUE_GELU,
            CUBLASLT_EPILOGUE_GELU_BIAS, CUBLASLT_EPILOGUE_GELU_AUX,
            CUBLASLT_EPILOGUE_DGELU,     CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
            CUBLASLT_EPILOGUE_BGRADA,    CUBLASLT_EPILOGUE_DGELU_BGRAD,
            CUBLASLT_EPILOGUE_BGRADB};
        for (cublasLtEpilogue_t epilogue : epilogues)
            for (cudaDataType type : {F32, F16, BF16})
                compare({45, 23, 40, true, false, type, type, 1, FULL}, epilogue, 1, 0);
        return 0;
    });
}

void misuse_is_refused(void **)
{
    Ending ending = in_child({}, [] {
        Matmul call({16, 16, 16, false, false, F32, F32, 1, FULL});
        Array a(F32, 500, true), b(F32, 500, true), d(F32, 500, false);
        Array workspace(F32, WORKSPACE / 4, true);
        cublasLtMatmulHeuristicResult_t chosen;
        CHECK(call.choose(&chosen, 1) == 1);
        float one = 1, zero = 0;
        auto run = [&](const void *alpha, char *at, size_t workspace_bytes) {
            return cublasLtMatmul(call.handle, call.desc, alpha, at, call.a, b.device, call.b,
                                  &zero, d.device, call.d, d.device, call.d, &chosen.algo,
                                  workspace.device, workspace_bytes, nullptr);
        };
        char *at = (char *)a.device;
        LT(run(&one, at, WORKSPACE));
        CHECK(run(nullptr, at, WORKSPACE) == CUBLAS_STATUS_INVALID_VALUE);
        CHECK(run(&one, nullptr, WORKSPACE) == CUBLAS_STATUS_INVALID_VALUE);
        CHECK(run(&one, at + 4, WORKSPACE) == CUBLAS_STATUS_NOT_SUPPORTED);
        CHECK(run(&one, at, chosen.workspaceSize - 1) == CUBLAS_STATUS_INVALID_VALUE);
        call.set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
        CHECK(run(&one, at, WORKSPACE) == CUBLAS_STATUS_NOT_SUPPORTED); /* another problem's */
        int64_t ld = 15;
        LT(cublasLtMatrixLayoutSetAttribute(call.b, CUBLASLT_MATRIX_LAYOUT_LD, &ld, sizeof ld));
        CHECK(run(&one, at, WORKSPACE) == CUBLAS_STATUS_INVALID_VALUE);
        CHECK(cublasLtMatmulDescSetAttribute(call.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &one,
                                             4) == CUBLAS_STATUS_INVALID_VALUE);
        return 0;
    });
    assert_int_equal(ending.status, 0);
    assert_true(ending.says("chosen for another problem"));
    expect_fault("of A are not within a live device allocation", [] {
        Matmul call({16, 16, 16, false, false, F32, F32, 1, FULL});
        Array a(F32, 250, true), b(F32, 500, true), d(F32, 500, false);
        float one = 1, zero = 0;
        LT(cublasLtMatmul(call.handle, call.desc, &one, a.device, call.a, b.device, call.b, &zero,
                          d.device, call.d, d.device, call.d, nullptr, nullptr, 0, nullptr));
        OK(cudaDeviceSynchronize());
        return 0;
    });
    expect_fault("D overlaps A", [] {
        Matmul call({16, 16, 16, false, false, F32, F32, 1, FULL});
        Array a(F32, 500, true), b(F32, 500, true);
        float one = 1, zero = 0;
        LT(cublasLtMatmul(call.handle, call.desc, &one, a.device, call.a, b.device, call.b, &zero,
                          a.device, call.d, a.device, call.d, nullptr, nullptr, 0, nullptr));
        OK(cudaDeviceSynchronize());
        return 0;
    });
    expect_fault("leak: 1 x cuBLASLt handle", [] {
        cublasLtHandle_t handle;
        return (int)cublasLtCreate(&handle);
    });
    Environment first_fails = {{"CT_SIMT_FAIL", "1"}, {"CT_SIMT_FAIL_KIND", "library"}};
    expect_success(first_fails, [] {
        cublasLtHandle_t handle;
        CHECK(cublasLtCreate(&handle) == CUBLAS_STATUS_ALLOC_FAILED);
        return 0;
    });
}

} // namespace

int run_cublaslt_tests()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(products_of_all_types_and_forms),
        cmocka_unit_test(every_epilogue),
        cmocka_unit_test(misuse_is_refused),
    };
    return cmocka_run_group_tests_name("simt_runtime_cublaslt", tests, nullptr, nullptr);
}
