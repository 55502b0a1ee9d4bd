/* The configuration's tests. `test_config --write-reference`, run from the repository's root,
 * writes docs/CONFIG.md anew after a change of the schema; without it a test compares the two. */
#include <string.h>

#include "support.h"

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--write-reference") == 0) return write_reference();
    return run_parse_tests() + run_value_tests() + run_validate_tests() + run_print_tests() +
           run_schema_tests();
}
