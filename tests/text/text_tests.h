/* What the files of this test program share. */
#ifndef CT_TESTS_TEXT_H
#define CT_TESTS_TEXT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/status.h"

#define assert_ok(expression)                                                                      \
    do {                                                                                           \
        ct_status assert_status_ = (expression);                                                   \
        if (assert_status_ != CT_OK) fail_msg("%s: %s", #expression, ct_error_message());          \
    } while (0)

/* The call fails with `code` and a message that contains `text`. */
#define assert_fails(expression, code, text)                                                       \
    do {                                                                                           \
        assert_int_equal(expression, code);                                                        \
        if (!strstr(ct_error_message(), text))                                                     \
            fail_msg("\"%s\" does not contain \"%s\"", ct_error_message(), text);                  \
    } while (0)

int run_tokenizer_tests(void);
int run_golden_tests(void);
int run_token_store_tests(void);
int run_vocab_trainer_tests(void);

#endif
