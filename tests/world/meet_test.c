/* Ranks meet, or are told why not. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "support.h"
#include "world/link.h"
#include "world/socket.h"

static int meet_and_leave(ranks *job, int rank)
{
    ct_job *met = rank_meet(job, rank);
    if (!met) return 1;
    rank_record(job, rank, met, rank_agree(met));
    ct_job_leave(met);
    return 0;
}

static void all_sizes(void **state)
{
    (void)state;
    for (int size = 2; size <= RANKS_MAX; size++) {
        ranks job;
        ranks_run(&job, size, 20, meet_and_leave);
        assert_exit_statuses(&job, 0);
        for (int rank = 0; rank < size; rank++) assert_rank_ok(&job, rank);
        ranks_close(&job);
    }
}

static void one_rank_has_no_job(void **state)
{
    (void)state;
    ct_world world = {.size = 1};
    ct_job_options options = {.timeout_seconds = 1};
    ct_job *job = (ct_job *)&world;
    int64_t number = 5;
    assert_ok(ct_job_meet(&world, &options, &job));
    assert_null(job);
    assert_ok(ct_job_agree(NULL, &number, 1));
    assert_ok(ct_job_broadcast(NULL, &number, sizeof number));
    assert_int_equal(number, 5);
    assert_int_equal(ct_job_fail(NULL, CT_ERR_NUMERIC), CT_ERR_NUMERIC);
    assert_false(ct_job_told(NULL));
    ct_job_on_failure(NULL, NULL, NULL);
    ct_job_busy(NULL, true);
    ct_job_leave(NULL);
    world.size = 2;
    assert_fails(ct_job_meet(&world, &options, &job), CT_ERR_CONFIG, "MASTER_ADDR");
}

/* Over names and IPv6, where this machine has it. */
static void other_addresses(void **state)
{
    (void)state;
    static const char *const masters[] = {"localhost", "::1", "0.0.0.0"};
    for (int i = 0; i < 3; i++) {
        ranks job;
        int probe;
        ranks_open(&job, 3, 20);
        snprintf(job.world.master, sizeof job.world.master, "%s", masters[i]);
        if (ct_socket_listen(masters[i], job.world.port, &probe) == CT_OK) {
            close(probe);
            for (int rank = 2; rank >= 0; rank--) ranks_start(&job, rank, meet_and_leave);
            ranks_wait(&job, 60);
            assert_exit_statuses(&job, 0);
        }
        ranks_close(&job);
    }
}

static void a_missing_rank_is_named(void **state)
{
    (void)state;
    ranks job;
    ranks_open(&job, 4, 1);
    double before = ct_clock_seconds();
    ranks_start(&job, 0, meet_and_leave);
    ranks_start(&job, 1, meet_and_leave);
    ranks_wait(&job, 20);
    double passed = ct_clock_seconds() - before;
    assert_true(passed >= 0.9 && passed < 2.0 + 3 /* a slow machine */);
    for (int rank = 0; rank < 2; rank++)
        assert_rank(&job, rank, CT_ERR_IO, "for the others: ranks 2, 3 are missing");
    ranks_close(&job);

    ranks_open(&job, 2, 1);
    ranks_start(&job, 1, meet_and_leave);
    ranks_wait(&job, 20);
    assert_rank(&job, 1, CT_ERR_IO, "within 1 s: Connection refused");
    assert_rank(&job, 1, CT_ERR_IO, "rank 1: rank 0 was not found at 127.0.0.1:");
    ranks_close(&job);
}

static void a_port_in_use_is_said(void **state)
{
    (void)state;
    ranks job;
    int other;
    ranks_open(&job, 2, 1);
    assert_ok(ct_socket_listen("127.0.0.1", job.world.port, &other));
    ranks_start(&job, 0, meet_and_leave);
    ranks_wait(&job, 20);
    assert_rank(&job, 0, CT_ERR_IO, "Address already in use");
    close(other);
    ranks_close(&job);
}

/* ---- refusals ---- */

static int with_other_configuration(ranks *job, int rank)
{
    if (rank == 2) job->options.config_hash++;
    return meet_and_leave(job, rank);
}

static int with_other_version(ranks *job, int rank)
{
    if (rank == 2) job->options.version = "1.1";
    return meet_and_leave(job, rank);
}

static int with_other_size(ranks *job, int rank)
{
    if (rank == 2) job->world.size = 4;
    return meet_and_leave(job, rank);
}

static int with_rank_one_twice(ranks *job, int rank)
{
    ct_job *met = rank_meet(job, rank == 2 ? 1 : rank);
    if (rank == 2) job->outcomes[2] = job->outcomes[1];
    ct_job_leave(met);
    return met ? 0 : 1;
}

/* All ranks fail with the same words, long before the time is over. */
static void assert_refused(scenario what, const char *text, bool all)
{
    ranks job;
    double before = ct_clock_seconds();
    ranks_run(&job, 3, 30, what);
    assert_true(ct_clock_seconds() - before < 20);
    assert_exit_statuses(&job, 1);
    for (int rank = 0; rank < (all ? 3 : 1); rank++)
        if (rank != 1) assert_rank(&job, rank, CT_ERR_CONFIG, text);
    ranks_close(&job);
}

static void different_ranks_are_refused(void **state)
{
    (void)state;
    char host[CT_HOST_BYTES] = "", text[1024];
    gethostname(host, sizeof host - 1);
    snprintf(text, sizeof text, "rank 2 on %s has another configuration than rank 0 on %s", host,
             host);
    assert_refused(with_other_configuration, text, true);
    assert_refused(with_other_version, "runs version 1.1, rank 0", true);
    assert_refused(with_other_size, "is one of 4 ranks, rank 0", true);
    assert_refused(with_rank_one_twice, "rank 1 came twice: from", false);
}

