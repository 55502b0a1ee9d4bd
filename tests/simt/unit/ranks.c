#include "ranks.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define SIMT_FAULT_EXIT 86

typedef struct board {
    atomic_bool written;
    char data[4096];
} board;

static board *shared; /* of the run under way */

void ranks_broadcast(int rank, void *data, size_t bytes)
{
    if (rank == 0) {
        memcpy(shared->data, data, bytes);
        atomic_store(&shared->written, true);
        return;
    }
    for (int i = 0; i < 20000 && !atomic_load(&shared->written); i++) usleep(1000);
    if (!atomic_load(&shared->written)) _exit(1);
    memcpy(data, shared->data, bytes);
}

static void set_number(const char *name, unsigned value)
{
    char text[32];
    snprintf(text, sizeof text, "%u", value);
    setenv(name, text, 1);
}

static void be_rank(const ranks_options *options, int rank)
{
    set_number("CT_SIMT_SEED", options->seed * RANKS_MOST + (unsigned)rank);
    set_number("SIMT_DEVICES", (unsigned)options->size);
    set_number("SIMT_NCCL_DELAY_US", options->delay_us);
    set_number("SIMT_NCCL_TIMEOUT_MS", options->timeout_ms ? options->timeout_ms : 30000);
}

void ranks_run(const ranks_options *options, ranks_body *body, const void *context,
               ranks_ending *endings)
{
    pid_t children[RANKS_MOST];
    int logs[RANKS_MOST];
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(shared != MAP_FAILED);
    fflush(NULL);
    for (int rank = 0; rank < options->size; rank++) {
        logs[rank] = memfd_create("errors", 0);
        assert_true(logs[rank] >= 0);
        children[rank] = fork();
        assert_true(children[rank] >= 0);
        if (children[rank] == 0) {
            dup2(logs[rank], STDERR_FILENO);
            be_rank(options, rank);
            exit(body(rank, options->size, context));
        }
    }
    for (int rank = 0; rank < options->size; rank++) {
        int status;
        assert_int_equal(waitpid(children[rank], &status, 0), children[rank]);
        ranks_ending *ending = &endings[rank];
        ending->status = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
        const ssize_t got = pread(logs[rank], ending->errors, sizeof ending->errors - 1, 0);
        ending->errors[got > 0 ? got : 0] = '\0';
        close(logs[rank]);
    }
    munmap(shared, sizeof *shared);
}

void ranks_expect_success(const ranks_options *options, ranks_body *body, const void *context)
{
    ranks_ending endings[RANKS_MOST];
    ranks_run(options, body, context, endings);
    for (int rank = 0; rank < options->size; rank++)
        if (endings[rank].status != 0)
            fail_msg("rank %d of %d, seed %u: status %d: %s", rank, options->size, options->seed,
                     endings[rank].status, endings[rank].errors);
}

void ranks_expect_fault(const ranks_options *options, const char *text, ranks_body *body,
                        const void *context)
{
    ranks_ending endings[RANKS_MOST];
    ranks_run(options, body, context, endings);
    for (int rank = 0; rank < options->size; rank++)
        if (endings[rank].status == SIMT_FAULT_EXIT &&
            strstr(endings[rank].errors, "SIMT fault:") && strstr(endings[rank].errors, text))
            return;
    for (int rank = 0; rank < options->size; rank++)
        print_error("rank %d: status %d: %s\n", rank, endings[rank].status, endings[rank].errors);
    fail_msg("expected a fault with \"%s\" in some rank", text);
}
