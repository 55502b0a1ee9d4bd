/* Resampling: Pillow's bytes. */
#include "support.h"

#include <stdlib.h>
#include <string.h>

static ct_interpolation interpolation_of(const char *name)
{
    return strcmp(name, "bicubic") == 0 ? CT_BICUBIC : CT_BILINEAR;
}

static void check_resampled(ct_decoder *decoder, const char *line)
{
    int32_t width, height, mirror, out_width, out_height;
    uint32_t crc;
    ct_box box;
    char name[16];
    assert_int_equal(sscanf(line, "%d %d %d %d %d %d %15s %d %d %d %x", &width, &height, &box.left,
                            &box.top, &box.width, &box.height, name, &mirror, &out_width,
                            &out_height, &crc),
                     11);
    uint8_t *in = pattern(width, height);
    size_t bytes = (size_t)out_width * (size_t)out_height * 3;
    uint8_t *out = malloc(bytes);
    assert_non_null(out);
    assert_ok(ct_image_resample(decoder, (ct_pixels){in, width, height}, box,
                                interpolation_of(name), mirror != 0, out_width, out_height, out));
    if (crc32_of(out, bytes) != crc) fail_msg("resample %s: the bytes are not Pillow's", line);
    free(out);
    free(in);
}

static void bytes_equal_pillow(void **state)
{
    (void)state;
    assert_true(for_each_golden("resample", check_resampled) >= 100);
}

static void boxes_outside_are_refused(void **state)
{
    (void)state;
    static const ct_box boxes[] = {
        {-1, 0, 4, 4}, {0, -1, 4, 4}, {0, 0, 0, 4}, {0, 0, 4, 0}, {7, 0, 4, 4}, {0, 3, 4, 4},
    };
    uint8_t *in = pattern(10, 6), out[3];
    ct_decoder *decoder;
    assert_ok(ct_decoder_create(&decoder));
    for (size_t i = 0; i < sizeof boxes / sizeof *boxes; i++)
        assert_int_equal(ct_image_resample(decoder, (ct_pixels){in, 10, 6}, boxes[i], CT_BILINEAR,
                                           false, 1, 1, out),
                         CT_ERR_ARGUMENT);
    assert_int_equal(ct_image_resample(decoder, (ct_pixels){in, 10, 6}, (ct_box){0, 0, 10, 6},
                                       CT_BILINEAR, false, 0, 1, out),
                     CT_ERR_ARGUMENT);
    ct_decoder_destroy(decoder);
    free(in);
}

int run_resample_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_equal_pillow),
        cmocka_unit_test(boxes_outside_are_refused),
    };
    return cmocka_run_group_tests_name("resample", tests, NULL, NULL);
}
