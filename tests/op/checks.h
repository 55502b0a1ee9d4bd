/* What is checked of every op case. Each function fails the running test with a message that
 * names the case, the tensor and the seed. */
#ifndef CT_TESTS_OP_CHECKS_H
#define CT_TESTS_OP_CHECKS_H

#include "case.h"

/* The f64 backward against central differences of the f64 forward. */
void ct_check_finite_differences(const ct_case *c, uint64_t seed);

/* The device against the f64 reference, and all else that case.h promises. */
void ct_check_device(const ct_case *c, ct_device *device, uint64_t seed);

/* The same for inputs already in place: r0's unrounded, r1's rounded. Computes the references. */
void ct_check_device_runs(ct_case_run *r0, ct_case_run *r1, ct_device *device);

/* The reference and the device against PyTorch's numbers for this case, if the file has it. */
void ct_check_torch(const ct_case *c, ct_device *device, uint64_t seed);

/* Whether PyTorch's file has the case. */
bool ct_torch_has(const char *case_name);

/* Fails when PyTorch's file names a case that is in no table. */
void ct_check_torch_names(const ct_case *const *cases, int count);

#endif
