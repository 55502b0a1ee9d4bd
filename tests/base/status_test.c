#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "support.h"

static void messages(void **state)
{
    (void)state;
    assert_int_equal(ct_fail(CT_ERR_FORMAT, "%s:%d: odd", "a", 3), CT_ERR_FORMAT);
    assert_string_equal(ct_error_message(), "a:3: odd");
    errno = ENOENT;
    assert_int_equal(ct_fail_errno(CT_ERR_IO, "%s: cannot open", "a"), CT_ERR_IO);
    assert_string_equal(ct_error_message(), "a: cannot open: No such file or directory");
}

static void context_goes_in_front(void **state)
{
    (void)state;
    assert_int_equal(ct_fail(CT_ERR_DEVICE, "inner"), CT_ERR_DEVICE);
    assert_int_equal(ct_fail_context(CT_ERR_DEVICE, "step %d", 12), CT_ERR_DEVICE);
    assert_string_equal(ct_error_message(), "step 12: inner");
    /* The old message as an argument of the new one. */
    assert_int_equal(ct_fail(CT_ERR_IO, "worker: %s", ct_error_message()), CT_ERR_IO);
    assert_string_equal(ct_error_message(), "worker: step 12: inner");
}

static void long_messages_are_cut(void **state)
{
    (void)state;
    char text[3000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_int_equal(ct_fail(CT_ERR_IO, "%s", text), CT_ERR_IO);
    assert_int_equal(strlen(ct_error_message()), 1023);
    assert_int_equal(ct_fail_context(CT_ERR_IO, "ab"), CT_ERR_IO);
    assert_int_equal(strlen(ct_error_message()), 1023);
    assert_memory_equal(ct_error_message(), "ab: xx", 6);
    errno = EIO;
    assert_int_equal(ct_fail_errno(CT_ERR_IO, "%s", text), CT_ERR_IO);
    assert_int_equal(strlen(ct_error_message()), 1023);
}

static void *fail_elsewhere(void *result)
{
    *(bool *)result =
        ct_error_message()[0] == '\0' && ct_fail(CT_ERR_NUMERIC, "elsewhere") == CT_ERR_NUMERIC;
    return NULL;
}

static void each_thread_has_its_message(void **state)
{
    (void)state;
    pthread_t thread;
    bool fine = false;
    assert_int_equal(ct_fail(CT_ERR_IO, "here"), CT_ERR_IO);
    assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, &fine), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(fine);
    assert_string_equal(ct_error_message(), "here");
}

static void every_status_has_a_name(void **state)
{
    (void)state;
    for (int a = CT_OK; a <= CT_ERR_INTERNAL; a++) {
        assert_string_not_equal(ct_status_name((ct_status)a), "unknown error");
        for (int b = CT_OK; b < a; b++)
            assert_string_not_equal(ct_status_name((ct_status)a), ct_status_name((ct_status)b));
    }
    assert_string_equal(ct_status_name((ct_status)99), "unknown error");
}

static ct_status tried(ct_status status, int *cleanups)
{
    ct_status kept;
    CT_TRY(CT_OK);
    CT_TRY_GOTO(kept, status, done);
    CT_TRY(ct_fail(CT_ERR_INTERNAL, "went on"));
done:
    ++*cleanups;
    return kept;
}

static void try_macros(void **state)
{
    (void)state;
    int cleanups = 0;
    assert_int_equal(tried(CT_ERR_IO, &cleanups), CT_ERR_IO);
    assert_int_equal(cleanups, 1);
    assert_int_equal(tried(CT_OK, &cleanups), CT_ERR_INTERNAL);
    assert_int_equal(cleanups, 1);
}

int run_status_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages),
        cmocka_unit_test(context_goes_in_front),
        cmocka_unit_test(long_messages_are_cut),
        cmocka_unit_test(each_thread_has_its_message),
        cmocka_unit_test(every_status_has_a_name),
        cmocka_unit_test(try_macros),
    };
    return cmocka_run_group_tests_name("status", tests, NULL, NULL);
}
