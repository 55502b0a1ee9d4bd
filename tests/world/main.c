#include <string.h>

#include "support.h"

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "rank") == 0) return launched_rank(argc, argv);
    return run_world_tests() + run_message_tests() + run_meet_tests() + run_job_tests() +
           run_failure_tests() + run_launch_tests();
}
