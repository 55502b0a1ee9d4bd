#include <cmath>

#include "engine_tests.h"
#include "numeric.cuh"

namespace
{

/* Small odd fractions: all products and sums are exact in f32, so results must be equal. */
float number(int i)
{
    return (float)((i * 37 + 11) % 61 - 30) / 8.0f;
}

template <class T> std::vector<T> numbers(int count, int first)
{
    std::vector<T> values;
    for (int i = 0; i < count; i++) values.push_back(ctk::from_float<T>(number(first + i)));
    return values;
}

template <class T> __device__ uint32_t pack(T low, T high)
{
    uint16_t bits[2];
    memcpy(bits, &low, 2);
    memcpy(bits + 1, &high, 2);
    return bits[0] | (uint32_t)bits[1] << 16;
}

/* D (16 x 8) = A (16 x 16) B (16 x 8), from device memory straight into registers. */
template <class T> __global__ void product_k16(float *d, const T *a, const T *b)
{
    const int g = (int)threadIdx.x / 4, t = (int)threadIdx.x % 4;
    uint32_t fa[4], fb[2];
    for (int r = 0; r < 4; r++) {
        const T *at = a + (g + 8 * (r % 2)) * 16 + 2 * t + 8 * (r / 2);
        fa[r] = pack(at[0], at[1]);
    }
    for (int r = 0; r < 2; r++)
        fb[r] = pack(b[(2 * t + 8 * r) * 8 + g], b[(2 * t + 8 * r + 1) * 8 + g]);
    float fd[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    ctk::mma_m16n8k16<T>(fd, fa, fb);
    for (int r = 0; r < 4; r++) d[(g + 8 * (r / 2)) * 8 + 2 * t + r % 2] = fd[r];
}

/* The same with ldmatrix: A by rows, B (16 x 8, by rows) transposed on the way. */
template <class T> __global__ void product_ldmatrix(float *d, const T *a, const T *b)
{
    using row = ctk::vec<T, 8>;
    CTK_SHARED(row, shared_a, 32);
    CTK_SHARED(row, shared_b, 16);
    const int lane = (int)threadIdx.x, g = lane / 4, t = lane % 4;
    shared_a[lane] = reinterpret_cast<const row *>(a)[lane];
    if (lane < 16) shared_b[lane] = reinterpret_cast<const row *>(b)[lane];
    __syncwarp();
    uint32_t fa[4], fb[2];
    ctk::ldmatrix_x4(fa, &shared_a[lane % 16 * 2 + lane / 16]);
    ctk::ldmatrix_x2_trans(fb, &shared_b[lane % 16]);
    float fd[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    ctk::mma_m16n8k16<T>(fd, fa, fb);
    for (int r = 0; r < 4; r++) d[(g + 8 * (r / 2)) * 8 + 2 * t + r % 2] = fd[r];
}

template <class T> void expect_product(void (*kernel)(float *, const T *, const T *))
{
    const std::vector<T> a = numbers<T>(256, 0), b = numbers<T>(128, 1000);
    float *to = to_device(std::vector<float>(128));
    run(kernel, 1, 32, 0, to, (const T *)to_device(a), (const T *)to_device(b));
    const std::vector<float> d = from_device(to, 128);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            float sum = 1.0f;
            for (int k = 0; k < 16; k++)
                sum += ctk::to_float(a[i * 16 + k]) * ctk::to_float(b[k * 8 + j]);
            EXPECT(d[i * 8 + j] == sum);
        }
}

void test_products()
{
    expect_product(product_k16<__nv_bfloat16>);
    expect_product(product_k16<__half>);
    expect_product(product_ldmatrix<__nv_bfloat16>);
    expect_product(product_ldmatrix<__half>);
}

__global__ void product_tf32(float *d, const float *a, const float *b)
{
    const int g = (int)threadIdx.x / 4, t = (int)threadIdx.x % 4;
    uint32_t fa[4], fb[2];
    for (int r = 0; r < 4; r++)
        fa[r] = __float_as_uint(a[(g + 8 * (r % 2)) * 8 + t + 4 * (r / 2)]) | 0x1fffu;
    for (int r = 0; r < 2; r++) fb[r] = ctk::tf32(b[(t + 4 * r) * 8 + g]);
    float fd[4] = {};
    ctk::mma_m16n8k8_tf32(fd, fa, fb);
    for (int r = 0; r < 4; r++) d[(g + 8 * (r / 2)) * 8 + 2 * t + r % 2] = fd[r];
}

void test_tf32()
{
    const std::vector<float> a = numbers<float>(128, 0), b = numbers<float>(64, 1000);
    float *to = to_device(std::vector<float>(128));
    run(product_tf32, 1, 32, 0, to, to_device(a), to_device(b));
    const std::vector<float> d = from_device(to, 128);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            float sum = 0;
            for (int k = 0; k < 8; k++) sum += a[i * 8 + k] * b[k * 8 + j];
            EXPECT(d[i * 8 + j] == sum);
        }
    EXPECT(simt::tf32(1.0f + 0x1p-11f) == 0x3f802000u); /* tie: away from zero */
    EXPECT(simt::tf32(1.0f + 0x1p-12f) == 0x3f800000u); /* below it */
    EXPECT(simt::tf32(-INFINITY) == 0xff800000u);
}

/* Every f16 number: 1 x it, through the tensor core. */
__global__ void all_halves(float *out)
{
    const int g = (int)threadIdx.x / 4, t = (int)threadIdx.x % 4;
    const uint32_t first = blockIdx.x * 8;
    const uint32_t one = g == 0 ? 0x3c00u : 0, zero[1] = {0};
    const uint32_t fa[4] = {t == 0 ? one : 0, zero[0], zero[0], zero[0]};
    const uint32_t fb[2] = {t == 0 ? first + (uint32_t)g : 0, 0};
    float fd[4] = {};
    ctk::mma_m16n8k16<__half>(fd, fa, fb);
    if (g == 0) {
        out[first + 2 * t] = fd[0];
        out[first + 2 * t + 1] = fd[1];
    }
}

void test_all_halves()
{
    float *to = to_device(std::vector<float>(65536));
    run(all_halves, 8192, 32, 0, to);
    const std::vector<float> out = from_device(to, 65536);
    for (uint32_t bits = 0; bits < 65536; bits++) {
        const float wanted = __half2float(__ushort_as_half((unsigned short)bits));
        EXPECT(std::isnan(wanted) ? std::isnan(out[bits]) : out[bits] == wanted);
    }
}

/* Matrix m's element (row, column) is 64 m + 8 row + column. */
__global__ void load_matrices(uint32_t *out)
{
    using row = ctk::vec<uint16_t, 8>;
    CTK_SHARED(row, rows, 32);
    const int lane = (int)threadIdx.x;
    for (int i = 0; i < 8; i++) rows[lane].v[i] = (uint16_t)(8 * lane + i);
    __syncwarp();
    uint32_t r[4], t[4], r2[2];
    ctk::ldmatrix_x4(r, &rows[lane]);
    ctk::ldmatrix_x4_trans(t, &rows[lane]);
    ctk::ldmatrix_x2(r2, lane < 16 ? &rows[lane] : nullptr);
    for (int i = 0; i < 4; i++) {
        out[8 * lane + i] = r[i];
        out[8 * lane + 4 + i] = t[i];
    }
    out[256 + 2 * lane] = r2[0];
    out[256 + 2 * lane + 1] = r2[1];
}

void test_load_matrices()
{
    uint32_t *to = to_device(std::vector<uint32_t>(320));
    run(load_matrices, 1, 32, 0, to);
    const std::vector<uint32_t> out = from_device(to, 320);
    for (uint32_t lane = 0; lane < 32; lane++)
        for (uint32_t m = 0; m < 4; m++) {
            const uint32_t g = lane / 4, t = lane % 4, plain = 64 * m + 8 * g + 2 * t;
            const uint32_t across = 64 * m + 16 * t + g;
            EXPECT(out[8 * lane + m] == (plain | (plain + 1) << 16));
            EXPECT(out[8 * lane + 4 + m] == (across | (across + 8) << 16));
            if (m < 2) EXPECT(out[256 + 2 * lane + m] == out[8 * lane + m]);
        }
}

__global__ void load_misaligned(uint32_t *out)
{
    CTK_SHARED(uint32_t, words, 256);
    for (int i = 0; i < 8; i++) words[8 * threadIdx.x + i] = 0;
    __syncwarp();
    uint32_t r[4];
    ctk::ldmatrix_x4(r, words + 4 * threadIdx.x);
    out[threadIdx.x] = r[0];
}

__global__ void load_from_device(uint32_t *out)
{
    uint32_t r[4];
    ctk::ldmatrix_x4(r, out);
    out[threadIdx.x] = r[0];
}

__global__ void load_unwritten(uint32_t *out)
{
    CTK_SHARED(uint4, rows, 32);
    if (threadIdx.x < 31) rows[threadIdx.x] = uint4();
    __syncwarp();
    uint32_t r[4];
    ctk::ldmatrix_x4(r, &rows[threadIdx.x]);
    out[threadIdx.x] = r[0];
}

__global__ void multiply_in_half_a_warp(float *out)
{
    float d[4] = {};
    const uint32_t a[4] = {}, b[2] = {};
    if (threadIdx.x < 16) ctk::mma_m16n8k16<__half>(d, a, b);
    out[threadIdx.x] = d[0];
}

uint32_t *words(size_t count)
{
    return to_device(std::vector<uint32_t>(count));
}

} // namespace

const std::vector<Test> mma_tests = {
    {"mma: bf16 and f16", test_products},
    {"mma: tf32", test_tf32},
    {"mma: every f16", test_all_halves},
    {"mma: ldmatrix", test_load_matrices},
    {"mma: ldmatrix misaligned", [] { run(load_misaligned, 1, 32, 0, words(32)); },
     "misaligned address"},
    {"mma: ldmatrix of device memory", [] { run(load_from_device, 1, 32, 0, words(32)); },
     "outside shared memory's arrays"},
    {"mma: ldmatrix of an unwritten row", [] { run(load_unwritten, 1, 32, 0, words(32)); },
     "uninitialised shared memory", true},
    {"mma: half a warp",
     [] { run(multiply_in_half_a_warp, 1, 32, 0, to_device(std::vector<float>(32))); },
     "which has exited"},
};
