#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../support.h"

#include "model/safetensors.h"
#include "model/tests.h"

/* ---- files in memory ---- */

typedef struct image {
    uint8_t *bytes;
    size_t size;
} image;

/* A file of this header and of data_bytes counted up from 0. */
static image make_file(const char *header, size_t data_bytes)
{
    uint64_t header_bytes = strlen(header);
    image file = {.size = 8 + (size_t)header_bytes + data_bytes};
    file.bytes = malloc(file.size);
    assert_non_null(file.bytes);
    memcpy(file.bytes, &header_bytes, 8);
    memcpy(file.bytes + 8, header, (size_t)header_bytes);
    for (size_t i = 0; i < data_bytes; i++) file.bytes[8 + header_bytes + i] = (uint8_t)i;
    return file;
}

static ct_safetensors *parse_ok(const image *file)
{
    ct_safetensors *parsed = NULL;
    ct_status status = ct_safetensors_parse(file->bytes, file->size, "memory", &parsed);
    if (status != CT_OK) fail_msg("rejected: %s", ct_error_message());
    return parsed;
}

/* The message has to say which file and why. */
static void expect_rejected(const image *file, const char *why)
{
    ct_safetensors *parsed = NULL;
    ct_status status = ct_safetensors_parse(file->bytes, file->size, "memory", &parsed);
    if (status == CT_OK) fail_msg("accepted, but %s was expected", why);
    assert_int_equal(status, CT_ERR_FORMAT);
    if (!strstr(ct_error_message(), why) || !strstr(ct_error_message(), "memory: "))
        fail_msg("message \"%s\" lacks \"%s\"", ct_error_message(), why);
}

static void test_bad_headers(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t data_bytes;
        const char *why;
    } cases[] = {
        {"", 0, "not a JSON object"},
        {"[]", 0, "not a JSON object"},
        {"null", 0, "not a JSON object"},
        {"{", 0, "not a JSON object"},
        {"{} x", 0, "not a JSON object"},
        {"{\"a\xFF\":1}", 0, "not UTF-8"},
        {"{\"\xED\xA0\x80\":1}", 0, "not UTF-8"}, /* a surrogate */
        {"{\"\xC0\x80\":1}", 0, "not UTF-8"},     /* an overlong NUL */
        {"{\"\xF4\x90\x80\x80\":1}", 0, "not UTF-8"},
        {"{\"\xE2\x82\":1}", 0, "not UTF-8"},
        {"{}", 1, "describes 0 bytes of data, found 1"},
        {"{\"a\":1}", 0, "not an object"},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "\"dtype\" is not a string"},
        {"{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, "\"shape\" is not an array"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "two whole numbers"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"more\":0}}", 1,
         "nothing else"},
        {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
         "once each"},
        {"{\"a\":{\"dtype\":\"Q4\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "dtype \"Q4\""},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1.5],\"data_offsets\":[0,1]}}", 1, "whole numbers"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,1]}}", 1, "whole numbers"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1e99],\"data_offsets\":[0,1]}}", 1, "whole numbers"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[NaN],\"data_offsets\":[0,1]}}", 1, "not a JSON"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[null],\"data_offsets\":[0,1]}}", 1, "whole numbers"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1,
         "more than 8"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,1]}}", 1, "disagree"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "disagree"},
        /* 2^32 * 2^32 * 4 wraps to 0 */
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
         "disagree"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1, "two whole numbers"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,1]}}", 1,
         "two whole numbers"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,0]}}", 1, "bytes 1 to 0"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 1, "cut off"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
         3, "overlaps"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", 2, "hole"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 2,
         "describes 1 bytes of data, found 2"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
         "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
         2, "twice"},
        {"{\"__metadata__\":[]}", 0, "not one object"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "not one object"},
        {"{\"__metadata__\":{\"k\":1}}", 0, "\"k\" is not a string"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        image file = make_file(cases[i].header, cases[i].data_bytes);
        expect_rejected(&file, cases[i].why);
        free(file.bytes);
    }
}

