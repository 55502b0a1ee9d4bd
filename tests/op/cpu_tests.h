/* Tests of the CPU device itself: what no op case shows. */
#ifndef CT_TESTS_OP_CPU_TESTS_H
#define CT_TESTS_OP_CPU_TESTS_H

/* Each runs a group and returns the number of failed tests. */
int ct_run_cpu_tests(void);
int ct_run_cpu_kernel_tests(void);

#endif
