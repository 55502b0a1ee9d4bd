/* Every check of every op case on the CPU backend, and the tests of that backend alone. */
#include <stdio.h>
#include <stdlib.h>

#include "cpu/cpu.h"
#include "cpu_tests.h"
#include "run_cases.h"

/* An uneven number shows mistakes in splitting work; 1 is the plain case. */
enum { ONE_THREAD, THREE_THREADS, DEVICES };
static const int device_threads[DEVICES] = {1, 3};
static const char *const labels[DEVICES] = {"1 thread", "3 threads"};

int main(void)
{
    ct_device *devices[DEVICES] = {NULL};
    int failed = 0;
    for (int i = 0; i < DEVICES; i++) {
        if (ct_cpu_device_create(device_threads[i], &devices[i]) == CT_OK) continue;
        fprintf(stderr, "%s\n", ct_error_message());
        failed++;
    }
    if (!failed) failed += ct_run_op_cases("ops", devices, labels, DEVICES, true);
    for (int i = 0; i < DEVICES; i++) ct_device_destroy(devices[i]);
    failed += ct_run_cpu_tests();
    failed += ct_run_cpu_kernel_tests();
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
