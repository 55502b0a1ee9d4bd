#include "support.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "world/socket.h"

void ranks_open(ranks *job, int size, double timeout_seconds)
{
    memset(job, 0, sizeof *job);
    assert_in_range(size, 1, RANKS_MAX);
    job->world =
        (ct_world){.size = size, .local_size = size, .master = "127.0.0.1", .token = "token"};
    job->options = (ct_job_options){.timeout_seconds = timeout_seconds,
                                    .grace_seconds = 30,
                                    .config_hash = 7,
                                    .version = "1.0"};
    assert_ok(ct_socket_reserve(&job->world.port, &job->reservation));
    job->outcomes = mmap(NULL, RANKS_MAX * sizeof *job->outcomes, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(job->outcomes != MAP_FAILED);
    for (int rank = 0; rank < size; rank++) {
        job->errors[rank] = tmpfile();
        assert_non_null(job->errors[rank]);
    }
}

void ranks_start(ranks *job, int rank, scenario what)
{
    fflush(NULL);
    pid_t process = fork();
    assert_true(process >= 0);
    if (process == 0) {
        dup2(fileno(job->errors[rank]), STDERR_FILENO);
        exit(what(job, rank)); /* not _exit: AddressSanitizer then looks for leaks */
    }
    job->processes[rank] = process;
}

void ranks_wait(ranks *job, double seconds)
{
    double deadline = ct_clock_seconds() + seconds;
    bool late = false;
    for (int rank = 0; rank < job->world.size; rank++) {
        pid_t process = job->processes[rank];
        if (!process) continue;
        while (waitpid(process, &job->statuses[rank], WNOHANG) == 0) {
            if (ct_clock_seconds() >= deadline) {
                late = true;
                kill(process, SIGKILL);
                deadline += 1;
            }
            usleep(2000);
        }
        job->processes[rank] = 0;
    }
    if (late) fail_msg("ranks have not ended within %g s", seconds);
}

void ranks_close(ranks *job)
{
    for (int rank = 0; rank < job->world.size; rank++) fclose(job->errors[rank]);
    munmap(job->outcomes, RANKS_MAX * sizeof *job->outcomes);
    close(job->reservation);
}

void ranks_run(ranks *job, int size, double timeout_seconds, scenario what)
{
    ranks_open(job, size, timeout_seconds);
    for (int rank = 0; rank < size; rank++) ranks_start(job, rank, what);
    ranks_wait(job, 60);
}

/* Fails the test, after ending what a rank that is stopped would outlive. */
void assert_exited(const ranks *job, int rank, int status)
{
    int found = job->statuses[rank];
    if (WIFEXITED(found) && WEXITSTATUS(found) == status) return;
    for (int other = 0; other < job->world.size; other++)
        if (job->processes[other]) kill(job->processes[other], SIGKILL);
    char *text = printed(job, rank);
    fail_msg("rank %d: expected exit status %d, found wait status %x, \"%s\"; it wrote \"%s\"",
             rank, status, found, job->outcomes[rank].message, text);
}

void assert_exit_statuses(const ranks *job, int status)
{
    for (int rank = 0; rank < job->world.size; rank++) assert_exited(job, rank, status);
}

void assert_rank(const ranks *job, int rank, ct_status status, const char *text)
{
    const outcome *found = &job->outcomes[rank];
    if (found->status != status || !strstr(found->message, text))
        fail_msg("rank %d: expected %s, \"%s\"; found %s, \"%s\"", rank, ct_status_name(status),
                 text, ct_status_name(found->status), found->message);
}

char *printed(const ranks *job, int rank)
{
    char *text = must_alloc(65536);
    rewind(job->errors[rank]);
    size_t bytes = fread(text, 1, 65535, job->errors[rank]);
    text[bytes] = '\0';
    return text;
}

void assert_printed_once(const ranks *job, const char *text, int by)
{
    for (int rank = 0; rank < job->world.size; rank++) {
        char *found = printed(job, rank);
        char *first = strstr(found, text);
        bool fine = rank == by ? first && !strstr(first + 1, text) : !found[0];
        if (!fine) fail_msg("rank %d wrote \"%s\"", rank, found);
        free(found);
    }
}

ct_job *rank_meet(ranks *job, int rank)
{
    ct_world world = job->world;
    ct_job *met = NULL;
    world.rank = world.local_rank = rank;
    rank_record(job, rank, NULL, ct_job_meet(&world, &job->options, &met));
    return met;
}

void rank_record(ranks *job, int rank, const ct_job *met, ct_status status)
{
    outcome *out = &job->outcomes[rank];
    out->status = status;
    out->told = ct_job_told(met);
    snprintf(out->message, sizeof out->message, "%s", status == CT_OK ? "" : ct_error_message());
}

ct_status rank_agree(ct_job *met)
{
    int64_t number = 0;
    return ct_job_agree(met, &number, 1);
}