static void test_bad_lengths(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {3, 100, 1ull << 32, 1ull << 63, UINT64_MAX - 7, UINT64_MAX};
    image file = make_file("{}", 0);
    for (size_t size = 0; size < 8; size++)
        expect_rejected(&(image){file.bytes, size}, "not a safetensors file");
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        memcpy(file.bytes, &lengths[i], 8);
        expect_rejected(&file, "header length");
    }
    free(file.bytes);
}

/* A file cut anywhere is rejected: the header says how long it has to be. */
static void test_every_truncation(void **state)
{
    (void)state;
    image file =
        make_file("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}   ", 8);
    ct_safetensors_close(parse_ok(&file));
    for (size_t size = 0; size < file.size; size++) {
        ct_safetensors *parsed = NULL;
        uint8_t *exact = malloc(size + 1); /* its own block, for the address sanitizer */
        assert_non_null(exact);
        memcpy(exact, file.bytes, size);
        assert_int_equal(ct_safetensors_parse(exact, size, "cut", &parsed), CT_ERR_FORMAT);
        free(exact);
    }
    free(file.bytes);
}

static void test_order_and_lookup(void **state)
{
    (void)state;
    image file = make_file("{\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[3,5]},"
                           "\"none\":{\"dtype\":\"F64\",\"shape\":[0,2],\"data_offsets\":[3,3]},"
                           "\"__metadata__\":{\"key\":\"value\",\"Key\":\"other\"},"
                           "\"a\":{\"data_offsets\":[0,3],\"shape\":[1,3],\"dtype\":\"U8\"}}",
                           5);
    ct_safetensors *parsed = parse_ok(&file);
    assert_int_equal(ct_safetensors_count(parsed), 3);
    const ct_file_tensor *b = ct_safetensors_find(parsed, "b");
    assert_non_null(b);
    assert_int_equal(b->rank, 1);
    assert_int_equal(b->dim[0], 2);
    assert_int_equal(((const uint8_t *)ct_safetensors_data(parsed, b))[0], 3);
    assert_non_null(ct_safetensors_find(parsed, "none"));
    assert_null(ct_safetensors_find(parsed, "c"));
    assert_null(ct_safetensors_find(parsed, "__metadata__"));
    assert_string_equal(ct_safetensors_metadata(parsed, "key"), "value");
    assert_string_equal(ct_safetensors_metadata(parsed, "Key"), "other");
    assert_null(ct_safetensors_metadata(parsed, "KEY"));
    assert_string_equal(ct_safetensors_path(parsed), "memory");
    float value;
    assert_int_equal(ct_safetensors_read_f32(parsed, b, &value), CT_ERR_FORMAT);
    assert_non_null(strstr(ct_error_message(), "U8"));
    ct_safetensors_close(parsed);
    free(file.bytes);
}

static void test_no_metadata_no_tensors(void **state)
{
    (void)state;
    image file = make_file("{}", 0);
    ct_safetensors *parsed = parse_ok(&file);
    assert_int_equal(ct_safetensors_count(parsed), 0);
    assert_null(ct_safetensors_find(parsed, "a"));
    assert_null(ct_safetensors_metadata(parsed, "a"));
    ct_safetensors_close(parsed);
    free(file.bytes);
}

/* ---- conversion to f32 ---- */

static float convert(const char *dtype, const void *bytes, size_t size)
{
    char header[128];
    /* An odd first tensor: what is converted is not aligned. */
    snprintf(header, sizeof header,
             "{\"pad\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
             "\"x\":{\"dtype\":\"%s\",\"shape\":[],\"data_offsets\":[1,%zu]}}",
             dtype, 1 + size);
    image file = make_file(header, 1 + size);
    memcpy(file.bytes + file.size - size, bytes, size);
    ct_safetensors *parsed = parse_ok(&file);
    float value;
    assert_int_equal(ct_safetensors_read_f32(parsed, ct_safetensors_find(parsed, "x"), &value),
                     CT_OK);
    ct_safetensors_close(parsed);
    free(file.bytes);
    return value;
}

