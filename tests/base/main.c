#include "support.h"

int main(void)
{
    return run_status_tests() + run_memory_tests() + run_file_tests() + run_rng_tests() +
           run_log_tests() + run_interrupt_tests() + run_half_tests();
}
