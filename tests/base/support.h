/* What the tests of the base share. */
#ifndef CT_TESTS_BASE_SUPPORT_H
#define CT_TESTS_BASE_SUPPORT_H

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

/* The expression fails with this status; the message ends with `ending`. */
#define assert_fails(expression, status, ending)                                                   \
    assert_failure(expression, status, ending, #expression)
void assert_failure(ct_status found, ct_status expected, const char *ending, const char *what);

int run_status_tests(void);
int run_memory_tests(void);
int run_file_tests(void);
int run_rng_tests(void);
int run_log_tests(void);
int run_interrupt_tests(void);

#endif