static void expect_bits(float value, uint32_t bits)
{
    uint32_t found;
    memcpy(&found, &value, sizeof found);
    if (found != bits) fail_msg("expected %08" PRIx32 ", found %08" PRIx32, bits, found);
}

static void test_known_values(void **state)
{
    (void)state;
    static const struct {
        uint16_t half;
        float value;
    } halves[] = {
        {0x0000, 0.0f},      {0x3C00, 1.0f},        {0xC100, -2.5f},           {0x7BFF, 65504.0f},
        {0xFBFF, -65504.0f}, {0x0400, 0x1p-14f},    {0x03FF, 1023 * 0x1p-24f}, {0x0001, 0x1p-24f},
        {0x8001, -0x1p-24f}, {0x3555, 0x1.554p-2f}, {0x7C00, INFINITY},        {0xFC00, -INFINITY},
    };
    static const struct {
        uint16_t brain;
        float value;
    } brains[] = {
        {0x0000, 0.0f},      {0x3F80, 1.0f},     {0xC049, -3.140625f}, {0x7F00, 0x1p127f},
        {0x0001, 0x1p-133f}, {0x7F80, INFINITY}, {0xFF80, -INFINITY},
    };
    static const struct {
        double wide;
        float value;
    } doubles[] = {
        {0.1, 0.1f},
        {-1e300, -INFINITY},
        {0x1p-149, 0x1p-149f},
        {1 + 0x1p-30, 1.0f},
        {1 + 0x1.8p-24, 1 + FLT_EPSILON},
    };
    for (size_t i = 0; i < sizeof halves / sizeof *halves; i++)
        assert_true(convert("F16", &halves[i].half, 2) == halves[i].value);
    for (size_t i = 0; i < sizeof brains / sizeof *brains; i++)
        assert_true(convert("BF16", &brains[i].brain, 2) == brains[i].value);
    for (size_t i = 0; i < sizeof doubles / sizeof *doubles; i++)
        assert_true(convert("F64", &doubles[i].wide, 8) == doubles[i].value);
    expect_bits(convert("F16", &(uint16_t){0x8000}, 2), 0x80000000);
    expect_bits(convert("F16", &(uint16_t){0x7E01}, 2), 0x7FC02000); /* a NaN and its payload */
    expect_bits(convert("BF16", &(uint16_t){0x8000}, 2), 0x80000000);
    expect_bits(convert("BF16", &(uint16_t){0x7FC1}, 2), 0x7FC10000);
    expect_bits(convert("F32", &(uint32_t){0x7FC00001}, 4), 0x7FC00001);
    assert_true(isnan(convert("F64", &(double){NAN}, 8)));
}

/* Every finite f16 is sign * (1 + f / 1024) * 2^(e - 15), or sign * f * 2^-24 below 2^-14. */
static void test_every_half(void **state)
{
    (void)state;
    image file = make_file(
        "{\"x\":{\"dtype\":\"F16\",\"shape\":[65536],\"data_offsets\":[0,131072]}}", 131072);
    uint8_t *data = file.bytes + file.size - 131072;
    float *found = malloc(65536 * sizeof *found);
    assert_non_null(found);
    for (uint32_t i = 0; i < 65536; i++) memcpy(data + 2 * i, &(uint16_t){(uint16_t)i}, 2);
    ct_safetensors *parsed = parse_ok(&file);
    assert_int_equal(ct_safetensors_read_f32(parsed, ct_safetensors_at(parsed, 0), found), CT_OK);
    for (int i = 0; i < 65536; i++) {
        int exponent = i >> 10 & 31, fraction = i & 1023;
        if (exponent == 31) continue;
        double value =
            exponent ? ldexp(1 + fraction / 1024.0, exponent - 15) : ldexp(fraction, -24);
        assert_true(found[i] == (float)(i & 0x8000 ? -value : value));
    }
    ct_safetensors_close(parsed);
    free(found);
    free(file.bytes);
}

/* ---- a file Hugging Face's library wrote (tests/reference/make_safetensors.py) ---- */

