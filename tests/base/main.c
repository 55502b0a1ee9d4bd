#include <string.h>

#include "support.h"

void assert_failure(ct_status found, ct_status expected, const char *ending, const char *what)
{
    const char *message = ct_error_message();
    size_t length = strlen(message), tail = strlen(ending);
    if (found != expected || length < tail || strcmp(message + length - tail, ending) != 0)
        fail_msg("%s: %s: \"%s\"", what, ct_status_name(found), message);
}

int main(void)
{
    return run_status_tests() + run_memory_tests() + run_file_tests() + run_rng_tests() +
           run_log_tests() + run_interrupt_tests();
}
