/* The launcher: this program starts itself as ranks ("test_world rank BEHAVIOUR FOLDER"). */
#include "world/launch.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "support.h"

/* ---- what the ranks do ---- */

static void note(const char *folder, const char *name, int rank, const char *text)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.%d", folder, name, rank);
    write_bytes(path, text, strlen(text));
}

/* Meets; rank 1 is killed when `killed`. The program's own way to end. */
static int train(const ct_world *world, bool killed)
{
    ct_job_options options = {.timeout_seconds = 20, .grace_seconds = 10, .version = "1"};
    ct_job *met = NULL;
    ct_status status = ct_job_meet(world, &options, &met);
    if (status == CT_OK) status = rank_agree(met);
    if (killed && world->rank == 1) raise(SIGKILL);
    if (killed && status == CT_OK) status = rank_agree(met);
    if (status != CT_OK && !ct_job_told(met)) ct_log(CT_LOG_ERROR, "%s", ct_error_message());
    ct_job_leave(met);
    return status == CT_OK ? 0 : 1;
}

/* Counts signals for half a second, from when all know that it is ready. */
static int count_signals(const char *folder, int rank)
{
    int count = 0;
    char text[16];
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    note(folder, "ready", rank, "");
    struct timespec first = {20, 0}, more = {0, 500000000};
    for (struct timespec *wait = &first; sigtimedwait(&set, NULL, wait) > 0; wait = &more) count++;
    snprintf(text, sizeof text, "%d", count);
    note(folder, "count", rank, text);
    return 128 + SIGTERM;
}

static void ignore_signals(void)
{
    signal(SIGTERM, SIG_IGN);
    signal(SIGINT, SIG_IGN);
}

int launched_rank(int argc, char **argv)
{
    ct_world world;
    if (argc < 4 || ct_world_find(&world) != CT_OK) return 90;
    const char *what = argv[2], *folder = argv[3];
    char text[4096];
    if (strcmp(what, "train") == 0) return world.launched ? train(&world, false) : 91;
    if (strcmp(what, "killed") == 0) return train(&world, true);
    if (strcmp(what, "signals") == 0) return count_signals(folder, world.rank);
    if (strcmp(what, "world") == 0) {
        snprintf(text, sizeof text, "%d/%d %d/%d %d %s", world.rank, world.size, world.local_rank,
                 world.local_size, world.mpi, argc > 4 ? argv[4] : "");
        note(folder, "world", world.rank, text);
        return 0;
    }
    if (strcmp(what, "fails") == 0 && world.rank == 1) return 3;
    if (strcmp(what, "stubborn") == 0 && world.rank == 0) return 5;
    if (strcmp(what, "stubborn") == 0) ignore_signals();
    if (strcmp(what, "stops") == 0 && world.rank == 0) sleep(1);
    if (strcmp(what, "stops") == 0) {
        note(folder, "ended", world.rank, "");
        return 128 + SIGINT;
    }
    note(folder, "ready", world.rank, "");
    sleep(60);
    return 92;
}

/* ---- the launcher in a process ---- */

typedef struct launch {
    pid_t process;
    FILE *errors;
    char *folder;
    int size;
} launch;

static launch begin(int size, double grace_seconds, const char *what)
{
    launch made = {.errors = tmpfile(), .folder = folder_create(), .size = size};
    assert_non_null(made.errors);
    fflush(NULL);
    made.process = fork();
    assert_true(made.process >= 0);
    if (made.process == 0) {
        char *argv[] = {(char *)"test", (char *)"rank", (char *)what,
                        made.folder,    (char *)"a b",  NULL};
        dup2(fileno(made.errors), STDERR_FILENO);
        int status = ct_launch_children(size, grace_seconds, argv);
        free(made.folder);
        exit(status < 0 ? 99 : status);
    }
    return made;
}

static bool all_have(const launch *of, const char *name)
{
    for (int rank = 0; rank < of->size; rank++) {
        char file[32];
        snprintf(file, sizeof file, "%s.%d", name, rank);
        if (!ct_file_exists(in_folder(of->folder, file))) return false;
    }
    return true;
}

