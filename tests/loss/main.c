/* The contrastive losses on the CPU backend at the sizes of real batches, through the operation
 * table, against f64. Small sizes, PyTorch and differences are the business of tests/op. */
#include <stdio.h>
#include <stdlib.h>

#include "tests.h"

uint64_t test_seed(void)
{
    const char *seed = getenv("CT_TEST_SEED");
    return seed ? strtoull(seed, NULL, 10) : 1;
}

int main(void)
{
    printf("seed %llu\n", (unsigned long long)test_seed());
    return run_shape_tests() + run_symmetry_tests() + run_rank_tests();
}