static void expect_values(const ct_safetensors *file, const char *name, int count,
                          const float *expected)
{
    float values[8];
    const ct_file_tensor *tensor = ct_safetensors_find(file, name);
    assert_non_null(tensor);
    assert_int_equal(ct_safetensors_read_f32(file, tensor, values), CT_OK);
    for (int i = 0; i < count; i++) assert_true(values[i] == expected[i]);
}

static void test_reference_file(void **state)
{
    (void)state;
    ct_safetensors *file = NULL;
    ct_status status = ct_safetensors_open("tests/reference/data/every_dtype.safetensors", &file);
    if (status != CT_OK) fail_msg("%s", ct_error_message());
    assert_int_equal(ct_safetensors_count(file), 8);
    assert_string_equal(ct_safetensors_metadata(file, "note"), "h\xC3\xA9llo");
    expect_values(file, "layer.weight", 6, (float[]){-0.25f, -0.125f, 0, 0.125f, 0.25f, 0.375f});
    expect_values(file, "layer.half", 4, (float[]){1, -2.5f, 65504, 0x1p-24f});
    expect_values(file, "layer.brain", 3, (float[]){1, -3.140625f, 0x1p127f});
    expect_values(file, "wide", 2, (float[]){0.1f, 1e-3f});
    expect_values(file, "nothing", 0, NULL);
    const ct_file_tensor *weight = ct_safetensors_find(file, "layer.weight");
    assert_int_equal(weight->rank, 2);
    assert_int_equal(weight->dim[0], 2);
    assert_int_equal(weight->dim[1], 3);
    const ct_file_tensor *count = ct_safetensors_find(file, "count");
    assert_int_equal(count->dtype, CT_FILE_I64);
    assert_int_equal(count->rank, 0);
    int64_t seven;
    memcpy(&seven, ct_safetensors_data(file, count), sizeof seven);
    assert_int_equal(seven, 7);
    ct_safetensors_close(file);
}

static void test_open_errors(void **state)
{
    (void)state;
    ct_safetensors *file = NULL;
    assert_int_equal(ct_safetensors_open("tests/reference/data/no-such-file", &file), CT_ERR_IO);
    assert_int_equal(ct_safetensors_open("tests/reference", &file), CT_ERR_IO);
    assert_int_equal(ct_safetensors_open("/dev/null", &file), CT_ERR_IO);
    assert_null(file);
    ct_safetensors_close(NULL);
}

/* ---- writing ---- */

static void test_written_is_read(void **state)
{
    static const float weights[] = {1.5f, -2, 3, 4, 5, -0.0f};
    static const uint8_t vocabulary[] = "[PAD]\n[UNK]\n\"\xC3\xA9\"\n";
    static const char config[] = "model:\n  \"image\": r\xC3\xA9snet\t\\\n";
    const char *path = in_folder(*state, "file");
    ct_safetensors_writer *writer;
    assert_int_equal(ct_safetensors_writer_create(&writer), CT_OK);
    assert_int_equal(ct_safetensors_writer_metadata(writer, "config", config), CT_OK);
    assert_int_equal(ct_safetensors_writer_metadata(writer, "Config", "x"), CT_OK);
    assert_int_equal(ct_safetensors_writer_declare(writer, "w", CT_FILE_F32, 2, (int64_t[]){2, 3}),
                     CT_OK);
    assert_int_equal(ct_safetensors_writer_declare(writer, "vocab", CT_FILE_U8, 1,
                                                   (int64_t[]){sizeof vocabulary}),
                     CT_OK);
    assert_int_equal(ct_safetensors_writer_declare(writer, "none", CT_FILE_F16, 1, (int64_t[]){0}),
                     CT_OK);
    assert_int_equal(ct_safetensors_writer_declare(writer, "step", CT_FILE_I64, 0, NULL), CT_OK);
    assert_int_equal(ct_safetensors_writer_begin(writer, path), CT_OK);
    assert_int_equal(ct_safetensors_writer_put(writer, weights, sizeof weights), CT_OK);
    assert_int_equal(ct_safetensors_writer_put(writer, vocabulary, sizeof vocabulary), CT_OK);
    assert_int_equal(ct_safetensors_writer_put(writer, NULL, 0), CT_OK);
    assert_int_equal(ct_safetensors_writer_put(writer, &(int64_t){-9}, 8), CT_OK);
    assert_int_equal(ct_safetensors_writer_commit(writer), CT_OK);
    ct_safetensors_writer_destroy(writer);

    ct_safetensors *file;
    ct_status status = ct_safetensors_open(path, &file);
    if (status != CT_OK) fail_msg("%s", ct_error_message());
    assert_int_equal(ct_safetensors_count(file), 4);
    assert_string_equal(ct_safetensors_metadata(file, "config"), config);
    expect_values(file, "w", 6, weights);
    const ct_file_tensor *w = ct_safetensors_find(file, "w");
    assert_int_equal((uintptr_t)ct_safetensors_data(file, w) % 64, 0);
    const ct_file_tensor *vocab = ct_safetensors_find(file, "vocab");
    assert_memory_equal(ct_safetensors_data(file, vocab), vocabulary, sizeof vocabulary);
    ct_safetensors_close(file);
}

