/* What the launchers of both losses and both directions begin with: checks, photo weights, rows
 * padded to 16 bytes. */
#ifndef CT_KERNELS_LOSS_BATCH_CUH
#define CT_KERNELS_LOSS_BATCH_CUH

#include "loss.cuh"
#include "workspace.cuh"

namespace ctk::loss
{

constexpr int SMALL_BLOCK = 256, SUM_BLOCK = 1024; /* threads of the small kernels */

/* What both directions of both losses begin with. */
struct batch {
    int64_t count, width, stride; /* N, D, D rounded up to 16 bytes */
    ct_same_image same_image;
    const void *image, *text;
    void *padded_image, *padded_text; /* NULL where stride is width */
    problem p;
};

template <class Args>
static batch take_batch(const Args *args, float smoothing, bool softmax, void *workspace,
                        size_t *used)
{
    batch b = {};
    const int64_t number = (int64_t)ct_dtype_bytes(args->image.dtype), w = 16 / number;
    b.count = args->image.dim[0];
    b.width = args->image.dim[1];
    b.stride = ceil_div(b.width, w) * w;
    b.same_image = args->same_image;
    b.image = args->image.data;
    b.text = args->text.data;
    if (b.stride != b.width) {
        b.padded_image = take<char>(workspace, used, b.count * b.stride * number);
        b.padded_text = take<char>(workspace, used, b.count * b.stride * number);
    }
    b.p.logit_scale = ct_f32(&args->logit_scale);
    b.p.photo_ids = ct_i32(&args->photo_ids);
    b.p.count = b.count;
    b.p.smoothing = smoothing;
    b.p.even = 2.0f / (float)b.count;
    b.p.mask = args->same_image == CT_SAME_IMAGE_MASK;
    b.p.share = args->same_image == CT_SAME_IMAGE_SHARE;
    if (softmax && (b.p.share || (b.p.mask && smoothing > 0.0f)))
        b.p.weights = take<float>(workspace, used, b.count);
    return b;
}

static bool is_valid(const batch &b, int64_t first, int64_t rows)
{
    return b.width >= 1 && b.width <= 1 << 24 && first >= 0 && rows >= 0 &&
           first + rows <= b.count && b.count < (int64_t)1 << 31 && b.p.smoothing >= 0.0f &&
           b.p.smoothing < 1.0f;
}

/* Runs what comes before the tiles, and tells their operands. Defined in loss_batch.cu. */
template <class T>
cudaError_t begin(const batch &b, operand<T> *image, operand<T> *text, const ctk_launch *l);

} // namespace ctk::loss

#endif
