/* A blocked product after Goto and van de Geijn, "Anatomy of High-Performance Matrix
 * Multiplication" (2008): blocks of both operands are converted to f32 and packed into strips, so
 * that the inner loop runs on registers and consecutive memory whatever type, stride and
 * transposition came in. */
#include "product.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace simt
{
namespace
{

typedef float vec __attribute__((vector_size(32)));
constexpr int64_t LANES = 8;
constexpr int64_t STRIP_ROWS = 2 * LANES, STRIP_COLUMNS = 6; /* 12 of 16 registers accumulate */
constexpr int64_t BLOCK_ROWS = 8 * STRIP_ROWS, BLOCK_COLUMNS = 32 * STRIP_COLUMNS;

float from_bf16(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

uint16_t to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff; /* the NaN that __float2bfloat16 gives */
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

template <cudaDataType type> float load(const void *data, int64_t index)
{
    if constexpr (type == CUDA_R_32F) return static_cast<const float *>(data)[index];
    if constexpr (type == CUDA_R_16F) return (float)static_cast<const _Float16 *>(data)[index];
    if constexpr (type == CUDA_R_16BF) return from_bf16(static_cast<const uint16_t *>(data)[index]);
}

/* strips[s][c][r] = view(s * strip + r, c) for `rows` x `columns` elements from (row, column); rows
 * that fill up the last strip are zero. */
template <cudaDataType type, int64_t strip>
void pack_as(const MatrixView &view, int64_t row, int64_t column, int64_t rows, int64_t columns,
             bool tf32, float *strips)
{
    for (int64_t first = 0; first < rows; first += strip, strips += strip * columns) {
        int64_t count = std::min(strip, rows - first);
        int64_t start = (row + first) * view.row_stride + column * view.column_stride;
        if (count < strip) memset(strips, 0, (size_t)(strip * columns) * sizeof *strips);
        if (view.row_stride == 1) {
            for (int64_t c = 0; c < columns; c++)
                for (int64_t r = 0; r < count; r++)
                    strips[c * strip + r] =
                        load<type>(view.data, start + c * view.column_stride + r);
        } else {
            for (int64_t r = 0; r < count; r++)
                for (int64_t c = 0; c < columns; c++)
                    strips[c * strip + r] =
                        load<type>(view.data, start + c * view.column_stride + r * view.row_stride);
        }
        if (tf32)
            for (int64_t i = 0; i < strip * columns; i++) strips[i] = round_to_tf32(strips[i]);
    }
}

template <int64_t strip>
void pack(const MatrixView &view, int64_t row, int64_t column, int64_t rows, int64_t columns,
          bool tf32, float *strips)
{
    if (view.type == CUDA_R_32F)
        pack_as<CUDA_R_32F, strip>(view, row, column, rows, columns, tf32, strips);
    else if (view.type == CUDA_R_16F)
        pack_as<CUDA_R_16F, strip>(view, row, column, rows, columns, tf32, strips);
    else pack_as<CUDA_R_16BF, strip>(view, row, column, rows, columns, tf32, strips);
}

/* out (rows x columns of a strip, column-major with `ld`) += a strip times b strip. */
void multiply_strips(const float *a, const float *b, int64_t k, float *out, int64_t ld,
                     int64_t rows, int64_t columns)
{
    vec sums[STRIP_COLUMNS][2] = {};
    for (int64_t p = 0; p < k; p++, a += STRIP_ROWS, b += STRIP_COLUMNS) {
        vec low, high;
        memcpy(&low, a, sizeof low);
        memcpy(&high, a + LANES, sizeof high);
#pragma GCC unroll 6
        for (int64_t c = 0; c < STRIP_COLUMNS; c++) {
            sums[c][0] += low * b[c];
            sums[c][1] += high * b[c];
        }
    }
    for (int64_t c = 0; c < columns; c++) {
        float column[STRIP_ROWS];
        memcpy(column, sums[c], sizeof column);
        for (int64_t r = 0; r < rows; r++) out[c * ld + r] += column[r];
    }
}

int64_t round_up(int64_t value, int64_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

} // namespace

size_t element_bytes(cudaDataType type)
{
    return type == CUDA_R_32F ? 4 : type == CUDA_R_16F || type == CUDA_R_16BF ? 2 : 0;
}

float load_element(cudaDataType type, const void *data, int64_t index)
{
    return type == CUDA_R_32F   ? load<CUDA_R_32F>(data, index)
           : type == CUDA_R_16F ? load<CUDA_R_16F>(data, index)
                                : load<CUDA_R_16BF>(data, index);
}

void store_element(cudaDataType type, void *data, int64_t index, float value)
{
    if (type == CUDA_R_32F) static_cast<float *>(data)[index] = value;
    else if (type == CUDA_R_16F) static_cast<_Float16 *>(data)[index] = (_Float16)value;
    else static_cast<uint16_t *>(data)[index] = to_bf16(value);
}

float round_to_tf32(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7f800000) != 0x7f800000) bits = (bits + 0x1000) & ~0x1fffu;
    memcpy(&value, &bits, sizeof value);
    return value;
}

void multiply(int64_t m, int64_t n, int64_t k, const MatrixView &a, const MatrixView &b, bool tf32,
              int64_t k_block, float *out)
{
    std::fill(out, out + m * n, 0.0f);
    std::vector<float> a_strips((size_t)(BLOCK_ROWS * std::min(k, k_block)));
    std::vector<float> b_strips(
        (size_t)(round_up(std::min(n, BLOCK_COLUMNS), STRIP_COLUMNS) * std::min(k, k_block)));
    const MatrixView b_transposed = {b.data, b.type, b.column_stride, b.row_stride};
    for (int64_t column = 0; column < n; column += BLOCK_COLUMNS) {
        int64_t columns = std::min(BLOCK_COLUMNS, n - column);
        for (int64_t first = 0; first < k; first += k_block) {
            int64_t terms = std::min(k_block, k - first);
            pack<STRIP_COLUMNS>(b_transposed, column, first, columns, terms, tf32, b_strips.data());
            for (int64_t row = 0; row < m; row += BLOCK_ROWS) {
                int64_t rows = std::min(BLOCK_ROWS, m - row);
                pack<STRIP_ROWS>(a, row, first, rows, terms, tf32, a_strips.data());
                for (int64_t c = 0; c < columns; c += STRIP_COLUMNS)
                    for (int64_t r = 0; r < rows; r += STRIP_ROWS)
                        multiply_strips(
                            &a_strips[(size_t)(r * terms)], &b_strips[(size_t)(c * terms)], terms,
                            out + (column + c) * m + row + r, m, std::min(STRIP_ROWS, rows - r),
                            std::min(STRIP_COLUMNS, columns - c));
            }
        }
    }
}

float gelu_tanh(float x)
{
    const float c = 0.7978845608f; /* sqrt(2 / pi) */
    return 0.5f * x * (1 + std::tanh(c * (x + 0.044715f * x * x * x)));
}

float gelu_tanh_derivative(float x)
{
    const float c = 0.7978845608f;
    float t = std::tanh(c * (x + 0.044715f * x * x * x));
    return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * c * (1 + 3 * 0.044715f * x * x);
}

} // namespace simt