static void await(const launch *of, const char *name)
{
    for (int i = 0; i < 3000 && !all_have(of, name); i++) usleep(10000);
    assert_true(all_have(of, name));
}

/* Waits for the launcher: its wait status, and what it and the ranks wrote. */
static int end(launch *of, char *text, size_t capacity)
{
    int status = 0;
    for (int i = 0; i < 3000 && waitpid(of->process, &status, WNOHANG) == 0; i++) usleep(10000);
    rewind(of->errors);
    text[fread(text, 1, capacity - 1, of->errors)] = '\0';
    fclose(of->errors);
    return status;
}

static void assert_launch(int size, double grace_seconds, const char *what, int status,
                          const char *text)
{
    char found[4096];
    launch made = begin(size, grace_seconds, what);
    int wait_status = end(&made, found, sizeof found);
    if (!WIFEXITED(wait_status) || WEXITSTATUS(wait_status) != status || strcmp(found, text) != 0)
        fail_msg("%s: wait status %x, \"%s\"", what, wait_status, found);
    folder_remove(made.folder);
}

/* ---- tests ---- */

static void ranks_are_told_who_they_are(void **state)
{
    (void)state;
    char found[64];
    launch made = begin(3, 5, "world");
    assert_int_equal(end(&made, found, sizeof found), 0);
    for (int rank = 0; rank < 3; rank++) {
        char file[16], expected[64];
        snprintf(file, sizeof file, "world.%d", rank);
        snprintf(expected, sizeof expected, "%d/3 %d/3 0 a b", rank, rank);
        char *text = read_text(in_folder(made.folder, file), NULL);
        assert_string_equal(text, expected);
        free(text);
    }
    folder_remove(made.folder);
}

static void they_meet(void **state)
{
    (void)state;
    for (int size = 1; size <= 4; size++) assert_launch(size, 5, "train", 0, "");
}

static void a_failure_ends_the_others(void **state)
{
    (void)state;
    double before = ct_clock_seconds();
    assert_launch(3, 0.3, "fails", 3, "");
    assert_launch(3, 0.3, "stubborn", 5, "");
    assert_true(ct_clock_seconds() - before < 10);
}

static void a_killed_rank_is_reported_once(void **state)
{
    (void)state;
    assert_launch(3, 5, "killed", 128 + SIGKILL, "error: rank 1 was killed by signal 9 (Killed)\n");
}

/* Rank 0 still writes a checkpoint when rank 1 has long ended. */
static void a_stop_is_no_failure(void **state)
{
    (void)state;
    char text[256];
    launch made = begin(2, 0.1, "stops");
    int status = end(&made, text, sizeof text);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 128 + SIGINT);
    assert_true(all_have(&made, "ended"));
    assert_string_equal(text, "");
    folder_remove(made.folder);
}

/* An argument longer than the kernel takes. */
static void ranks_that_cannot_be_started(void **state)
{
    (void)state;
    enum { BYTES = 1 << 18 };
    char *huge = must_alloc(BYTES);
    memset(huge, 'a', BYTES - 1);
    char *argv[] = {(char *)"test", huge, NULL};
    sigset_t before, after;
    sigprocmask(SIG_BLOCK, NULL, &before);
    assert_int_equal(ct_launch_children(2, 5, argv), -1);
    assert_true(message_contains("rank 0 cannot be started: Argument list too long"));
    sigprocmask(SIG_BLOCK, NULL, &after);
    assert_int_equal(sigismember(&after, SIGCHLD), sigismember(&before, SIGCHLD));
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* none is left */
    free(huge);
}

static void signals_are_passed_on_once(void **state)
{
    (void)state;
    static const int signals[] = {SIGTERM, SIGINT};
    for (int i = 0; i < 2; i++) {
        char text[256];
        launch made = begin(3, 5, "signals");
        await(&made, "ready");
        assert_int_equal(kill(made.process, signals[i]), 0);
        int status = end(&made, text, sizeof text);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 128 + SIGTERM);
        assert_string_equal(text, "");
        for (int rank = 0; rank < 3; rank++) {
            char file[16];
            snprintf(file, sizeof file, "count.%d", rank);
            char *count = read_text(in_folder(made.folder, file), NULL);
            assert_string_equal(count, "1");
            free(count);
        }
        folder_remove(made.folder);
    }
}

