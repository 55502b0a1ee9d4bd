/* Tests of the CPU device itself: what no op case shows. */
#ifndef CT_TESTS_OP_CPU_TESTS_H
#define CT_TESTS_OP_CPU_TESTS_H

/* Runs the group; returns the number of failed tests. */
int ct_run_cpu_tests(void);

#endif
