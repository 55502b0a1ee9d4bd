/* The arithmetic behind the SIMT device's cuDNN: one convolution, in one of three directions, as an
 * execution plan holds it (cudnn.cpp fills it in, cudnn_convolution.cpp computes it). */
#ifndef CT_TESTS_SIMT_CUDNN_CONVOLUTION_H
#define CT_TESTS_SIMT_CUDNN_CONVOLUTION_H

#include <cudnn.h>

#include <cstddef>
#include <cstdint>

namespace simt
{

/* What an engine does to the result, and says so in its numerical notes. */
enum class Arithmetic {
    exact,            /* sums in f32 */
    tensor_core,      /* f32 operands are rounded to TF32 */
    nondeterministic, /* as tensor_core; the last bit of each sum is random, as with atomics */
    reduced,          /* as tensor_core; sums keep 6 bits of mantissa */
    atomic_sums       /* as tensor_core; sums over the result are added to what is there, at random
                         with another last bit */
};

struct ConvolutionTensor {
    int64_t id;
    cudnnDataType_t type;
    int64_t dim[4], stride[4]; /* N C H W */

    int64_t span() const /* elements from the first to behind the last */
    {
        int64_t last = 0;
        for (int d = 0; d < 4; d++) last += (dim[d] - 1) * stride[d];
        return last + 1;
    }
};

enum class Direction { forward, backward_data, backward_filter };

struct Convolution {
    Direction direction;
    ConvolutionTensor x, w, y;
    bool sums;                              /* forward, summing over y's pixels too: */
    ConvolutionTensor sum, square_sum;      /* f32, a channel each; of y before it is rounded */
    int64_t stride[2], pad[2], dilation[2]; /* height, width; padding alike on both sides */
    float alpha, beta;
    Arithmetic arithmetic;
};

size_t cudnn_element_bytes(cudnnDataType_t type); /* 0: not supported */

/* The written one of x, w, y = alpha result + beta what it holds. sum and square_sum: NULL without
 * sums. */
void convolve(const Convolution &c, void *x, void *w, void *y, void *sum, void *square_sum);

} // namespace simt

#endif
