/* Every rank learns of a failure, one prints it, and nobody stays. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "support.h"
#include "world/link.h"
#include "world/socket.h"

static void count_call(void *context)
{
    ((outcome *)context)->calls++;
}

/* As a program ends: the failure to standard error, unless it is another's to print. */
static int finish(ranks *job, int rank, ct_job *met, ct_status status)
{
    outcome *out = &job->outcomes[rank];
    out->when = ct_clock_seconds();
    rank_record(job, rank, met, status);
    if (status != CT_OK && !out->told) ct_log(CT_LOG_ERROR, "%s", out->message);
    for (int i = 0; i < 200 && status != CT_OK && !out->calls; i++) usleep(10000);
    ct_job_leave(met);
    return status == CT_OK ? 0 : 1;
}

static ct_job *meet_and_agree(ranks *job, int rank)
{
    ct_job *met = rank_meet(job, rank);
    if (!met) exit(3);
    ct_job_on_failure(met, count_call, &job->outcomes[rank]);
    if (rank_agree(met) != CT_OK) exit(4);
    return met;
}

/* All ranks but `except` failed as they should, their callbacks called once. */
static void assert_all_failed(const ranks *job, int except, const char *text)
{
    for (int rank = 0; rank < job->world.size; rank++) {
        if (rank == except) continue;
        assert_rank(job, rank, CT_ERR_DEVICE, text);
        assert_int_equal(job->outcomes[rank].calls, 1);
        assert_exited(job, rank, 1);
    }
}

/* The latest of the ranks' times, from `since` on. */
static double longest(const ranks *job, int except, double since)
{
    double most = 0;
    for (int rank = 0; rank < job->world.size; rank++)
        if (rank != except && job->outcomes[rank].when - since > most)
            most = job->outcomes[rank].when - since;
    return most;
}

/* ---- a rank's own word ---- */

static int who_fails(const ranks *job)
{
    return (int)job->outcomes[0].numbers[7];
}

static int one_fails(ranks *job, int rank)
{
    ct_job *met = meet_and_agree(job, rank);
    ct_status status;
    if (rank == who_fails(job)) status = ct_job_fail(met, ct_fail(CT_ERR_DEVICE, "disk %d", 5));
    else status = rank_agree(met);
    return finish(job, rank, met, status);
}

static void a_failure_is_told_to_all(void **state)
{
    (void)state;
    for (int who = 0; who < 3; who++) {
        ranks job;
        char text[512], host[CT_HOST_BYTES] = "";
        gethostname(host, sizeof host - 1);
        snprintf(text, sizeof text, "rank %d on %s: disk 5", who, host);
        ranks_open(&job, 3, 20);
        job.outcomes[0].numbers[7] = who;
        for (int rank = 0; rank < 3; rank++) ranks_start(&job, rank, one_fails);
        ranks_wait(&job, 15);
        assert_all_failed(&job, -1, text);
        for (int rank = 0; rank < 3; rank++) assert_int_equal(job.outcomes[rank].told, rank != who);
        assert_printed_once(&job, text, who);
        ranks_close(&job);
    }
}

static int all_fail(ranks *job, int rank)
{
    ct_job *met = meet_and_agree(job, rank);
    ct_status status = ct_job_fail(met, ct_fail(CT_ERR_DEVICE, "not finite"));
    status = ct_job_fail(met, status); /* again: nothing changes */
    return finish(job, rank, met, status);
}

static void of_many_failures_one_is_printed(void **state)
{
    (void)state;
    ranks job;
    ranks_run(&job, 4, 20, all_fail);
    assert_all_failed(&job, -1, ": not finite");
    int by = -1, speakers = 0;
    for (int rank = 0; rank < 4; rank++) {
        assert_string_equal(job.outcomes[rank].message, job.outcomes[0].message);
        speakers += !job.outcomes[rank].told;
        if (!job.outcomes[rank].told) by = rank;
    }
    assert_int_equal(speakers, 1);
    assert_printed_once(&job, job.outcomes[0].message, by);
    ranks_close(&job);
}

/* ---- deaths ---- */

static int one_is_killed(ranks *job, int rank)
{
    ct_job *met = meet_and_agree(job, rank);
    if (rank == who_fails(job)) {
        job->outcomes[rank].when = ct_clock_seconds();
        raise(SIGKILL);
    }
    return finish(job, rank, met, rank_agree(met));
}

static void kill_one(ranks *job, int who, bool launched)
{
    ranks_open(job, 4, 20);
    job->world.launched = launched;
    job->outcomes[0].numbers[7] = who;
    for (int rank = 0; rank < 4; rank++) ranks_start(job, rank, one_is_killed);
    ranks_wait(job, 15);
    char text[64];
    snprintf(text, sizeof text, "rank %d on ", who);
    assert_all_failed(job, who, text);
    assert_all_failed(job, who, ": ended without a word");
    assert_true(longest(job, who, job->outcomes[who].when) < 2);
    for (int rank = 0; rank < 4; rank++)
        if (rank != who) assert_true(job->outcomes[rank].told);
}

