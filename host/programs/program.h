/* What the programs' command lines have in common. */
#ifndef CT_PROGRAMS_PROGRAM_H
#define CT_PROGRAMS_PROGRAM_H

#include <stdbool.h>

#include "config/config.h"

/* Starts the program anew with a short GOMP_SPINCOUNT, unless the user has set that or
 * OMP_WAIT_POLICY: GNU OpenMP reads them before main. Its idle threads spin for about a millisecond
 * by default; on processors shared with other work (or with our own decoding threads) they then
 * keep from running the very thread they wait for. Call first in main. */
void ct_program_settle_openmp(char **argv);

/* Applies --device (NULL: not given) and then key=value arguments. */
CT_NODISCARD ct_status ct_program_override(ct_config *config, const char *device,
                                           char *const *assignments, int count);

/* Parses an option's whole number; complains on standard error and returns false when it is none
 * or out of range. */
bool ct_program_number(const char *program, const char *option, const char *text, long long least,
                       long long most, long long *out);

/* CT_ERR_IO when standard output could not be written (a full disk, a closed pipe). */
CT_NODISCARD ct_status ct_program_flush_stdout(void);

/* Reports a failure on standard error (program NULL: another process has) and gives the exit
 * status: 0 done, 2 wrong usage, 128 + signal when stopped by one (130 when by --stop-at), else 1.
 */
int ct_program_exit_status(const char *program, ct_status status, int signal);

#endif
