/* Ranks of a job as forked processes on this machine, and what they leave behind. */
#ifndef CT_TESTS_WORLD_SUPPORT_H
#define CT_TESTS_WORLD_SUPPORT_H

#include <stdatomic.h>
#include <sys/types.h>

#include "../support.h"
#include "world/job.h"

#define RANKS_MAX 8

/* Written by a rank, read by the test: shared memory. */
typedef struct outcome {
    ct_status status;
    char message[1024];
    bool told;
    int64_t numbers[8];
    atomic_int calls; /* of on_failure */
    double when;      /* ct_clock_seconds, of what the test is about */
} outcome;

typedef struct ranks ranks;

/* What a rank does in its process; its exit status. */
typedef int (*scenario)(ranks *job, int rank);

struct ranks {
    ct_world world; /* but for the rank */
    ct_job_options options;
    int reservation; /* keeps the port free */
    pid_t processes[RANKS_MAX];
    int statuses[RANKS_MAX]; /* of waitpid(2) */
    FILE *errors[RANKS_MAX]; /* standard error */
    outcome *outcomes;       /* (RANKS_MAX) */
};

/* A job of `size` ranks that has no process yet. */
void ranks_open(ranks *job, int size, double timeout_seconds);
void ranks_start(ranks *job, int rank, scenario what);
/* Waits for the processes; kills them and fails when one is still there after `seconds`. */
void ranks_wait(ranks *job, double seconds);
void ranks_close(ranks *job);

/* Opens, starts all, waits. */
void ranks_run(ranks *job, int size, double timeout_seconds, scenario what);

/* The rank ended, all ended with this exit status; what they wrote is shown otherwise. */
void assert_exited(const ranks *job, int rank, int status);
void assert_exit_statuses(const ranks *job, int status);

/* The rank ended with OK, or failed with this status and text. */
#define assert_rank_ok(job, rank) assert_rank(job, rank, CT_OK, "")
void assert_rank(const ranks *job, int rank, ct_status status, const char *text);

/* What it wrote to standard error, as one string; free(). */
char *printed(const ranks *job, int rank);

/* Whether `text` occurs in the errors of exactly one rank, and no rank but that wrote anything. */
void assert_printed_once(const ranks *job, const char *text, int by);

/* ---- in a rank's process ---- */

/* Meets as `rank` with the job's options; records a failure. */
ct_job *rank_meet(ranks *job, int rank);

/* Records the status with the thread's message and whether it was told. */
void rank_record(ranks *job, int rank, const ct_job *met, ct_status status);

/* An agreement of one number. */
ct_status rank_agree(ct_job *met);

int run_world_tests(void);
int run_message_tests(void);
int run_meet_tests(void);
int run_job_tests(void);
int run_failure_tests(void);
int run_launch_tests(void);

/* What the test program does when the launcher starts it. */
int launched_rank(int argc, char **argv);

#endif
