/* What the tests of the base share. */
#ifndef CT_TESTS_BASE_SUPPORT_H
#define CT_TESTS_BASE_SUPPORT_H

#include "../support.h"

int run_status_tests(void);
int run_memory_tests(void);
int run_file_tests(void);
int run_rng_tests(void);
int run_log_tests(void);
int run_interrupt_tests(void);
int run_half_tests(void);

#endif
