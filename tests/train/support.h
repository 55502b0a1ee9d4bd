/* What the train module's tests share: assertions, files in a folder of their own. */
#ifndef CT_TESTS_TRAIN_SUPPORT_H
#define CT_TESTS_TRAIN_SUPPORT_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/status.h"

/* Passes, or fails the test with the thread's message. */
#define assert_ok(expression)                                                                      \
    do {                                                                                           \
        if ((expression) != CT_OK) fail_msg("%s: %s", #expression, ct_error_message());            \
    } while (0)

/* Fails with this status, and with `text` in the message. */
#define assert_fails(expression, status, text)                                                     \
    do {                                                                                           \
        assert_int_equal(expression, status);                                                      \
        if (!strstr(ct_error_message(), text))                                                     \
            fail_msg("message \"%s\" lacks \"%s\"", ct_error_message(), text);                     \
    } while (0)

#define assert_close(value, expected, limit)                                                       \
    do {                                                                                           \
        double value_ = (value), expected_ = (expected);                                           \
        if (!(fabs(value_ - expected_) <= (limit)))                                                \
            fail_msg("%s is %.17g, expected %.17g", #value, value_, expected_);                    \
    } while (0)

/* Memory that ends the test program when there is none; zeroed, never NULL. */
void *must_alloc(size_t count, size_t size);

/* The whole file with a NUL behind it; free it. A file that cannot be read fails the test. */
char *read_text(const char *path, size_t *size);
void write_bytes(const char *path, const char *bytes, size_t size);

/* cmocka setup and teardown: *state is the name of a new, empty folder, removed with its files. */
int folder_setup(void **state);
int folder_teardown(void **state);

/* <folder>/<name>, valid until the next call. */
const char *in_folder(void **state, const char *name);

#endif
