/* Dense products on the host's processor, for the libraries of the SIMT device: f32, bf16 and f16
 * operands, sums in f32 in a fixed order. */
#ifndef CT_TESTS_SIMT_PRODUCT_H
#define CT_TESTS_SIMT_PRODUCT_H

#include <library_types.h>

#include <cstddef>
#include <cstdint>

namespace simt
{

size_t element_bytes(cudaDataType type); /* 0: a type that is not supported */
float load_element(cudaDataType type, const void *data, int64_t index);
void store_element(cudaDataType type, void *data, int64_t index, float value);

struct MatrixView {
    const void *data;
    cudaDataType type;
    int64_t row_stride, column_stride; /* in elements */
};

/* 10 bits of mantissa, ties away from zero, as cvt.rna.tf32 rounds. */
float round_to_tf32(float value);

/* out (m x n, f32, column-major without padding) = a (m x k) b (k x n). Partial sums of k_block
 * terms are formed one after the other and then added. */
void multiply(int64_t m, int64_t n, int64_t k, const MatrixView &a, const MatrixView &b, bool tf32,
              int64_t k_block, float *out);

/* GELU by tanh (Hendrycks and Gimpel, 2016, section 2), and its derivative. */
float gelu_tanh(float x);
float gelu_tanh_derivative(float x);

} // namespace simt

#endif
