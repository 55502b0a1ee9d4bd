/* Decoding of a region alone: the pixels of the whole photo's decoding, and the same refusals. */
#include "support.h"

#include <stdlib.h>
#include <string.h>

#include "image/decoder.h"

#define BOXES 200

/* Decodes only `box` and compares with the whole photo. */
static void check_box(ct_decoder *decoder, const char *path, const uint8_t *whole, int32_t width,
                      ct_box box)
{
    int32_t w, h;
    ct_pixels region;
    ct_box inside;
    assert_ok(ct_decoder_open(decoder, path, &w, &h));
    assert_ok(ct_decoder_decode(decoder, box, &region, &inside));
    assert_int_equal(inside.width, box.width);
    assert_int_equal(inside.height, box.height);
    assert_true(inside.left >= 0 && inside.left + inside.width <= region.width);
    assert_true(inside.top >= 0 && inside.top + inside.height <= region.height);
    for (int32_t y = 0; y < box.height; y++) {
        const uint8_t *expected =
            whole + ((size_t)(box.top + y) * (size_t)width + (size_t)box.left) * 3;
        const uint8_t *found =
            region.data +
            ((size_t)(inside.top + y) * (size_t)region.width + (size_t)inside.left) * 3;
        if (memcmp(expected, found, (size_t)box.width * 3) != 0)
            fail_msg("%s: row %d of box %dx%d at (%d, %d) differs", path, y, box.width, box.height,
                     box.left, box.top);
    }
}

static uint64_t seed = 1;

static void check_photo(ct_decoder *decoder, const char *line)
{
    char name[64], path[128];
    ct_pixels pixels;
    sscanf(line, "%63s", name);
    snprintf(path, sizeof path, IMAGES_FOLDER "/%s", name);
    assert_ok(ct_decoder_read(decoder, path, &pixels));
    int32_t width = pixels.width, height = pixels.height;
    size_t size = (size_t)width * (size_t)height * 3;
    uint8_t *whole = malloc(size);
    assert_non_null(whole);
    memcpy(whole, pixels.data, size);
    for (uint64_t i = 0; i < BOXES; i++) {
        ct_rng_key key = ct_rng_make(seed, CT_RNG_TEST, 1, i);
        ct_box box = {.width = 1 + (int32_t)ct_rng_below(key, 0, (uint32_t)width),
                      .height = 1 + (int32_t)ct_rng_below(key, 1, (uint32_t)height)};
        box.left = (int32_t)ct_rng_below(key, 2, (uint32_t)(width - box.width + 1));
        box.top = (int32_t)ct_rng_below(key, 3, (uint32_t)(height - box.height + 1));
        check_box(decoder, path, whole, width, box);
    }
    free(whole);
}

static void regions_equal_the_whole(void **state)
{
    (void)state;
    print_message("seed %llu\n", (unsigned long long)seed);
    assert_true(for_each_golden("decode", check_photo) >= 20);
}

/* The crop ends before the file's damage: it must be seen all the same. */
static void check_refused(ct_decoder *decoder, const char *name)
{
    char path[128];
    int32_t width, height;
    ct_pixels region;
    ct_box inside;
    snprintf(path, sizeof path, IMAGES_FOLDER "/%s", name);
    ct_status status = ct_decoder_open(decoder, path, &width, &height);
    if (status == CT_OK)
        status = ct_decoder_decode(decoder, (ct_box){0, 0, 8, 8}, &region, &inside);
    if (status != CT_ERR_FORMAT) fail_msg("%s: %s", name, ct_status_name(status));
}

static void cut_files_are_refused(void **state)
{
    (void)state;
    assert_true(for_each_golden("bad", check_refused) >= 8);
}

int run_region_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(regions_equal_the_whole),
        cmocka_unit_test(cut_files_are_refused),
    };
    return cmocka_run_group_tests_name("region", tests, NULL, NULL);
}
