#include "programs/program.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"

void ct_program_settle_openmp(char **argv)
{
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
    char path[4096]; /* the link itself as the program would rename the process to "exe" */
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length <= 0) return;
    path[length] = '\0';
    /* When a call fails the program goes on as it is: slower at worst. */
    if (setenv("GOMP_SPINCOUNT", "5000", 1) == 0) execv(path, argv);
}

ct_status ct_program_override(ct_config *config, const char *device, char *const *assignments,
                              int count)
{
    if (device) {
        char assignment[64];
        snprintf(assignment, sizeof assignment, "device=%s", device);
        CT_TRY(ct_config_override(config, assignment));
    }
    for (int i = 0; i < count; i++) CT_TRY(ct_config_override(config, assignments[i]));
    return CT_OK;
}

bool ct_program_number(const char *program, const char *option, const char *text, long long least,
                       long long most, long long *out)
{
    char *end;
    errno = 0;
    *out = strtoll(text, &end, 10);
    if (*text && !*end && errno == 0 && *out >= least && *out <= most) return true;
    fprintf(stderr, "%s: %s: expected a whole number from %lld to %lld, found \"%s\"\n", program,
            option, least, most, text);
    return false;
}

ct_status ct_program_flush_stdout(void)
{
    if (fflush(stdout) != 0 || ferror(stdout))
        return ct_fail_errno(CT_ERR_IO, "standard output: cannot write");
    return CT_OK;
}

int ct_program_exit_status(const char *program, ct_status status, int signal)
{
    if (status == CT_OK) return 0;
    if (status == CT_ERR_INTERRUPTED) {
        if (program) ct_log(CT_LOG_WARNING, "%s", ct_error_message());
        return 128 + (signal ? signal : 2);
    }
    if (program) ct_log(CT_LOG_ERROR, "%s: %s", program, ct_error_message());
    return status == CT_ERR_ARGUMENT ? 2 : 1;
}