static int with_other_token(ranks *job, int rank)
{
    snprintf(job->world.token, sizeof job->world.token, "other");
    return meet_and_leave(job, rank);
}

/* A rank of another job does not end ours. */
static void another_job_is_refused(void **state)
{
    (void)state;
    ranks job;
    ranks_open(&job, 2, 20);
    ranks_start(&job, 0, meet_and_leave);
    ranks_start(&job, 1, with_other_token);
    int process = job.processes[0];
    job.processes[0] = 0;
    ranks_wait(&job, 15);
    assert_rank(&job, 1, CT_ERR_ARGUMENT, "belongs to another job");
    job.processes[0] = process;
    ranks_start(&job, 1, meet_and_leave);
    ranks_wait(&job, 15);
    assert_exit_statuses(&job, 0);
    ranks_close(&job);

    ranks_open(&job, 2, 1);
    ranks_start(&job, 0, meet_and_leave);
    ranks_start(&job, 1, with_other_token);
    ranks_wait(&job, 15);
    assert_rank(&job, 0, CT_ERR_IO, "rank 1 is missing; rank 1 of another job came from ");
    ranks_close(&job);
}

/* ---- who is not a rank ---- */

/* A connection with whoever listens at the job's port, once somebody does. */
static int knock(const ranks *job)
{
    int connection = -1;
    char reason[128];
    double deadline = ct_clock_seconds() + 10;
    while (connection < 0 && ct_clock_seconds() < deadline) {
        ct_socket_connect(job->world.master, job->world.port, deadline, &connection, reason);
        usleep(1000);
    }
    assert_true(connection >= 0);
    return connection;
}

static void strangers_do_not_disturb(void **state)
{
    (void)state;
    static const char *const texts[] = {"GET / HTTP/1.1\r\n\r\n", "ct", "ctj1\0\0\0\0", "\x16\x03",
                                        "ctj1\1\0\377\377aaaaaaaaaaaaaaaaaaaaaaa"};
    static const size_t sizes[] = {18, 2, 8, 2, 31};
    ranks job;
    int connections[5 + 100];
    ranks_open(&job, 3, 20);
    ranks_start(&job, 0, meet_and_leave);
    for (int i = 0; i < 105; i++) { /* the last hundred say nothing at all */
        connections[i] = knock(&job);
        if (i < 5)
            assert_int_equal(send(connections[i], texts[i], sizes[i], MSG_NOSIGNAL), sizes[i]);
    }
    for (int rank = 1; rank < 3; rank++) ranks_start(&job, rank, meet_and_leave);
    ranks_wait(&job, 15);
    assert_exit_statuses(&job, 0);
    for (int i = 0; i < 105; i++) close(connections[i]);
    ranks_close(&job);
}

/* Its process would keep the test's socket listening. */
static int close_and_meet(ranks *job, int rank)
{
    close((int)job->outcomes[rank].numbers[0]);
    return meet_and_leave(job, rank);
}

/* What listens at the port first is something else; rank 0 comes later. */
static void a_stranger_at_the_port(void **state)
{
    (void)state;
    ranks job;
    int listener, connection;
    ranks_open(&job, 2, 20);
    assert_ok(ct_socket_listen("127.0.0.1", job.world.port, &listener));
    job.outcomes[1].numbers[0] = listener;
    ranks_start(&job, 1, close_and_meet);
    for (int i = 0; i < 3; i++) {
        while ((connection = ct_socket_accept(listener)) < 0) usleep(1000);
        if (i) assert_int_equal(send(connection, "220 mail\r\n", 10, MSG_NOSIGNAL), 10);
        close(connection);
    }
    close(listener);
    ranks_start(&job, 0, meet_and_leave);
    ranks_wait(&job, 15);
    assert_exit_statuses(&job, 0);
    ranks_close(&job);
}

static int end_before_all_have_met(ranks *job, int rank)
{
    if (rank == 0) return meet_and_leave(job, rank);
    ct_hello hello = {1, 3, job->options.config_hash, "there", "1.0", "token"};
    uint8_t bytes[CT_MESSAGE_BYTES];
    char answer;
    int connection = knock(job);
    size_t size = ct_hello_write(&hello, bytes);
    if (send(connection, bytes, size, MSG_NOSIGNAL) != (ssize_t)size) return 2;
    while (recv(connection, &answer, 1, 0) != 1) usleep(1000);
    return 0;
}

static void a_rank_that_ends_meanwhile_is_named(void **state)
{
    (void)state;
    ranks job;
    ranks_open(&job, 3, 30);
    ranks_start(&job, 0, end_before_all_have_met);
    ranks_start(&job, 1, end_before_all_have_met);
    ranks_wait(&job, 15);
    assert_rank(&job, 0, CT_ERR_IO, "rank 1 on there ended before all had met: rank 2 is missing");
    ranks_close(&job);
}

int run_meet_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_rank_has_no_job),
        cmocka_unit_test(all_sizes),
        cmocka_unit_test(other_addresses),
        cmocka_unit_test(a_missing_rank_is_named),
        cmocka_unit_test(a_port_in_use_is_said),
        cmocka_unit_test(different_ranks_are_refused),
        cmocka_unit_test(another_job_is_refused),
        cmocka_unit_test(strangers_do_not_disturb),
        cmocka_unit_test(a_stranger_at_the_port),
        cmocka_unit_test(a_rank_that_ends_meanwhile_is_named),
    };
    return cmocka_run_group_tests_name("meet", tests, NULL, NULL);
}
