/* The groups of tests of test_loss; each returns its number of failures. */
#ifndef CT_TESTS_LOSS_TESTS_H
#define CT_TESTS_LOSS_TESTS_H

#include <stdint.h>

/* CT_TEST_SEED, or 1. */
uint64_t test_seed(void);

int run_shape_tests(void);
int run_symmetry_tests(void);
int run_rank_tests(void);

#endif
