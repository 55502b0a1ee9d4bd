/* The two views: torchvision's boxes and bytes. */
#include "support.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MOST_SIZE 96

static ct_config small_config(int32_t size)
{
    return (ct_config){.image = {.size = size,
                                 .crop_scale = {0.3, 1.0},
                                 .crop_ratio = {0.75, 4.0 / 3.0},
                                 .flip = 0.5,
                                 .eval_resize = 1.14}};
}

static void check_crop(ct_decoder *decoder, const char *line)
{
    int32_t width, height, mirrored;
    double scale[2], ratio[2];
    ct_rng_key key;
    ct_box expected;
    bool mirror;
    (void)decoder;
    assert_int_equal(sscanf(line, "%d %d %lf %lf %lf %lf %" SCNu64 " %" SCNu64 " %d %d %d %d %d",
                            &width, &height, &scale[0], &scale[1], &ratio[0], &ratio[1], &key.seed,
                            &key.stream, &expected.left, &expected.top, &expected.width,
                            &expected.height, &mirrored),
                     13);
    ct_box box = ct_image_random_crop(width, height, scale, ratio, 0.5, key, &mirror);
    if (memcmp(&box, &expected, sizeof box) != 0 || mirror != (mirrored != 0))
        fail_msg("crop %s: found %d %d %d %d %d", line, box.left, box.top, box.width, box.height,
                 mirror);
}

static void crops_equal_torchvision(void **state)
{
    (void)state;
    assert_true(for_each_golden("crop", check_crop) >= 50);
}

/* Whatever the photo's shape, the crop is not empty and within it. */
static void crops_are_within(void **state)
{
    static const double scale[2] = {0.08, 1.0};
    static const double ratios[3][2] = {{0.75, 4.0 / 3.0}, {3.0, 4.0}, {0.01, 0.02}};
    (void)state;
    for (uint64_t i = 0; i < 20000; i++) {
        ct_rng_key key = ct_rng_make(3, CT_RNG_TEST, 2, i);
        int32_t width = 1 + (int32_t)ct_rng_below(key, 1000, i & 1 ? 9 : 900);
        int32_t height = 1 + (int32_t)ct_rng_below(key, 1001, i & 2 ? 9 : 900);
        bool mirror;
        ct_box box = ct_image_random_crop(width, height, scale, ratios[i % 3], 0.5, key, &mirror);
        bool within = box.left >= 0 && box.top >= 0 && box.width > 0 && box.height > 0 &&
                      box.left + box.width <= width && box.top + box.height <= height;
        if (!within)
            fail_msg("seed 3, case %d: %d x %d at (%d, %d) of %d x %d", (int)i, box.width,
                     box.height, box.left, box.top, width, height);
    }
}

/* Mean area share and share of mirrored crops of a wide square photo, four standard errors. */
static void crops_have_the_right_distribution(void **state)
{
    static const double scale[2] = {0.2, 0.6}, ratio[2] = {0.75, 4.0 / 3.0};
    const int count = 20000;
    double area = 0.0;
    int mirrored = 0;
    (void)state;
    for (int i = 0; i < count; i++) {
        ct_rng_key key = ct_rng_make(5, CT_RNG_TEST, 3, (uint64_t)i);
        bool mirror;
        ct_box box = ct_image_random_crop(2000, 2000, scale, ratio, 0.25, key, &mirror);
        area += (double)box.width * box.height / (2000.0 * 2000.0);
        mirrored += mirror;
    }
    assert_float_equal(area / count, 0.4, 4.0 * 0.4 / 3.4641 / 141.4);
    assert_float_equal((double)mirrored / count, 0.25, 4.0 * 0.433 / 141.4);
}

static void check_eval(ct_decoder *decoder, const char *line)
{
    int32_t width, height, size;
    double factor;
    char name[16];
    uint32_t crc;
    assert_int_equal(
        sscanf(line, "%d %d %d %lf %15s %x", &width, &height, &size, &factor, name, &crc), 6);
    ct_config config = small_config(size);
    config.image.eval_resize = factor;
    config.image.interpolation = strcmp(name, "bicubic") == 0 ? CT_BICUBIC : CT_BILINEAR;
    uint8_t *in = pattern(width, height), out[MOST_SIZE * MOST_SIZE * 3];
    assert_ok(ct_image_eval_view(decoder, (ct_pixels){in, width, height}, &config, out));
    if (crc32_of(out, (size_t)size * (size_t)size * 3) != crc)
        fail_msg("eval %s: the bytes are not torchvision's", line);
    free(in);
}

static void eval_views_equal_torchvision(void **state)
{
    (void)state;
    assert_true(for_each_golden("eval", check_eval) >= 50);
}

/* From the file in one go: the bytes of reading, then viewing. */
static void check_load(ct_decoder *decoder, const char *line)
{
    enum { SIZE = 48, BYTES = SIZE * SIZE * 3 };
    char name[64], path[128];
    uint8_t expected[BYTES], found[BYTES];
    ct_config config = small_config(SIZE);
    ct_pixels pixels;
    sscanf(line, "%63s", name);
    snprintf(path, sizeof path, IMAGES_FOLDER "/%s", name);
    for (uint64_t i = 0; i < 20; i++) {
        ct_rng_key key = ct_rng_make(1, CT_RNG_TEST, 4, i);
        config.image.interpolation = i & 1 ? CT_BICUBIC : CT_BILINEAR;
        assert_ok(ct_decoder_read(decoder, path, &pixels));
        assert_ok(ct_image_augment(decoder, pixels, &config, key, expected));
        assert_ok(ct_image_load_training(decoder, path, &config, key, found));
        assert_memory_equal(found, expected, BYTES);
    }
    assert_ok(ct_decoder_read(decoder, path, &pixels));
    assert_ok(ct_image_eval_view(decoder, pixels, &config, expected));
    assert_ok(ct_image_load_eval(decoder, path, &config, found));
    assert_memory_equal(found, expected, BYTES);
}

static void loading_equals_reading_and_viewing(void **state)
{
    (void)state;
    assert_true(for_each_golden("decode", check_load) >= 20);
}

int run_view_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crops_equal_torchvision),
        cmocka_unit_test(crops_are_within),
        cmocka_unit_test(crops_have_the_right_distribution),
        cmocka_unit_test(eval_views_equal_torchvision),
        cmocka_unit_test(loading_equals_reading_and_viewing),
    };
    return cmocka_run_group_tests_name("views", tests, NULL, NULL);
}
