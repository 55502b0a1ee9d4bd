/* Every op case on every device of a backend, as one group of tests. */
#ifndef CT_TESTS_OP_RUN_CASES_H
#define CT_TESTS_OP_RUN_CASES_H

#include "op.h"

/* Runs the cases of CT_CASE_TABLES on each device (created by the caller, in its own precision) and
 * returns the number of failed tests. group: the name of the group; labels[i]: of devices[i], for
 * the tests' names ("bf16"). references: the checks that need no device too, once (f64 against
 * differences, the tables' names), and PyTorch's numbers against every device.
 *
 * Environment: CT_TEST_SEED=n      another seed
 *              CT_TEST_CASES=text  only cases whose name has the text in it
 *              CT_TEST_SHARD=i/n   only the i-th of n parts of the cases, i from 1 to n */
int ct_run_op_cases(const char *group, ct_device *const *devices, const char *const *labels,
                    int device_count, bool references);

#endif
