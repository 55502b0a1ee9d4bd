/* What comes before the losses' tiles: how much each photo weighs, and rows padded to whole units
 * of 16 bytes.
 *
 * Weights: N^2 comparisons, a few percent of the time of the products, and only with SHARE or with
 * MASK and label smoothing. Padding: both embeddings read and written once. */
#include "loss_batch.cuh"

namespace ctk::loss
{

/* weights[i] = 1/(number of photo ids equal to i's), or with `mask` 1/(pairs of row i that count).
 * A block has 32 rows, a warp every eighth quad of ids: all lanes read the same one. */
static __global__ void __launch_bounds__(SMALL_BLOCK)
    weigh_photos(float *weights, const int32_t *photo_ids, int64_t count, bool mask)
{
    constexpr int WARPS = SMALL_BLOCK / 32;
    CTK_SHARED(int, counts, SMALL_BLOCK);
    const int64_t i = (int64_t)blockIdx.x * 32 + threadIdx.x % 32;
    const int32_t own = i < count ? photo_ids[i] : 0;
    const int warp = (int)threadIdx.x / 32;
    int same = 0;
#pragma unroll 4
    for (int64_t q = warp; q < count / 4; q += WARPS) {
        const vec<int32_t, 4> ids = reinterpret_cast<const vec<int32_t, 4> *>(photo_ids)[q];
#pragma unroll
        for (int k = 0; k < 4; k++) same += ids.v[k] == own;
    }
    for (int64_t j = count / 4 * 4 + warp; j < count; j += WARPS) same += photo_ids[j] == own;
    counts[threadIdx.x] = same;
    __syncthreads();
    if (warp != 0 || i >= count) return;
    for (int w = 1; w < WARPS; w++) same += counts[w * 32 + threadIdx.x];
    weights[i] = 1.0f / (float)(mask ? count - same + 1 : (int64_t)same);
}

/* to (rows, stride) = from (rows, width), zeros behind. */
template <class T>
static __global__ void __launch_bounds__(SMALL_BLOCK)
    pad_rows(T *to, const T *from, int64_t rows, int width, int stride)
{
    const int64_t threads = (int64_t)gridDim.x * SMALL_BLOCK;
    for (int64_t i = (int64_t)blockIdx.x * SMALL_BLOCK + threadIdx.x; i < rows * stride;
         i += threads) {
        const int64_t row = i / stride, column = i % stride;
        to[i] = column < width ? from[row * width + column] : from_float<T>(0.0f);
    }
}

template <class T>
cudaError_t begin(const batch &b, operand<T> *image, operand<T> *text, const ctk_launch *l)
{
    *image = {static_cast<const T *>(b.image), b.count, b.stride, b.stride};
    *text = {static_cast<const T *>(b.text), b.count, b.stride, b.stride};
    cudaError_t error = cudaSuccess;
    if (b.padded_image) {
        const int64_t most = (int64_t)8 * l->sm_count,
                      blocks = ceil_div(b.count * b.stride, SMALL_BLOCK);
        const dim3 grid((unsigned)(blocks < most ? blocks : most));
        for (int side = 0; side < 2 && error == cudaSuccess; side++) {
            operand<T> *x = side ? text : image;
            T *padded = static_cast<T *>(side ? b.padded_text : b.padded_image);
            error = launch(pad_rows<T>, grid, dim3(SMALL_BLOCK), 0, l->stream, padded, x->data,
                           b.count, (int)b.width, (int)b.stride);
            x->data = padded;
        }
    }
    if (b.p.weights && error == cudaSuccess)
        error =
            launch(weigh_photos, dim3((unsigned)ceil_div(b.count, 32)), dim3(SMALL_BLOCK), 0,
                   l->stream, const_cast<float *>(b.p.weights), b.p.photo_ids, b.count, b.p.mask);
    return error;
}

template cudaError_t begin(const batch &, operand<float> *, operand<float> *, const ctk_launch *);
template cudaError_t begin(const batch &, operand<__nv_bfloat16> *, operand<__nv_bfloat16> *,
                           const ctk_launch *);
template cudaError_t begin(const batch &, operand<__half> *, operand<__half> *, const ctk_launch *);

} // namespace ctk::loss
