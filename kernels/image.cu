/* y = (x/255 - mean[c]) / std[c]: photos of 8 bits a channel to the compute dtype.
 *
 * Shapes  x (N, H, W, 3) u8, y the same in the compute dtype.
 * Bytes   1 + sizeof(T) an element, once. Bound by memory.
 * Plan    elements.cuh: a thread writes 16 bytes and reads the 4 or 8 that they come from, across
 *         pixels; an element's channel is its index modulo 3, so a vector's constants are the three
 *         channels' turned by that of its first element. x - 255 mean is taken with 255 mean as the
 *         sum of two floats: three roundings in all, whatever cancels.
 * Limit   none: any count of elements. */
#include "elements.cuh"
#include "kernels.h"

namespace
{

using namespace ctk;

/* y = (x - high - low) scale. */
struct channel {
    float high, low, scale;
};

struct channels {
    channel c[3];
};

template <class T>
__global__ void __launch_bounds__(element_threads, element_residency)
    image_normalize(T *__restrict__ y, const uint8_t *__restrict__ x, channels all, int64_t count)
{
    constexpr int W = vec_width<T>;
    visit_elements<W>(count, [&](auto vectors, auto wide, int64_t at) {
        constexpr int n = decltype(vectors)::value, w = decltype(wide)::value;
        vec<uint8_t, w> pixel[n];
#pragma unroll
        for (int i = 0; i < n; i++)
            pixel[i] = *reinterpret_cast<const vec<uint8_t, w> *>(x + at + i * element_step<W>);
#pragma unroll
        for (int i = 0; i < n; i++) {
            const int first = (int)((at + i * element_step<W>) % 3);
            channel turned[3];
#pragma unroll
            for (int c = 0; c < 3; c++)
                turned[c] = first == 0   ? all.c[c]
                            : first == 1 ? all.c[(c + 1) % 3]
                                         : all.c[(c + 2) % 3];
            float v[w];
#pragma unroll
            for (int k = 0; k < w; k++) {
                const channel &c = turned[k % 3];
                v[k] = ((float)pixel[i].v[k] - c.high - c.low) * c.scale;
            }
            store(y + at + i * element_step<W>, v);
        }
    });
}

} // namespace

extern "C" cudaError_t ctk_image_normalize_fwd(const ct_image_normalize_fwd_args *args,
                                               const ctk_launch *launch)
{
    channels all;
    for (int c = 0; c < 3; c++) {
        const double offset = 255.0 * (double)args->mean[c];
        all.c[c].high = (float)offset;
        all.c[c].low = (float)(offset - (double)all.c[c].high);
        all.c[c].scale = (float)(1.0 / (255.0 * (double)args->std[c]));
    }
    const int64_t count = ct_tensor_count(&args->x);
    return with_type(args->y.dtype, [&](auto type) {
        using T = decltype(type);
        return ctk::launch(image_normalize<T>, element_grid<vec_width<T>>(count),
                           dim3(element_threads), 0, launch->stream, (T *)args->y.data,
                           (const uint8_t *)ct_u8(&args->x), all, count);
    });
}
