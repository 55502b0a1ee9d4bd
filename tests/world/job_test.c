/* Agreements, broadcasts, and goodbyes. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "support.h"

static int agree_many_times(ranks *job, int rank)
{
    ct_job *met = rank_meet(job, rank);
    if (!met) return 1;
    int size = job->world.size;
    ct_status status = CT_OK;
    for (int step = 0; step < 500 && status == CT_OK; step++) {
        int64_t numbers[8] = {step, -rank, rank == step % size ? INT64_MAX : INT64_MIN, -7};
        for (int i = 4; i < 8; i++) numbers[i] = rank * 100 + i;
        int count = 1 + step % 8;
        status = ct_job_agree(met, numbers, count);
        const int64_t expected[8] = {step,
                                     0,
                                     INT64_MAX,
                                     -7,
                                     (size - 1) * 100 + 4,
                                     (size - 1) * 100 + 5,
                                     (size - 1) * 100 + 6,
                                     (size - 1) * 100 + 7};
        if (memcmp(numbers, expected, (size_t)count * sizeof *numbers) != 0)
            job->outcomes[rank].calls++;
    }
    rank_record(job, rank, met, status);
    ct_job_leave(met);
    return job->outcomes[rank].calls;
}

static void agreements(void **state)
{
    (void)state;
    ranks job;
    ranks_run(&job, 4, 20, agree_many_times);
    assert_exit_statuses(&job, 0);
    for (int rank = 0; rank < 4; rank++) assert_rank_ok(&job, rank);
    ranks_close(&job);
}

static int broadcast(ranks *job, int rank)
{
    unsigned char data[4096], expected[4096];
    ct_job *met = rank_meet(job, rank);
    if (!met) return 1;
    for (int i = 0; i < 4096; i++) expected[i] = (unsigned char)(i * 31);
    ct_status status = CT_OK;
    int wrong = 0;
    static const size_t sizes[] = {4096, 128, 1};
    for (int i = 0; i < 3 && status == CT_OK; i++) {
        memset(data, 0, sizeof data);
        if (rank == 0) memcpy(data, expected, sizes[i]);
        status = ct_job_broadcast(met, data, sizes[i]);
        wrong += memcmp(data, expected, sizes[i]) != 0;
        if (status == CT_OK) status = rank_agree(met);
    }
    wrong += ct_job_broadcast(met, data, 4097) != CT_ERR_INTERNAL;
    wrong += ct_job_agree(met, job->outcomes[rank].numbers, 9) != CT_ERR_INTERNAL;
    rank_record(job, rank, met, status);
    ct_job_leave(met);
    return wrong;
}

static void broadcasts(void **state)
{
    (void)state;
    ranks job;
    ranks_run(&job, 3, 20, broadcast);
    assert_exit_statuses(&job, 0);
    for (int rank = 0; rank < 3; rank++) assert_rank_ok(&job, rank);
    ranks_close(&job);
}

static int count_descriptors(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (folder && readdir(folder)) count++;
    if (folder) closedir(folder);
    return count;
}

/* Each leaves at another time; nobody takes that for a death, and no descriptor is left. */
static int leave_at_any_time(ranks *job, int rank)
{
    int before = count_descriptors();
    ct_job *met = rank_meet(job, rank);
    if (!met) return 1;
    ct_status status = rank_agree(met);
    usleep((useconds_t)(getpid() * 7919 % 20) * 1000);
    rank_record(job, rank, met, status);
    ct_job_leave(met);
    return count_descriptors() == before ? 0 : 2;
}

static void goodbyes(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++) {
        ranks job;
        ranks_run(&job, 4, 20, leave_at_any_time);
        assert_exit_statuses(&job, 0);
        for (int rank = 0; rank < 4; rank++) {
            char *text = printed(&job, rank);
            assert_rank_ok(&job, rank);
            assert_string_equal(text, "");
            free(text);
        }
        ranks_close(&job);
    }
}

/* Rank 0 does not wait longer than the time-out, and its end is no death to the late one. */
static int leave_late(ranks *job, int rank)
{
    ct_job *met = rank_meet(job, rank);
    if (!met) return 1;
    ct_status status = rank_agree(met);
    double before = ct_clock_seconds();
    if (rank == 1) sleep(2);
    if (rank == 1 && status == CT_OK) status = rank_agree(met);
    rank_record(job, rank, met, status);
    ct_job_leave(met);
    job->outcomes[rank].when = ct_clock_seconds() - before;
    return 0;
}

static void the_last_to_leave(void **state)
{
    (void)state;
    ranks job;
    ranks_run(&job, 3, 1, leave_late);
    assert_exit_statuses(&job, 0);
    assert_rank_ok(&job, 0);
    assert_rank_ok(&job, 2);
    assert_rank(&job, 1, CT_ERR_DEVICE, "has left the job");
    assert_true(job.outcomes[0].when >= 0.9 && job.outcomes[0].when < 2.0);
    for (int rank = 0; rank < 3; rank++) {
        char *text = printed(&job, rank);
        assert_string_equal(text, "");
        free(text);
    }
    ranks_close(&job);
}

int run_job_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agreements),
        cmocka_unit_test(broadcasts),
        cmocka_unit_test(goodbyes),
        cmocka_unit_test(the_last_to_leave),
    };
    return cmocka_run_group_tests_name("job", tests, NULL, NULL);
}
