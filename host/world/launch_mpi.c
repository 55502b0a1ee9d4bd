/* Processor ranks: this process becomes mpirun. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/memory.h"
#include "world/launch.h"
#include "world/self.h"

/* What training needs of Open MPI, unless the user wants it otherwise. Names of Open MPI 4 (ORTE)
 * and of 5 (PRRTE). */
static const char *const settings[][2] = {
    /* More ranks than processors: for tests, and where hyper-threads are not counted. */
    {"OMPI_MCA_rmaps_base_oversubscribe", "1"},
    {"PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe"},
    /* A rank has threads: bound to one processor they would share it. */
    {"OMPI_MCA_hwloc_base_binding_policy", "none"},
    {"PRTE_MCA_hwloc_default_binding_policy", "none"},
    /* A rank that waits lets others run. */
    {"OMPI_MCA_mpi_yield_when_idle", "1"},
    /* Seconds from SIGTERM to SIGKILL: a checkpoint's. */
    {"OMPI_MCA_odls_base_sigkill_timeout", "30"},
    {"PRTE_MCA_odls_base_sigkill_timeout", "30"},
};

/* mpirun refuses to run as root without these. */
static const char *const as_root[][2] = {
    {"OMPI_ALLOW_RUN_AS_ROOT", "1"},
    {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"},
};

/* Of the world that this process is in, a job of one, and that its ranks must not take for theirs.
 */
static const char *const own_world[] = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE",
                                        "CT_LAUNCHED"};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static ct_status set_environment(void)
{
    for (size_t i = 0; i < COUNT(settings); i++)
        if (setenv(settings[i][0], settings[i][1], 0) != 0)
            return ct_fail_errno(CT_ERR_MEMORY, "cannot set %s", settings[i][0]);
    for (size_t i = 0; i < COUNT(as_root) && geteuid() == 0; i++)
        if (setenv(as_root[i][0], as_root[i][1], 0) != 0)
            return ct_fail_errno(CT_ERR_MEMORY, "cannot set %s", as_root[i][0]);
    for (size_t i = 0; i < COUNT(own_world); i++) unsetenv(own_world[i]);
    return CT_OK;
}

ct_status ct_launch_mpi(int ranks, char **argv)
{
    char number[16], program[CT_SELF_BYTES];
    char run[] = "mpirun", option[] = "-n";
    size_t count = 0;
    while (argv[count]) count++;
    char **command;
    CT_TRY(ct_alloc(count + 5, sizeof *command, "arguments of mpirun", &command));
    snprintf(number, sizeof number, "%d", ranks);
    ct_self_path(program);
    size_t used = 0;
    command[used++] = run;
    command[used++] = option;
    command[used++] = number;
    command[used++] = program;
    for (size_t i = 1; i < count; i++) command[used++] = argv[i];
    ct_status status = set_environment();
    if (status == CT_OK) {
        execvp("mpirun", command);
        status = errno == ENOENT
                     ? ct_fail(CT_ERR_UNSUPPORTED,
                               "several processor ranks need mpirun, which is not in PATH: install "
                               "Open MPI, or start the ranks with another launcher")
                     : ct_fail_errno(CT_ERR_IO, "cannot start mpirun");
    }
    free(command);
    return status;
}
