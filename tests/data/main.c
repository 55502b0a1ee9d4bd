#include "support.h"

#include "base/log.h"

int main(void)
{
    ct_log_set_level(
        CT_LOG_ERROR); /* malformed rows are warnings, and the tests are full of them */
    return run_parse_tests() + run_csv_tests() + run_split_tests() + run_folder_tests() +
           run_sampler_tests();
}
