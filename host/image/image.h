/* Photos: JPEG decoding (libjpeg-turbo) and the resampling that training and evaluation need, with
 * the pixels that Pillow and torchvision give.
 *
 * Pixels are 8-bit RGB, row-major (height, width, 3), no padding between rows. */
#ifndef CT_IMAGE_IMAGE_H
#define CT_IMAGE_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/rng.h"
#include "base/status.h"
#include "config/config.h"

/* One thread's decoder and its buffers, grown as needed and kept. Not thread-safe. */
typedef struct ct_decoder ct_decoder;

CT_NODISCARD ct_status ct_decoder_create(ct_decoder **out);
void ct_decoder_destroy(ct_decoder *decoder);

typedef struct ct_pixels {
    const uint8_t *data; /* (height, width, 3), borrowed until the decoder's next call */
    int32_t width, height;
} ct_pixels;

/* Reads and decodes a JPEG file: grey, YCbCr, RGB, CMYK and YCCK (converted as Pillow's
 * convert("RGB")), baseline and progressive. Accurate integer DCT and fancy upsampling, so bytes
 * equal Pillow's with the same libjpeg-turbo. Missing, truncated or broken files, and photos of
 * more than 178,956,970 pixels (Pillow's limit), are errors that name the file. A file that
 * libjpeg can decode with warnings only (e.g. stray bytes) is decoded; one that ends early is an
 * error. EXIF orientation is not applied, as in torchvision's datasets. */
CT_NODISCARD ct_status ct_decoder_read(ct_decoder *decoder, const char *path, ct_pixels *out);
CT_NODISCARD ct_status ct_decoder_parse(ct_decoder *decoder, const uint8_t *bytes, size_t size,
                                        const char *name, ct_pixels *out);

/* A region of a photo, in pixels. */
typedef struct ct_box {
    int32_t left, top, width, height;
} ct_box;

/* Antialiased resampling of `box` of `in` to width x height, equal to Pillow's
 * Image.crop(box).resize((width, height), BILINEAR | BICUBIC) bit for bit: its 8-bit fixed-point
 * arithmetic, and the order of the two passes that Pillow 13 chooses (older ones always start with
 * the horizontal pass, which differs by one level here and there). With mirror, each output row is
 * reversed. Scratch memory is the decoder's. */
CT_NODISCARD ct_status ct_image_resample(ct_decoder *decoder, ct_pixels in, ct_box box,
                                         ct_interpolation interpolation, bool mirror, int32_t width,
                                         int32_t height, uint8_t *out);

/* The crop of torchvision.transforms.RandomResizedCrop.get_params: ten tries of a random area and
 * log-uniform aspect ratio, else the central crop; numbers from `key`. *mirror with probability
 * `flip`. */
ct_box ct_image_random_crop(int32_t width, int32_t height, const double scale[2],
                            const double ratio[2], double flip, ct_rng_key key, bool *mirror);

/* Training view into out (size, size, 3): random crop, resample, mirror. */
CT_NODISCARD ct_status ct_image_augment(ct_decoder *decoder, ct_pixels in, const ct_config *config,
                                        ct_rng_key key, uint8_t *out);

/* Evaluation view into out (size, size, 3): torchvision's Resize(round(size * eval_resize)) of the
 * shorter side, then CenterCrop(size), with their rounding. Only what the crop needs is computed;
 * the bytes are those of the two steps. */
CT_NODISCARD ct_status ct_image_eval_view(ct_decoder *decoder, ct_pixels in,
                                          const ct_config *config, uint8_t *out);

/* A photo's file straight to its view: the bytes of ct_decoder_read followed by ct_image_augment or
 * ct_image_eval_view. Training decodes only what its crop needs, so damage below the crop goes
 * unseen, but for a file that ends early. */
CT_NODISCARD ct_status ct_image_load_training(ct_decoder *decoder, const char *path,
                                              const ct_config *config, ct_rng_key key,
                                              uint8_t *out);
CT_NODISCARD ct_status ct_image_load_eval(ct_decoder *decoder, const char *path,
                                          const ct_config *config, uint8_t *out);

#endif