static void a_death_is_seen_by_all(void **state)
{
    (void)state;
    ranks job;
    kill_one(&job, 2, false);
    assert_printed_once(&job, "rank 2 on ", 0);
    ranks_close(&job);
    kill_one(&job, 0, false);
    assert_printed_once(&job, "rank 0 on ", 1);
    ranks_close(&job);
    kill_one(&job, 3, true); /* the launcher prints */
    assert_printed_once(&job, "", -1);
    ranks_close(&job);
}

/* ---- silence ---- */

static int one_stops(ranks *job, int rank)
{
    ct_job *met = meet_and_agree(job, rank);
    if (rank == who_fails(job)) raise(SIGSTOP);
    ct_status status = rank_agree(met); /* the others had come to this one */
    if (status == CT_OK) status = rank_agree(met);
    return finish(job, rank, met, status);
}

static void stop_one(int who, int by)
{
    ranks job;
    ranks_open(&job, 3, 1);
    job.outcomes[0].numbers[7] = who;
    for (int rank = 0; rank < 3; rank++) ranks_start(&job, rank, one_stops);
    int status;
    pid_t stopped = job.processes[who];
    assert_int_equal(waitpid(stopped, &status, WUNTRACED), stopped);
    assert_true(WIFSTOPPED(status));
    double since = ct_clock_seconds();
    job.processes[who] = 0;
    ranks_wait(&job, 10);
    char text[64];
    snprintf(text, sizeof text, "rank %d on ", who);
    assert_all_failed(&job, who, text);
    assert_printed_once(&job, text, by);
    double passed = longest(&job, who, since);
    assert_true(passed > 0.5 && passed < 3);
    kill(stopped, SIGCONT); /* it learns that it was given up */
    job.processes[who] = stopped;
    ranks_wait(&job, 10);
    assert_all_failed(&job, -1, who ? text : "rank ");
    ranks_close(&job);
}

static void a_stopped_rank_is_named(void **state)
{
    (void)state;
    stop_one(2, 0);
    stop_one(0, 1);
}

/* The process lives, but its main thread does not come. */
static int one_is_late(ranks *job, int rank)
{
    ct_job *met = meet_and_agree(job, rank);
    for (int i = 0; rank == who_fails(job) && i < 1000 && !ct_job_told(met); i++) usleep(10000);
    return finish(job, rank, met, rank_agree(met));
}

static void a_late_rank_is_named(void **state)
{
    (void)state;
    for (int who = 0; who < 2; who++) {
        ranks job;
        char text[512], host[CT_HOST_BYTES] = "";
        gethostname(host, sizeof host - 1);
        snprintf(text, sizeof text, "rank %d on %s: did not come to step agreement 2 within 1 s",
                 who, host);
        ranks_open(&job, 3, 1);
        job.outcomes[0].numbers[7] = who;
        for (int rank = 0; rank < 3; rank++) ranks_start(&job, rank, one_is_late);
        ranks_wait(&job, 10);
        assert_all_failed(&job, -1, text);
        assert_printed_once(&job, text, 0);
        ranks_close(&job);
    }
}

static int one_is_busy(ranks *job, int rank)
{
    ct_job *met = meet_and_agree(job, rank);
    ct_status status = CT_OK;
    for (int who = 0; who < 2 && status == CT_OK; who++) {
        if (rank == who) {
            ct_job_busy(met, true);
            usleep(1500000);
            ct_job_busy(met, false);
        }
        status = rank_agree(met);
    }
    return finish(job, rank, met, status);
}

static void a_busy_rank_may_be_late(void **state)
{
    (void)state;
    ranks job;
    ranks_run(&job, 3, 0.8, one_is_busy);
    assert_exit_statuses(&job, 0);
    ranks_close(&job);
}

/* ---- ranks that do not do the same ---- */

static int one_leaves_early(ranks *job, int rank)
{
    ct_job *met = meet_and_agree(job, rank);
    if (rank == who_fails(job)) {
        ct_job_leave(met);
        return 1;
    }
    return finish(job, rank, met, rank_agree(met));
}

static int one_agrees_otherwise(ranks *job, int rank)
{
    ct_job *met = meet_and_agree(job, rank);
    int64_t numbers[2] = {0};
    return finish(job, rank, met, ct_job_agree(met, numbers, rank == who_fails(job) ? 2 : 1));
}

static int one_broadcasts(ranks *job, int rank)
{
    ct_job *met = meet_and_agree(job, rank);
    char byte = 0;
    return finish(job, rank, met,
                  rank == who_fails(job) ? ct_job_broadcast(met, &byte, 1) : rank_agree(met));
}

static void ranks_that_differ_do_not_hang(void **state)
{
    (void)state;
    static const scenario scenarios[] = {one_leaves_early, one_agrees_otherwise, one_broadcasts};
    static const char *const texts[] = {"left the job, but others wait", "is out of step",
                                        "is out of step"};
    for (int i = 0; i < 3; i++)
        for (int who = 0; who < 3; who += 2) {
            ranks job;
            ranks_open(&job, 3, 20);
            job.outcomes[0].numbers[7] = who;
            for (int rank = 0; rank < 3; rank++) ranks_start(&job, rank, scenarios[i]);
            ranks_wait(&job, 10);
            assert_all_failed(&job, i == 0 ? who : -1, texts[i]);
            assert_printed_once(&job, texts[i], 0);
            ranks_close(&job);
        }
}