static void test_writer_refuses(void **state)
{
    const char *path = in_folder(*state, "file");
    ct_safetensors_writer *writer;
    assert_int_equal(ct_safetensors_writer_create(&writer), CT_OK);
    assert_int_equal(ct_safetensors_writer_metadata(writer, "k", "\xFF"), CT_ERR_ARGUMENT);
    assert_int_equal(ct_safetensors_writer_metadata(writer, "k", "v"), CT_OK);
    assert_int_equal(ct_safetensors_writer_metadata(writer, "k", "v"), CT_ERR_INTERNAL);
    assert_int_equal(ct_safetensors_writer_declare(writer, "a", CT_FILE_U8, 1, (int64_t[]){2}),
                     CT_OK);
    assert_int_equal(ct_safetensors_writer_declare(writer, "a", CT_FILE_U8, 1, (int64_t[]){2}),
                     CT_ERR_INTERNAL);
    assert_int_equal(ct_safetensors_writer_declare(writer, "b", CT_FILE_U8, 1, (int64_t[]){-2}),
                     CT_ERR_INTERNAL);
    assert_int_equal(ct_safetensors_writer_declare(writer, "c", CT_FILE_F32, 2,
                                                   (int64_t[]){INT64_MAX, INT64_MAX}),
                     CT_ERR_INTERNAL);
    assert_int_equal(
        ct_safetensors_writer_declare(writer, "__metadata__", CT_FILE_U8, 1, (int64_t[]){1}),
        CT_ERR_INTERNAL);
    assert_int_equal(ct_safetensors_writer_begin(writer, path), CT_OK);
    assert_int_equal(ct_safetensors_writer_put(writer, "x", 1), CT_ERR_INTERNAL);
    assert_int_equal(ct_safetensors_writer_commit(writer), CT_ERR_INTERNAL);
    assert_int_equal(ct_safetensors_writer_put(writer, "xy", 2), CT_OK);
    assert_int_equal(ct_safetensors_writer_put(writer, "xy", 2), CT_ERR_INTERNAL);
    ct_safetensors_writer_destroy(writer); /* not committed: nothing is left */
    assert_false(ct_file_exists(path));
    assert_false(ct_file_exists(in_folder(*state, "file.tmp")));

    assert_int_equal(ct_safetensors_writer_create(&writer), CT_OK);
    assert_int_equal(ct_safetensors_writer_begin(writer, "/no/such/folder/file"), CT_ERR_IO);
    ct_safetensors_writer_destroy(writer);
    ct_safetensors_writer_destroy(NULL);
}

int run_safetensors_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_headers),
        cmocka_unit_test(test_bad_lengths),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_order_and_lookup),
        cmocka_unit_test(test_no_metadata_no_tensors),
        cmocka_unit_test(test_known_values),
        cmocka_unit_test(test_every_half),
        cmocka_unit_test(test_reference_file),
        cmocka_unit_test(test_open_errors),
        cmocka_unit_test_setup_teardown(test_written_is_read, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_writer_refuses, folder_setup, folder_teardown),
    };
    return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
