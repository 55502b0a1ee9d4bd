/* Messages as bytes. */
#include "world/message.h"

#include <stdlib.h>
#include <string.h>

#include "support.h"

static void there_and_back(void **state)
{
    (void)state;
    uint8_t bytes[CT_MESSAGE_BYTES];
    ct_message out;
    size_t used = 0;
    const ct_message message = {CT_MESSAGE_FAILED, -3, -7, 0x0123456789abcdefull, "a\nb\033c", 5};
    size_t size = ct_message_write(&message, bytes);
    assert_int_equal(size, CT_MESSAGE_HEADER + 5);
    assert_int_equal(bytes[16], 0xef); /* little-endian */
    for (size_t part = 0; part < size; part++)
        assert_int_equal(ct_message_read(bytes, part, &out, &used), CT_MESSAGE_PART);
    assert_int_equal(ct_message_read(bytes, size, &out, &used), CT_MESSAGE_WHOLE);
    assert_int_equal(used, size);
    assert_int_equal(out.kind, CT_MESSAGE_FAILED);
    assert_int_equal(out.rank, -3);
    assert_int_equal(out.value, -7);
    assert_true(out.number == message.number);
    char text[16], cut[3];
    ct_message_text(&out, text, sizeof text);
    assert_string_equal(text, "a?b?c");
    ct_message_text(&out, cut, sizeof cut);
    assert_string_equal(cut, "a?");
}

static void what_is_wrong_is_found_early(void **state)
{
    (void)state;
    uint8_t bytes[CT_MESSAGE_BYTES];
    ct_message out;
    size_t used = 0;
    assert_int_equal(ct_message_read((const uint8_t *)"G", 1, &out, &used), CT_MESSAGE_WRONG);
    assert_int_equal(ct_message_read((const uint8_t *)"ctx", 3, &out, &used), CT_MESSAGE_WRONG);
    ct_message_write(&(ct_message){.kind = CT_MESSAGE_GOODBYE + 1}, bytes);
    assert_int_equal(ct_message_read(bytes, CT_MESSAGE_HEADER, &out, &used), CT_MESSAGE_WRONG);
    ct_message_write(&(ct_message){.kind = CT_MESSAGE_ALIVE}, bytes);
    bytes[7] = 0xff; /* a payload of 65,280 bytes */
    assert_int_equal(ct_message_read(bytes, CT_MESSAGE_HEADER, &out, &used), CT_MESSAGE_WRONG);
}

static void hello(void **state)
{
    (void)state;
    uint8_t bytes[CT_MESSAGE_BYTES];
    ct_message message;
    ct_hello out;
    size_t used = 0;
    const ct_hello in = {3, 4, 99, "host\r", "1.2", ""};
    size_t size = ct_hello_write(&in, bytes);
    assert_int_equal(ct_message_read(bytes, size, &message, &used), CT_MESSAGE_WHOLE);
    assert_true(ct_hello_read(&message, &out));
    assert_int_equal(out.rank, 3);
    assert_int_equal(out.size, 4);
    assert_int_equal(out.config_hash, 99);
    assert_string_equal(out.host, "host?");
    assert_string_equal(out.version, "1.2");
    assert_string_equal(out.token, "");
    ct_message shorter = message, other = message, longer = message;
    shorter.bytes--;
    assert_false(ct_hello_read(&shorter, &out));
    other.kind = CT_MESSAGE_ALIVE;
    assert_false(ct_hello_read(&other, &out));
    longer.payload = "h\0v\0t\0more";
    longer.bytes = 10;
    assert_false(ct_hello_read(&longer, &out));
    char *endless = must_alloc(CT_MESSAGE_PAYLOAD);
    memset(endless, 'h', CT_MESSAGE_PAYLOAD - 2);
    longer.payload = endless;
    longer.bytes = CT_MESSAGE_PAYLOAD;
    assert_false(ct_hello_read(&longer, &out));
    free(endless);
}

int run_message_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(what_is_wrong_is_found_early),
        cmocka_unit_test(hello),
    };
    return cmocka_run_group_tests_name("message", tests, NULL, NULL);
}
