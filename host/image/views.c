/* What training and evaluation see of a photo: torchvision's RandomResizedCrop with
 * RandomHorizontalFlip, and its Resize with CenterCrop. lrint rounds halves to even, as Python's
 * round does. */
#include <math.h>

#include "image/decoder.h"

#define TRIES 10

/* Numbers of the key's sequence: a block of four for each try, then the one for mirroring. */
enum { DRAW_AREA, DRAW_RATIO, DRAW_TOP, DRAW_LEFT, DRAWS_A_TRY };

/* The largest central crop with an aspect ratio in range. */
static ct_box central_crop(int32_t width, int32_t height, const double ratio[2])
{
    ct_box box = {0, 0, width, height};
    double whole = (double)width / height;
    if (whole < ratio[0]) box.height = (int32_t)lrint(width / ratio[0]);
    else if (whole > ratio[1]) box.width = (int32_t)lrint(height * ratio[1]);
    if (box.width < 1) box.width = 1;
    if (box.height < 1) box.height = 1;
    box.left = (width - box.width) / 2;
    box.top = (height - box.height) / 2;
    return box;
}

ct_box ct_image_random_crop(int32_t width, int32_t height, const double scale[2],
                            const double ratio[2], double flip, ct_rng_key key, bool *mirror)
{
    double area = (double)width * height;
    double log_low = log(ratio[0]), log_high = log(ratio[1]);
    *mirror = ct_rng_uniform(key, TRIES * DRAWS_A_TRY) < flip;
    for (uint64_t draw = 0; draw < TRIES * DRAWS_A_TRY; draw += DRAWS_A_TRY) {
        double share = ct_rng_uniform(key, draw + DRAW_AREA);
        double place = ct_rng_uniform(key, draw + DRAW_RATIO);
        double target = area * (scale[0] + share * (scale[1] - scale[0]));
        double aspect = exp(log_low + place * (log_high - log_low));
        double w = rint(sqrt(target * aspect)), h = rint(sqrt(target / aspect));
        if (!(w > 0 && w <= width && h > 0 && h <= height)) continue;
        ct_box box = {0, 0, (int32_t)w, (int32_t)h};
        box.top = (int32_t)ct_rng_below(key, draw + DRAW_TOP, (uint32_t)(height - box.height + 1));
        box.left = (int32_t)ct_rng_below(key, draw + DRAW_LEFT, (uint32_t)(width - box.width + 1));
        return box;
    }
    return central_crop(width, height, ratio);
}

/* Resize and CenterCrop of a photo: the size after the first, and what the second takes of it. */
typedef struct eval_plan {
    int32_t width, height;
    ct_box window;
} eval_plan;

static eval_plan plan_eval(int32_t width, int32_t height, const ct_config *config)
{
    int32_t size = (int32_t)config->image.size;
    int32_t shorter = (int32_t)lrint((double)size * config->image.eval_resize);
    int32_t low = width < height ? width : height, high = width < height ? height : width;
    int32_t longer = (int32_t)((double)((int64_t)shorter * high) / low);
    eval_plan plan = {.width = longer, .height = shorter};
    if (width <= height) plan = (eval_plan){.width = shorter, .height = longer};
    plan.window = (ct_box){(int32_t)lrint((plan.width - size) / 2.0),
                           (int32_t)lrint((plan.height - size) / 2.0), size, size};
    return plan;
}

ct_status ct_image_augment(ct_decoder *decoder, ct_pixels in, const ct_config *config,
                           ct_rng_key key, uint8_t *out)
{
    int32_t size = (int32_t)config->image.size;
    bool mirror;
    ct_box box = ct_image_random_crop(in.width, in.height, config->image.crop_scale,
                                      config->image.crop_ratio, config->image.flip, key, &mirror);
    return ct_image_resample(decoder, in, box, config->image.interpolation, mirror, size, size,
                             out);
}

ct_status ct_image_eval_view(ct_decoder *decoder, ct_pixels in, const ct_config *config,
                             uint8_t *out)
{
    eval_plan plan = plan_eval(in.width, in.height, config);
    return ct_image_resample_window(decoder, in, (ct_box){0, 0, in.width, in.height},
                                    config->image.interpolation, false, plan.width, plan.height,
                                    plan.window, out);
}

ct_status ct_image_load_training(ct_decoder *decoder, const char *path, const ct_config *config,
                                 ct_rng_key key, uint8_t *out)
{
    int32_t size = (int32_t)config->image.size, width, height;
    bool mirror;
    ct_pixels pixels;
    CT_TRY(ct_decoder_open(decoder, path, &width, &height));
    ct_box box = ct_image_random_crop(width, height, config->image.crop_scale,
                                      config->image.crop_ratio, config->image.flip, key, &mirror);
    CT_TRY(ct_decoder_decode(decoder, box, &pixels, &box));
    return ct_image_resample(decoder, pixels, box, config->image.interpolation, mirror, size, size,
                             out);
}

ct_status ct_image_load_eval(ct_decoder *decoder, const char *path, const ct_config *config,
                             uint8_t *out)
{
    ct_pixels pixels;
    CT_TRY(ct_decoder_read(decoder, path, &pixels));
    return ct_image_eval_view(decoder, pixels, config, out);
}