/* A rank of the job that turns to sending garbage. */
static int one_babbles(ranks *job, int rank)
{
    if (rank != 2) {
        ct_job *met = rank_meet(job, rank);
        if (!met) return 3;
        ct_job_on_failure(met, count_call, &job->outcomes[rank]);
        return finish(job, rank, met, rank_agree(met));
    }
    ct_hello hello = {2, 3, job->options.config_hash, "there", "1.0", "token"};
    uint8_t bytes[CT_MESSAGE_BYTES];
    char reason[128];
    int connection = -1;
    while (connection < 0) {
        ct_socket_connect("127.0.0.1", job->world.port, ct_clock_seconds() + 5, &connection,
                          reason);
        usleep(1000);
    }
    size_t size = ct_hello_write(&hello, bytes);
    if (send(connection, bytes, size, MSG_NOSIGNAL) != (ssize_t)size) return 2;
    static ct_link link;
    ct_message message;
    ct_link_open(&link, connection);
    for (bool welcome = false; !welcome; usleep(1000)) {
        if (!ct_link_read(&link)) return 2;
        while (ct_link_next(&link, &message)) welcome |= message.kind == CT_MESSAGE_WELCOME;
    }
    memset(bytes, 'x', sizeof bytes);
    ct_link_put_bytes(&link, bytes, sizeof bytes);
    while (recv(connection, bytes, sizeof bytes, 0) != 0) usleep(1000); /* until rank 0 closes */
    return 1;
}

static void garbage_is_a_failure(void **state)
{
    (void)state;
    ranks job;
    ranks_run(&job, 3, 20, one_babbles);
    assert_all_failed(&job, 2, "rank 2 on there: sent what is no message of this job");
    assert_printed_once(&job, "rank 2 on there", 0);
    ranks_close(&job);
}

/* ---- the end ---- */

/* Neither the main thread nor on_failure come to an end. */
static void hang(void *context)
{
    (void)context;
    for (;;) pause();
}

static int main_threads_hang(ranks *job, int rank)
{
    job->options.grace_seconds = 0.5;
    ct_job *met = rank_meet(job, rank);
    if (!met) return 3;
    ct_job_on_failure(met, rank == 2 ? hang : count_call, &job->outcomes[rank]);
    if (rank == 1 && ct_job_fail(met, ct_fail(CT_ERR_NUMERIC, "no way on")) == CT_OK) return 4;
    if (rank == 2) { /* leaving waits for on_failure, and the grace goes on */
        while (!ct_job_told(met)) usleep(1000);
        usleep(100000);
        ct_job_leave(met);
    }
    hang(NULL);
    return 5;
}

static void who_does_not_end_is_ended(void **state)
{
    (void)state;
    ranks job;
    double before = ct_clock_seconds();
    ranks_run(&job, 3, 20, main_threads_hang);
    assert_true(ct_clock_seconds() - before < 10);
    assert_exit_statuses(&job, 1);
    assert_printed_once(&job, ": no way on", 1);
    ranks_close(&job);
}

static int callback_comes_late(ranks *job, int rank)
{
    ct_job *met = rank_meet(job, rank);
    if (!met) return 3;
    if (rank == 1 && ct_job_fail(met, ct_fail(CT_ERR_IO, "early")) != CT_ERR_IO) return 4;
    if (rank != 1 && rank_agree(met) == CT_OK) return 5;
    ct_job_on_failure(met, count_call, &job->outcomes[rank]);
    if (job->outcomes[rank].calls != 1) return 6; /* at once */
    ct_job_on_failure(met, count_call, &job->outcomes[rank]);
    ct_job_on_failure(met, NULL, NULL);
    ct_job_leave(met);
    return job->outcomes[rank].calls == 1 ? 0 : 7;
}

static void on_failure_may_come_late(void **state)
{
    (void)state;
    ranks job;
    ranks_run(&job, 3, 20, callback_comes_late);
    assert_exit_statuses(&job, 0);
    ranks_close(&job);
}

int run_failure_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failure_is_told_to_all),
        cmocka_unit_test(of_many_failures_one_is_printed),
        cmocka_unit_test(a_death_is_seen_by_all),
        cmocka_unit_test(a_stopped_rank_is_named),
        cmocka_unit_test(a_late_rank_is_named),
        cmocka_unit_test(a_busy_rank_may_be_late),
        cmocka_unit_test(ranks_that_differ_do_not_hang),
        cmocka_unit_test(garbage_is_a_failure),
        cmocka_unit_test(who_does_not_end_is_ended),
        cmocka_unit_test(on_failure_may_come_late),
    };
    return cmocka_run_group_tests_name("failure", tests, NULL, NULL);
}
