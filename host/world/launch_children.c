/* GPU ranks on this machine: children of this process, which waits for them. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "world/launch.h"
#include "world/self.h"
#include "world/socket.h"
#include "world/world.h"

/* Passed on to the ranks. */
static const int passed_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

#define PASSED (sizeof passed_signals / sizeof *passed_signals)

/* What has been done about ranks that do not end after a failure. */
typedef enum stage { WAITING, TERMINATED, KILLED } stage;

typedef struct launcher {
    int ranks;
    double grace_seconds;
    char **argv;
    char program[CT_SELF_BYTES];
    char token[33];
    int port, reservation; /* where rank 0 will listen, and the socket that keeps it free */
    int signals;           /* signalfd */
    sigset_t old_mask;
    struct sigaction old_child;
    pid_t *children; /* (ranks); 0: ended, or not started */
    int running;
    int exit_status; /* of the first rank that failed */
    bool failed;     /* the others are to end */
    bool by_signal;  /* one was killed, not from here */
    double deadline; /* of the present stage; when failed */
    stage stage;
    sigset_t passed_on;
} launcher;

/* ---- starting ---- */

static ct_status prepare(launcher *job)
{
    unsigned char random[16];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return ct_fail_errno(CT_ERR_INTERNAL, "cannot get random bytes");
    for (size_t i = 0; i < sizeof random; i++) snprintf(job->token + 2 * i, 3, "%02x", random[i]);
    ct_self_path(job->program);
    CT_TRY(ct_socket_reserve(&job->port, &job->reservation));
    sigset_t watched;
    sigemptyset(&watched);
    sigaddset(&watched, SIGCHLD);
    for (size_t i = 0; i < PASSED; i++) {
        struct sigaction present; /* who started us (nohup, a shell's &) may want it ignored */
        if (sigaction(passed_signals[i], NULL, &present) == 0 && present.sa_handler != SIG_IGN)
            sigaddset(&watched, passed_signals[i]);
    }
    /* Ignored, it would leave no child to wait for. */
    sigaction(SIGCHLD, &(struct sigaction){.sa_handler = SIG_DFL}, &job->old_child);
    sigprocmask(SIG_BLOCK, &watched, &job->old_mask);
    job->signals = signalfd(-1, &watched, SFD_NONBLOCK | SFD_CLOEXEC);
    if (job->signals < 0) return ct_fail_errno(CT_ERR_INTERNAL, "cannot watch signals");
    return ct_alloc((size_t)job->ranks, sizeof *job->children, "ranks", &job->children);
}

static bool set_number(const char *name, int value)
{
    char text[16];
    snprintf(text, sizeof text, "%d", value);
    return setenv(name, text, 1) == 0;
}

/* In the child; only returns when it cannot become the rank. */
static void become_rank(const launcher *job, int rank, pid_t parent)
{
    setpgid(0, 0);
    /* Background processes may write to the terminal, whatever `stty tostop` says. */
    signal(SIGTTOU, SIG_IGN);
    sigaction(SIGCHLD, &job->old_child, NULL);
    sigprocmask(SIG_SETMASK, &job->old_mask, NULL);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) return;
    if (getppid() != parent) raise(SIGKILL); /* it died before that */
    if (!set_number("RANK", rank) || !set_number("LOCAL_RANK", rank) ||
        !set_number("WORLD_SIZE", job->ranks) || !set_number("LOCAL_WORLD_SIZE", job->ranks) ||
        !set_number("MASTER_PORT", job->port) || !set_number("CT_LAUNCHED", 1) ||
        setenv("MASTER_ADDR", "127.0.0.1", 1) != 0 || setenv("CT_JOB_TOKEN", job->token, 1) != 0)
        return;
    job->argv[0] = (char *)job->program;
    execv(job->program, job->argv);
}

/* The pipe tells whether the child became the rank: that closes it without a word. */
static ct_status start_rank(launcher *job, int rank)
{
    int ends[2], error = 0;
    pid_t parent = getpid();
    if (pipe2(ends, O_CLOEXEC) != 0) return ct_fail_errno(CT_ERR_IO, "cannot make a pipe");
    pid_t child = fork();
    if (child == 0) {
        become_rank(job, rank, parent);
        error = errno;
        _exit(write(ends[1], &error, sizeof error) < 0 ? 126 : 127);
    }
    if (child < 0) error = errno;
    close(ends[1]);
    if (child > 0) {
        setpgid(child, child); /* here too: a signal may come before the child has run */
        job->children[rank] = child;
        job->running++;
        while (read(ends[0], &error, sizeof error) < 0 && errno == EINTR) continue;
    }
    close(ends[0]);
    errno = error;
    return error ? ct_fail_errno(CT_ERR_IO, "rank %d cannot be started", rank) : CT_OK;
}

