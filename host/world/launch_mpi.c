/* Processor ranks: mpirun starts them, and this process waits for it.
 *
 * mpirun ends a job that it is asked to end within seconds and drops what ranks still print, so
 * signals are passed on as SIGUSR1, which it hands to every rank: they write a checkpoint and end.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
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

enum { NO_MPIRUN = 127 };

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

/* In the child; only returns when there is no mpirun. A process group of its own: the terminal's
 * Ctrl-C is for this program to pass on. */
static void become_mpirun(char **command, pid_t parent, const sigset_t *mask)
{
    setpgid(0, 0);
    signal(SIGTTOU, SIG_IGN);
    sigprocmask(SIG_SETMASK, mask, NULL);
    if (prctl(PR_SET_PDEATHSIG, SIGTERM) != 0) return;
    if (getppid() != parent) raise(SIGKILL); /* it died before that */
    execvp("mpirun", command);
}

/* The first signal asks all ranks to stop after a checkpoint, a second one ends them. */
static int wait_for(pid_t child, const sigset_t *watched)
{
    int status = 0, asked = 0, number;
    while (waitpid(child, &status, WNOHANG) == 0) {
        if (sigwait(watched, &number) != 0 || number == SIGCHLD) continue;
        kill(child, asked ? SIGTERM : SIGUSR1);
        asked = asked ? asked : number;
    }
    const int exit_status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    return exit_status == 128 + SIGUSR1 && asked ? 128 + asked : exit_status;
}

static ct_status run(char **command, int *exit_status)
{
    sigset_t watched, before;
    const pid_t parent = getpid();
    sigemptyset(&watched);
    sigaddset(&watched, SIGCHLD);
    sigaddset(&watched, SIGINT);
    sigaddset(&watched, SIGTERM);
    sigaddset(&watched, SIGHUP);
    signal(SIGCHLD, SIG_DFL); /* ignored, it would leave no child to wait for */
    sigprocmask(SIG_BLOCK, &watched, &before);
    const pid_t child = fork();
    if (child == 0) {
        become_mpirun(command, parent, &before);
        _exit(NO_MPIRUN);
    }
    if (child > 0) *exit_status = wait_for(child, &watched);
    const ct_status status = child > 0 ? CT_OK : ct_fail_errno(CT_ERR_IO, "cannot start mpirun");
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (status != CT_OK || *exit_status != NO_MPIRUN) return status;
    return ct_fail(
        CT_ERR_UNSUPPORTED,
        "several processor ranks need mpirun, which is not in PATH: install Open MPI, or "
        "start the ranks with another launcher");
}

ct_status ct_launch_mpi(int ranks, char **argv, int *exit_status)
{
    char number[16], program[CT_SELF_BYTES];
    char mpirun[] = "mpirun", quiet[] = "--quiet", option[] = "-n";
    size_t count = 0;
    while (argv[count]) count++;
    char **command;
    CT_TRY(ct_alloc(count + 6, sizeof *command, "arguments of mpirun", &command));
    snprintf(number, sizeof number, "%d", ranks);
    ct_self_path(program);
    size_t used = 0;
    command[used++] = mpirun;
    command[used++] = quiet; /* of what the ranks say themselves */
    command[used++] = option;
    command[used++] = number;
    command[used++] = program;
    for (size_t i = 1; i < count; i++) command[used++] = argv[i];
    ct_status status = set_environment();
    if (status == CT_OK) status = run(command, exit_status);
    free(command);
    return status;
}
