/* The table itself, and docs/CONFIG.md, which is printed from it. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "config/schema.h"
#include "config/text.h"
#include "support.h"

#define REFERENCE "docs/CONFIG.md"

/* *size bytes of the reference; free(). */
static char *printed_reference(size_t *size)
{
    char *text = NULL;
    FILE *stream = open_memstream(&text, size);
    if (!stream) return NULL;
    ct_config_reference(stream);
    fclose(stream);
    return text;
}

int write_reference(void)
{
    size_t size;
    char *text = printed_reference(&size);
    ct_writer writer;
    ct_status status = text ? ct_writer_open(&writer, REFERENCE) : CT_ERR_MEMORY;
    if (status == CT_OK) {
        status = ct_writer_put(&writer, text, size);
        if (status == CT_OK) status = ct_writer_commit(&writer);
        else ct_writer_abandon(&writer);
    }
    free(text);
    if (status != CT_OK) fprintf(stderr, "%s\n", ct_error_message());
    return status != CT_OK;
}

static void reference_is_up_to_date(void **state)
{
    (void)state;
    size_t size;
    char *text = printed_reference(&size), *committed = read_text(REFERENCE, NULL);
    assert_non_null(text);
    if (strcmp(text, committed) != 0)
        fail_msg(REFERENCE " differs from the schema: run test_config --write-reference in the "
                           "repository's root");
    free(committed);
    free(text);
}

static void keys_are_well_formed(void **state)
{
    (void)state;
    for (int i = 0; i < ct_key_count; i++) {
        const ct_key *key = &ct_keys[i];
        char expected[CT_KEY_TEXT_BYTES], section[CT_KEY_NAME_BYTES];
        assert_true(strlen(key->name) < CT_KEY_NAME_BYTES);
        assert_true(key->count >= 1 && key->count <= CT_KEY_MAX_COUNT);
        assert_int_equal(ct_key_find(key->name), i); /* no name twice */
        ct_key_describe(key, expected);
        assert_true(strlen(expected) + 1 < CT_KEY_TEXT_BYTES);
        assert_true(strlen(key->help) > 10);
        assert_null(strchr(key->help, '|')); /* would end a table's cell */
        assert_null(strchr(key->help, '\n'));
        size_t length = ct_key_section_length(key->name);
        snprintf(section, sizeof section, "%.*s", (int)length, key->name);
        if (length) assert_true(ct_section_find(section) > 0);
        assert_ptr_equal(ct_key_nearest(key->name), key);
    }
}

/* Fields of the struct that no row of the table covers would never be set, printed or freed. */
static void keys_cover_the_struct(void **state)
{
    (void)state;
    static const size_t bytes[] = {[CT_KEY_WHOLE] = sizeof(int64_t),
                                   [CT_KEY_REAL] = sizeof(double),
                                   [CT_KEY_BOOL] = sizeof(bool),
                                   [CT_KEY_TEXT] = sizeof(char *),
                                   [CT_KEY_CHOICE] = sizeof(unsigned)};
    unsigned char covered[sizeof(ct_config)] = {0};
    for (int i = 0; i < ct_key_count; i++)
        for (size_t b = 0; b < bytes[ct_keys[i].type] * (size_t)ct_keys[i].count; b++)
            assert_int_equal(covered[ct_keys[i].offset + b]++, 0);
    size_t gap = 0;
    for (size_t b = 0; b < sizeof covered; b++) {
        gap = covered[b] ? 0 : gap + 1;
        assert_true(gap < 8); /* alignment at most */
    }
}

static void excerpts(void **state)
{
    (void)state;
    char out[CT_EXCERPT_BYTES];
    assert_string_equal(ct_excerpt("a photo", 7, out), "a photo");
    assert_string_equal(ct_excerpt("", 0, out), "");
    assert_string_equal(ct_excerpt("a\tb\x1B\x7F\xC2\x9B\xFF\xC3", 9, out), "a?b?????");
    assert_string_equal(ct_excerpt("a\0b", 3, out), "a?b");
    char text[400];
    for (size_t start = 0; start < 4; start++) { /* a cut never splits a character */
        memset(text, 'x', start);
        for (size_t i = 0; i < 40; i++) memcpy(text + start + 4 * i, "\xF0\x9F\x90\x95", 4);
        ct_excerpt(text, start + 160, out);
        assert_true(strlen(out) < CT_EXCERPT_BYTES && strlen(out) > 60);
        assert_true(ct_is_utf8(out, strlen(out)));
    }
}

static void utf8(void **state)
{
    (void)state;
    static const char *const right[] = {
        "", "abc", "\xC3\xA9", "\xE4\xB8\xAD", "\xF0\x9F\x90\x95", "\xF4\x8F\xBF\xBF"};
    static const char *const wrong[] = {"\x80",
                                        "\xC3",
                                        "\xC0\x80",
                                        "\xE0\x80\x80",
                                        "\xED\xA0\x80",
                                        "\xF4\x90\x80\x80",
                                        "\xFF",
                                        "a\xE4\xB8",
                                        "\xF0\x80\x80\x80",
                                        "\xC3(",
                                        "\xF8\x88\x80\x80\x80"};
    for (size_t i = 0; i < sizeof right / sizeof *right; i++)
        assert_true(ct_is_utf8(right[i], strlen(right[i])));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (ct_is_utf8(wrong[i], strlen(wrong[i]))) fail_msg("wrong[%zu] was taken for UTF-8", i);
    assert_false(ct_is_utf8("a\0b", 3));
}

int run_schema_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_is_up_to_date),
        cmocka_unit_test(keys_are_well_formed),
        cmocka_unit_test(keys_cover_the_struct),
        cmocka_unit_test(excerpts),
        cmocka_unit_test(utf8),
    };
    return cmocka_run_group_tests_name("schema", tests, NULL, NULL);
}