/* ---- waiting ---- */

static void signal_all(const launcher *job, int number)
{
    for (int rank = 0; rank < job->ranks; rank++)
        if (job->children[rank]) kill(job->children[rank], number);
}

/* Stopped by a signal, after a checkpoint: what the ranks do together, each in its time (rank 0
 * writes the checkpoint), and no failure. */
static bool is_stop(int exit_status)
{
    return exit_status == 128 + SIGINT || exit_status == 128 + SIGTERM;
}

/* A rank has ended. A signal that is not from here is the cause of the other ranks' failures, even
 * when they ended first: a process that holds a GPU takes long to die. */
static void note_end(launcher *job, int rank, int status)
{
    int number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    int exit_status = number ? 128 + number : WEXITSTATUS(status);
    job->children[rank] = 0;
    job->running--;
    if (exit_status == 0) return;
    bool ours = number && (job->stage != WAITING || sigismember(&job->passed_on, number));
    bool cause = number && !ours && !job->by_signal;
    if (!job->exit_status || cause) job->exit_status = exit_status;
    if (cause) {
        job->by_signal = true;
        ct_log(CT_LOG_ERROR, "rank %d was killed by signal %d (%s)", rank, number,
               strsignal(number));
    }
    if (job->failed || (!number && is_stop(exit_status))) return;
    job->failed = true;
    job->deadline = ct_clock_seconds() + job->grace_seconds;
}

static void reap(launcher *job)
{
    int status;
    for (int rank = 0; rank < job->ranks; rank++)
        if (job->children[rank] && waitpid(job->children[rank], &status, WNOHANG) > 0)
            note_end(job, rank, status);
}

static void press(launcher *job)
{
    signal_all(job, job->stage == WAITING ? SIGTERM : SIGKILL);
    job->stage = job->stage == WAITING ? TERMINATED : KILLED;
    job->deadline = ct_clock_seconds() + job->grace_seconds;
}

/* Waits for a signal, or until the ranks' grace is over. */
static void wait_for_signal(launcher *job)
{
    struct signalfd_siginfo info;
    struct pollfd event = {.fd = job->signals, .events = POLLIN};
    int wait_ms = -1;
    if (job->failed && job->stage != KILLED) {
        double left = job->deadline - ct_clock_seconds();
        wait_ms = left > 0 ? (int)(left * 1e3) + 1 : 0;
    }
    poll(&event, 1, wait_ms);
    while (read(job->signals, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGCHLD) continue;
        sigaddset(&job->passed_on, (int)info.ssi_signo);
        signal_all(job, (int)info.ssi_signo);
    }
}

static void wait_for_all(launcher *job)
{
    for (reap(job); job->running; reap(job)) {
        wait_for_signal(job);
        if (job->failed && job->stage != KILLED && ct_clock_seconds() >= job->deadline) press(job);
    }
}

/* ---- all ---- */

static void clean_up(launcher *job)
{
    if (job->signals >= 0) close(job->signals);
    if (job->reservation >= 0) close(job->reservation);
    sigprocmask(SIG_SETMASK, &job->old_mask, NULL);
    sigaction(SIGCHLD, &job->old_child, NULL);
    free(job->children);
}

int ct_launch_children(int ranks, double grace_seconds, char **argv)
{
    launcher job = {.ranks = ranks,
                    .grace_seconds = grace_seconds,
                    .argv = argv,
                    .reservation = -1,
                    .signals = -1};
    sigemptyset(&job.passed_on);
    sigprocmask(SIG_BLOCK, NULL, &job.old_mask);
    sigaction(SIGCHLD, NULL, &job.old_child);
    ct_status status = prepare(&job);
    for (int rank = 0; rank < ranks && status == CT_OK; rank++) status = start_rank(&job, rank);
    if (status != CT_OK && job.running) {
        job.stage = KILLED;
        signal_all(&job, SIGKILL);
    }
    wait_for_all(&job);
    clean_up(&job);
    return status == CT_OK ? job.exit_status : -1;
}
