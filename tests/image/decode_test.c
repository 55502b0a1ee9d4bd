/* Decoding: Pillow's pixels, and messages for what cannot be decoded. */
#include "support.h"

#include <string.h>

static void check_decoded(ct_decoder *decoder, const char *line)
{
    char name[64], path[128];
    int32_t width, height;
    uint32_t crc;
    ct_pixels pixels;
    assert_int_equal(sscanf(line, "%63s %d %d %x", name, &width, &height, &crc), 4);
    snprintf(path, sizeof path, IMAGES_FOLDER "/%s", name);
    assert_ok(ct_decoder_read(decoder, path, &pixels));
    assert_int_equal(pixels.width, width);
    assert_int_equal(pixels.height, height);
    if (crc32_of(pixels.data, (size_t)width * (size_t)height * 3) != crc)
        fail_msg("%s: the pixels are not Pillow's", name);
}

static void pixels_equal_pillow(void **state)
{
    (void)state;
    assert_true(for_each_golden("decode", check_decoded) >= 20);
}

static void check_refused(ct_decoder *decoder, const char *name)
{
    char path[128];
    ct_pixels pixels;
    snprintf(path, sizeof path, IMAGES_FOLDER "/%s", name);
    ct_status status = ct_decoder_read(decoder, path, &pixels);
    if (status != CT_ERR_FORMAT) fail_msg("%s: %s", name, ct_status_name(status));
    assert_memory_equal(ct_error_message(), path, strlen(path));
    /* The decoder goes on with the next photo. */
    assert_ok(ct_decoder_read(decoder, IMAGES_FOLDER "/grey.jpg", &pixels));
}

static void what_pillow_refuses_is_refused(void **state)
{
    (void)state;
    assert_true(for_each_golden("bad", check_refused) >= 8);
}

static void expect_message(const char *name, ct_status expected, const char *text)
{
    char path[128];
    ct_decoder *decoder;
    ct_pixels pixels;
    snprintf(path, sizeof path, "%s/%s", IMAGES_FOLDER, name);
    assert_ok(ct_decoder_create(&decoder));
    assert_fails(ct_decoder_read(decoder, path, &pixels), expected, text);
    ct_decoder_destroy(decoder);
}

static void messages_say_what_is_wrong(void **state)
{
    (void)state;
    expect_message("empty.jpg", CT_ERR_FORMAT, "empty.jpg: empty file");
    expect_message("png.jpg", CT_ERR_FORMAT, "png.jpg: Not a JPEG file: starts with 0x89 0x50");
    expect_message("truncated.jpg", CT_ERR_FORMAT, "truncated.jpg: Premature end of input file");
    expect_message("missing.jpg", CT_ERR_IO, "missing.jpg: cannot open: No such file");
    expect_message("../images", CT_ERR_IO, "not a regular file");
}

/* baseline_420.jpg with other numbers in its frame header. */
static void expect_frame_refused(uint16_t height, uint16_t width, const char *text)
{
    uint8_t bytes[16384];
    FILE *file = fopen(IMAGES_FOLDER "/baseline_420.jpg", "rb");
    assert_non_null(file);
    size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    uint8_t *frame = memmem(bytes, size, "\xff\xc0", 2);
    assert_non_null(frame);
    frame[5] = (uint8_t)(height >> 8);
    frame[6] = (uint8_t)height;
    frame[7] = (uint8_t)(width >> 8);
    frame[8] = (uint8_t)width;
    ct_decoder *decoder;
    ct_pixels pixels;
    assert_ok(ct_decoder_create(&decoder));
    assert_fails(ct_decoder_parse(decoder, bytes, size, "frame", &pixels), CT_ERR_FORMAT, text);
    ct_decoder_destroy(decoder);
}

static void impossible_sizes_are_refused(void **state)
{
    (void)state;
    expect_frame_refused(0, 97, "frame: ");
    expect_frame_refused(60000, 60000, "60000 x 60000 pixels are more than the limit");
    expect_frame_refused(75, 0, "frame: ");
}

static void a_parsed_photo_may_follow_an_opened_one(void **state)
{
    (void)state;
    ct_decoder *decoder;
    ct_pixels pixels;
    const uint8_t junk[] = {0xFF, 0xD8, 0xFF, 0xD9};
    assert_ok(ct_decoder_create(&decoder));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ct_decoder_parse(decoder, junk, sizeof junk, "junk", &pixels),
                         CT_ERR_FORMAT);
        assert_ok(ct_decoder_read(decoder, IMAGES_FOLDER "/progressive.jpg", &pixels));
    }
    ct_decoder_destroy(decoder);
    ct_decoder_destroy(NULL);
}

int run_decode_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pixels_equal_pillow),
        cmocka_unit_test(what_pillow_refuses_is_refused),
        cmocka_unit_test(messages_say_what_is_wrong),
        cmocka_unit_test(impossible_sizes_are_refused),
        cmocka_unit_test(a_parsed_photo_may_follow_an_opened_one),
    };
    return cmocka_run_group_tests_name("decode", tests, NULL, NULL);
}