/* A signal that the ranks die of is not reported as a mishap: whoever sent it knows. */
static void a_signal_may_end_the_ranks(void **state)
{
    (void)state;
    char text[256];
    launch made = begin(2, 5, "sleeps");
    await(&made, "ready");
    assert_int_equal(kill(made.process, SIGTERM), 0);
    int status = end(&made, text, sizeof text);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 128 + SIGTERM);
    assert_string_equal(text, "");
    folder_remove(made.folder);
}

static void no_rank_survives_the_launcher(void **state)
{
    (void)state;
    char text[256];
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0); /* orphans become ours */
    launch made = begin(3, 5, "sleeps");
    await(&made, "ready");
    assert_int_equal(kill(made.process, SIGKILL), 0);
    assert_true(WIFSIGNALED(end(&made, text, sizeof text)));
    for (int i = 0; i < 3; i++) {
        int status = 0;
        pid_t orphan = 0;
        for (int wait = 0; wait < 500 && orphan == 0; wait++) {
            orphan = waitpid(-1, &status, WNOHANG);
            usleep(10000);
        }
        assert_true(orphan > 0);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGKILL);
    }
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
    folder_remove(made.folder);
}

/* ---- mpirun ---- */

static bool has_mpirun(void)
{
    return system("command -v mpirun >/dev/null 2>&1") == 0;
}

static void mpirun_starts_ranks(void **state)
{
    (void)state;
    if (!has_mpirun()) skip();
    char *folder = folder_create();
    fflush(NULL);
    pid_t process = fork();
    assert_true(process >= 0);
    if (process == 0) {
        char *argv[] = {(char *)"test", (char *)"rank", (char *)"world",
                        folder,         (char *)"a b",  NULL};
        setenv("WORLD_SIZE", "1", 1); /* this process's own world is not the ranks' */
        setenv("RANK", "0", 1);
        int exit_status = 97;
        _exit(ct_launch_mpi(5, argv, &exit_status) == CT_OK ? exit_status : 98);
    }
    int status;
    assert_int_equal(waitpid(process, &status, 0), process);
    assert_int_equal(status, 0);
    for (int rank = 0; rank < 5; rank++) {
        char file[16], expected[64];
        snprintf(file, sizeof file, "world.%d", rank);
        snprintf(expected, sizeof expected, "%d/5 %d/5 1 a b", rank, rank);
        char *text = read_text(in_folder(folder, file), NULL);
        assert_string_equal(text, expected);
        free(text);
    }
    folder_remove(folder);
}

static void no_mpirun(void **state)
{
    (void)state;
    fflush(NULL);
    pid_t process = fork();
    assert_true(process >= 0);
    if (process == 0) {
        char *argv[] = {(char *)"test", NULL};
        setenv("PATH", "/nonexistent", 1);
        int exit_status;
        exit(ct_launch_mpi(2, argv, &exit_status) == CT_ERR_UNSUPPORTED &&
                     message_contains("mpirun")
                 ? 0
                 : 1);
    }
    int status;
    assert_int_equal(waitpid(process, &status, 0), process);
    assert_int_equal(status, 0);
}

int run_launch_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_are_told_who_they_are),
        cmocka_unit_test(they_meet),
        cmocka_unit_test(a_failure_ends_the_others),
        cmocka_unit_test(a_killed_rank_is_reported_once),
        cmocka_unit_test(a_stop_is_no_failure),
        cmocka_unit_test(ranks_that_cannot_be_started),
        cmocka_unit_test(signals_are_passed_on_once),
        cmocka_unit_test(a_signal_may_end_the_ranks),
        cmocka_unit_test(no_rank_survives_the_launcher),
        cmocka_unit_test(mpirun_starts_ranks),
        cmocka_unit_test(no_mpirun),
    };
    return cmocka_run_group_tests_name("launch", tests, NULL, NULL);
}
