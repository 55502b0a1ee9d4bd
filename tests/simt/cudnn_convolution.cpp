/* Convolutions as products with the matrix of patches (Chellapilla, Puri and Simard, 2006): one row
 * a pixel of y, one column an element of the window. A few images at a time, so that small ones
 * fill the product's blocks. */
#include "cudnn_convolution.h"

#include "product.h"
#include "simt.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace simt
{
namespace
{

constexpr int64_t TERMS_AT_ONCE = 256; /* partial sums of so many terms, then their sum */
constexpr int64_t ROWS_AT_ONCE = 1024; /* pixels of y a product */

cudaDataType cuda_type(cudnnDataType_t type)
{
    return type == CUDNN_DATA_HALF       ? CUDA_R_16F
           : type == CUDNN_DATA_BFLOAT16 ? CUDA_R_16BF
                                         : CUDA_R_32F;
}

/* Calls visit(offset in the tensor, place without gaps) for the elements of some images, channels
 * fastest. */
template <typename Visit>
void for_each(const ConvolutionTensor &t, int64_t first, int64_t count, Visit visit)
{
    int64_t packed = 0;
    for (int64_t n = first; n < first + count; n++)
        for (int64_t h = 0; h < t.dim[2]; h++)
            for (int64_t w = 0; w < t.dim[3]; w++) {
                const int64_t start = n * t.stride[0] + h * t.stride[2] + w * t.stride[3];
                for (int64_t c = 0; c < t.dim[1]; c++) visit(start + c * t.stride[1], packed++);
            }
}

/* Images [first, first + count) as f32, N H W C without gaps. */
std::vector<float> read(const ConvolutionTensor &t, const void *data, int64_t first, int64_t count)
{
    std::vector<float> values((size_t)(count * t.dim[1] * t.dim[2] * t.dim[3]));
    const cudaDataType type = cuda_type(t.type);
    for_each(t, first, count, [&](int64_t from, int64_t to) {
        values[(size_t)to] = load_element(type, data, from);
    });
    return values;
}

float finish(const Convolution &c, float sum)
{
    uint32_t bits;
    switch (c.arithmetic) {
    case Arithmetic::nondeterministic:
        return random_below(2) ? sum : sum * (1.0f + 0x1p-23f);
    case Arithmetic::reduced:
        memcpy(&bits, &sum, sizeof bits);
        bits &= 0xfffe0000;
        memcpy(&sum, &bits, sizeof sum);
        return sum;
    default:
        return sum;
    }
}

void write(const Convolution &c, const ConvolutionTensor &t, void *data, int64_t first,
           int64_t count, const float *values)
{
    const cudaDataType type = cuda_type(t.type);
    for_each(t, first, count, [&](int64_t to, int64_t from) {
        const float before = c.beta != 0.0f ? c.beta * load_element(type, data, to) : 0.0f;
        store_element(type, data, to, c.alpha * finish(c, values[from]) + before);
    });
}

/* Sizes that the three directions share. */
struct Sizes {
    int64_t images, h, w, ci, ho, wo, co, kh, kw;
    int64_t pixels, window; /* of y an image; elements of a window */
    int64_t images_at_once;

    explicit Sizes(const Convolution &c)
        : images(c.x.dim[0]), h(c.x.dim[2]), w(c.x.dim[3]), ci(c.x.dim[1]), ho(c.y.dim[2]),
          wo(c.y.dim[3]), co(c.y.dim[1]), kh(c.w.dim[2]), kw(c.w.dim[3]), pixels(ho * wo),
          window(kh * kw * ci),
          images_at_once(std::min(images, std::max<int64_t>(1, ROWS_AT_ONCE / pixels)))
    {
    }
};

/* Calls visit(row of the matrix, column, pixel of x) for each run of ci elements that lies within
 * an image; what lies outside is padding. */
template <typename Visit>
void for_each_run(const Convolution &c, const Sizes &s, int64_t count, Visit visit)
{
    for (int64_t n = 0; n < count; n++)
        for (int64_t p = 0; p < s.pixels; p++)
            for (int64_t i = 0; i < s.kh; i++)
                for (int64_t j = 0; j < s.kw; j++) {
                    const int64_t y = p / s.wo * c.stride[0] - c.pad[0] + i * c.dilation[0];
                    const int64_t x = p % s.wo * c.stride[1] - c.pad[1] + j * c.dilation[1];
                    if (y < 0 || y >= s.h || x < 0 || x >= s.w) continue;
                    visit(n * s.pixels + p, (i * s.kw + j) * s.ci, (n * s.h + y) * s.w + x);
                }
}

std::vector<float> patches(const Convolution &c, const Sizes &s, const std::vector<float> &x,
                           int64_t count)
{
    std::vector<float> matrix((size_t)(count * s.pixels * s.window), 0.0f);
    for_each_run(c, s, count, [&](int64_t row, int64_t column, int64_t pixel) {
        memcpy(&matrix[(size_t)(row * s.window + column)], &x[(size_t)(pixel * s.ci)],
               (size_t)s.ci * sizeof(float));
    });
    return matrix;
}

MatrixView view(const std::vector<float> &matrix, int64_t row_stride, int64_t column_stride)
{
    return {matrix.data(), CUDA_R_32F, row_stride, column_stride};
}

bool rounds_to_tf32(const Convolution &c)
{
    return c.arithmetic != Arithmetic::exact && c.x.type == CUDNN_DATA_FLOAT;
}

/* Adds the sums over these pixels (count, co), each formed by itself first. */
void add_sums(int64_t count, int64_t co, const float *values, float *sum, float *square_sum)
{
    std::vector<float> part((size_t)co, 0.0f), square_part(part);
    for (int64_t i = 0; i < count * co; i++) {
        part[(size_t)(i % co)] += values[i];
        square_part[(size_t)(i % co)] += values[i] * values[i];
    }
    for (int64_t i = 0; i < co; i++) {
        sum[i] += part[(size_t)i];
        square_sum[i] += square_part[(size_t)i];
    }
}

void forward(const Convolution &c, const void *x, const void *w, void *y, float *sum,
             float *square_sum)
{
    const Sizes s(c);
    const bool adds = c.arithmetic == Arithmetic::atomic_sums;
    for (int64_t i = 0; c.sums && !adds && i < s.co; i++) sum[i] = square_sum[i] = 0.0f;
    const std::vector<float> filter = read(c.w, w, 0, s.co);
    for (int64_t n = 0; n < s.images; n += s.images_at_once) {
        const int64_t count = std::min(s.images_at_once, s.images - n);
        const std::vector<float> matrix = patches(c, s, read(c.x, x, n, count), count);
        std::vector<float> result((size_t)(count * s.pixels * s.co));
        multiply(s.co, count * s.pixels, s.window, view(filter, s.window, 1),
                 view(matrix, 1, s.window), rounds_to_tf32(c), TERMS_AT_ONCE, result.data());
        write(c, c.y, y, n, count, result.data());
        if (c.sums) add_sums(count * s.pixels, s.co, result.data(), sum, square_sum);
    }
    for (int64_t i = 0; c.sums && adds && i < s.co; i++)
        if (random_below(2)) square_sum[i] *= 1.0f + 0x1p-23f;
}

void backward_data(const Convolution &c, void *dx, const void *w, const void *dy)
{
    const Sizes s(c);
    const std::vector<float> filter = read(c.w, w, 0, s.co);
    for (int64_t n = 0; n < s.images; n += s.images_at_once) {
        const int64_t count = std::min(s.images_at_once, s.images - n);
        const std::vector<float> gradient = read(c.y, dy, n, count);
        std::vector<float> matrix((size_t)(count * s.pixels * s.window));
        multiply(s.window, count * s.pixels, s.co, view(filter, 1, s.window),
                 view(gradient, 1, s.co), rounds_to_tf32(c), TERMS_AT_ONCE, matrix.data());
        std::vector<float> result((size_t)(count * s.h * s.w * s.ci), 0.0f);
        for_each_run(c, s, count, [&](int64_t row, int64_t column, int64_t pixel) {
            const float *from = &matrix[(size_t)(row * s.window + column)];
            float *to = &result[(size_t)(pixel * s.ci)];
            for (int64_t i = 0; i < s.ci; i++) to[i] += from[i];
        });
        write(c, c.x, dx, n, count, result.data());
    }
}

void backward_filter(const Convolution &c, const void *x, void *dw, const void *dy)
{
    const Sizes s(c);
    std::vector<float> sum((size_t)(s.co * s.window), 0.0f), part(sum.size());
    for (int64_t n = 0; n < s.images; n += s.images_at_once) {
        const int64_t count = std::min(s.images_at_once, s.images - n);
        const std::vector<float> matrix = patches(c, s, read(c.x, x, n, count), count);
        const std::vector<float> gradient = read(c.y, dy, n, count);
        multiply(s.window, s.co, count * s.pixels, view(matrix, 1, s.window),
                 view(gradient, s.co, 1), rounds_to_tf32(c), TERMS_AT_ONCE, part.data());
        for (size_t i = 0; i < sum.size(); i++) sum[i] += part[i];
    }
    write(c, c.w, dw, 0, s.co, sum.data());
}

} // namespace

size_t cudnn_element_bytes(cudnnDataType_t type)
{
    switch (type) {
    case CUDNN_DATA_FLOAT:
        return 4;
    case CUDNN_DATA_HALF:
    case CUDNN_DATA_BFLOAT16:
        return 2;
    default:
        return 0;
    }
}

void convolve(const Convolution &c, void *x, void *w, void *y, void *sum, void *square_sum)
{
    switch (c.direction) {
    case Direction::forward:
        return forward(c, x, w, y, static_cast<float *>(sum), static_cast<float *>(square_sum));
    case Direction::backward_data:
        return backward_data(c, x, w, y);
    case Direction::backward_filter:
        return backward_filter(c, x, w, y);
    }
}

} // namespace simt
