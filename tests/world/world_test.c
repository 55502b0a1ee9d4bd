/* Who a process is, from every launcher's environment. */
#include "world/world.h"

#include <stdlib.h>
#include <string.h>

#include "support.h"

static const char *const all_names[] = {"RANK",
                                        "WORLD_SIZE",
                                        "LOCAL_RANK",
                                        "LOCAL_WORLD_SIZE",
                                        "MASTER_ADDR",
                                        "MASTER_PORT",
                                        "CT_LAUNCHED",
                                        "CT_JOB_TOKEN",
                                        "TORCHELASTIC_RUN_ID",
                                        "TORCHELASTIC_USE_AGENT_STORE",
                                        "OMPI_COMM_WORLD_RANK",
                                        "OMPI_COMM_WORLD_SIZE",
                                        "OMPI_COMM_WORLD_LOCAL_RANK",
                                        "OMPI_COMM_WORLD_LOCAL_SIZE",
                                        "PMI_RANK",
                                        "PMI_SIZE",
                                        "MPI_LOCALRANKID",
                                        "MPI_LOCALNRANKS",
                                        "SLURM_PROCID",
                                        "SLURM_NTASKS",
                                        "SLURM_LOCALID",
                                        "SLURM_STEP_ID",
                                        "SLURM_STEP_NUM_TASKS",
                                        "SLURM_STEP_NODELIST",
                                        "SLURM_LAUNCH_NODE_IPADDR",
                                        "SLURM_JOB_ID"};

static int forget_all(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof all_names / sizeof *all_names; i++) unsetenv(all_names[i]);
    return 0;
}

/* "NAME=value NAME=value": the whole environment as far as it is read. */
static void set(const char *assignments)
{
    char text[1024];
    forget_all(NULL);
    snprintf(text, sizeof text, "%s", assignments);
    for (char *word = strtok(text, " "); word; word = strtok(NULL, " ")) {
        char *value = strchr(word, '=');
        assert_non_null(value);
        *value = '\0';
        assert_int_equal(setenv(word, value + 1, 1), 0);
    }
}

static ct_world find(const char *assignments)
{
    ct_world world;
    set(assignments);
    assert_ok(ct_world_find(&world));
    return world;
}

static void assert_world(const ct_world *world, int rank, int size, int local_rank, int local_size)
{
    assert_int_equal(world->rank, rank);
    assert_int_equal(world->size, size);
    assert_int_equal(world->local_rank, local_rank);
    assert_int_equal(world->local_size, local_size);
}

static void assert_master(const ct_world *world, const char *master, int port, const char *token)
{
    assert_string_equal(world->master, master);
    assert_int_equal(world->port, port);
    assert_string_equal(world->token, token);
}

static void alone(void **state)
{
    (void)state;
    static const char *const environments[] = {
        "", "WORLD_SIZE=1", "MASTER_ADDR=a MASTER_PORT=1", "RANK=0 WORLD_SIZE=1",
        /* A shell of salloc, a batch script, an interactive step. */
        "SLURM_JOB_ID=5 SLURM_NTASKS=4",
        "SLURM_JOB_ID=5 SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_LOCALID=0",
        "SLURM_JOB_ID=5 SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_STEP_ID=4294967290",
        "SLURM_JOB_ID=5 SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_STEP_ID=",
        /* A step of one task in an allocation of four. */
        "SLURM_JOB_ID=5 SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=1"};
    for (size_t i = 0; i < sizeof environments / sizeof *environments; i++) {
        ct_world world = find(environments[i]);
        assert_world(&world, 0, 1, 0, 0);
        assert_false(world.mpi);
        assert_false(world.launched);
        assert_string_equal(world.master, "");
    }
}

static void by_hand_and_by_the_own_launcher(void **state)
{
    (void)state;
    ct_world world = find("RANK=3 WORLD_SIZE=4 LOCAL_RANK=1 MASTER_ADDR=host MASTER_PORT=29500");
    assert_world(&world, 3, 4, 1, 0);
    assert_master(&world, "host", 29500, "");
    assert_false(world.launched || world.mpi);
    world = find("RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 "
                 "MASTER_PORT=65535 CT_LAUNCHED=1 CT_JOB_TOKEN=abc SLURM_JOB_ID=7 "
                 "TORCHELASTIC_USE_AGENT_STORE=True TORCHELASTIC_RUN_ID=x OMPI_COMM_WORLD_RANK=0");
    assert_world(&world, 1, 2, 1, 2);
    assert_master(&world, "127.0.0.1", 65535, "abc");
    assert_true(world.launched && !world.mpi);
}

static void torchrun(void **state)
{
    (void)state;
    ct_world world =
        find("RANK=5 WORLD_SIZE=8 LOCAL_RANK=1 LOCAL_WORLD_SIZE=4 MASTER_ADDR=node1 "
             "MASTER_PORT=29400 TORCHELASTIC_USE_AGENT_STORE=True TORCHELASTIC_RUN_ID=run");
    assert_world(&world, 5, 8, 1, 4);
    assert_master(&world, "node1", 29401, "run");
    world = find("RANK=5 WORLD_SIZE=8 LOCAL_RANK=1 MASTER_ADDR=node1 MASTER_PORT=29400 "
                 "TORCHELASTIC_USE_AGENT_STORE=False");
    assert_int_equal(world.port, 29400);
}

static void mpi(void **state)
{
    (void)state;
    ct_world world = find("OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=4 "
                          "OMPI_COMM_WORLD_LOCAL_RANK=0 OMPI_COMM_WORLD_LOCAL_SIZE=2 "
                          "SLURM_JOB_ID=12 SLURM_STEP_ID=0 SLURM_PROCID=0 SLURM_NTASKS=2");
    assert_world(&world, 2, 4, 0, 2);
    assert_master(&world, "", 0, "12");
    assert_true(world.mpi);
    world = find("PMI_RANK=1 PMI_SIZE=2 MPI_LOCALRANKID=1 MPI_LOCALNRANKS=2 WORLD_SIZE=2 "
                 "MASTER_ADDR=::1 MASTER_PORT=4000");
    assert_world(&world, 1, 2, 1, 2);
    assert_master(&world, "::1", 4000, "");
    assert_true(world.mpi);
    world = find("PMI_RANK=3 PMI_SIZE=4 SLURM_LOCALID=1 SLURM_JOB_ID=3");
    assert_world(&world, 3, 4, 1, 0);
}

static void slurm(void **state)
{
    (void)state;
    const char *const task = "SLURM_PROCID=3 SLURM_NTASKS=4 SLURM_LOCALID=1 SLURM_STEP_ID=2 "
                             "SLURM_JOB_ID=123456 ";
    static const char *const hosts[][2] = {
        {"SLURM_STEP_NODELIST=n[007-010,12],other", "n007"},
        {"SLURM_STEP_NODELIST=n[3,5]-ib,other", "n3-ib"},
        {"SLURM_STEP_NODELIST=gpu1,gpu2", "gpu1"},
        {"SLURM_STEP_NODELIST=only SLURM_LAUNCH_NODE_IPADDR=10.0.0.1", "only"},
        {"SLURM_STEP_NODELIST=n[x SLURM_LAUNCH_NODE_IPADDR=10.0.0.1", "10.0.0.1"},
        {"SLURM_LAUNCH_NODE_IPADDR=10.0.0.1", "10.0.0.1"}};
    char text[512];
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        snprintf(text, sizeof text, "%s%s", task, hosts[i][0]);
        ct_world world = find(text);
        assert_world(&world, 3, 4, 1, 0);
        assert_master(&world, hosts[i][1], 20000 + (123456 + 2 * 97) % 10000, "123456");
        assert_false(world.mpi);
    }
    snprintf(text, sizeof text, "%s%s", task, "MASTER_ADDR=m MASTER_PORT=1234");
    ct_world world = find(text);
    assert_master(&world, "m", 1234, "123456");
}

static void wrong_values(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"RANK=0", "WORLD_SIZE is not set"},
        {"WORLD_SIZE=2", "WORLD_SIZE is 2, but RANK is not set"},
        {"WORLD_SIZE=two", "WORLD_SIZE: expected a whole number from 1 to 4096, found \"two\""},
        {"RANK=2 WORLD_SIZE=2 LOCAL_RANK=0", "RANK: expected a whole number from 0 to 1, found"},
        {"RANK=-1 WORLD_SIZE=2", "RANK: expected a whole number"},
        {"RANK=1x WORLD_SIZE=2", "found \"1x\""},
        {"RANK=0 WORLD_SIZE=0", "WORLD_SIZE: expected"},
        {"RANK=0 WORLD_SIZE=99999999999999999999", "WORLD_SIZE: expected"},
        {"RANK=0 WORLD_SIZE=2", "LOCAL_RANK is not set"},
        {"RANK=0 WORLD_SIZE=4 LOCAL_RANK=2 LOCAL_WORLD_SIZE=2", "LOCAL_RANK: expected"},
        {"RANK=0 WORLD_SIZE=2 LOCAL_RANK=0", "MASTER_ADDR is not set (WORLD_SIZE is 2)"},
        {"RANK=0 WORLD_SIZE=2 LOCAL_RANK=0 MASTER_ADDR=a", "MASTER_PORT is not set"},
        {"RANK=0 WORLD_SIZE=2 LOCAL_RANK=0 MASTER_ADDR=a MASTER_PORT=65536", "MASTER_PORT: exp"},
        {"RANK=0 WORLD_SIZE=2 LOCAL_RANK=0 MASTER_ADDR=a MASTER_PORT=65535 "
         "TORCHELASTIC_USE_AGENT_STORE=True",
         "MASTER_PORT: expected a whole number from 1 to 65534"},
        {"OMPI_COMM_WORLD_RANK=0", "OMPI_COMM_WORLD_SIZE is not set"},
        {"OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=0 "
         "MASTER_ADDR=a",
         "MASTER_PORT is not set"},
        {"PMI_RANK=0 PMI_SIZE=2", "SLURM_LOCALID is not set"},
        {"SLURM_PROCID=0 SLURM_STEP_ID=0", "SLURM_NTASKS is not set"},
        {"SLURM_PROCID=0 SLURM_STEP_ID=0 SLURM_NTASKS=2 SLURM_LOCALID=0", "neither MASTER_ADDR"},
        {"SLURM_PROCID=0 SLURM_STEP_ID=0 SLURM_NTASKS=2 SLURM_LOCALID=0 SLURM_STEP_NODELIST=a",
         "SLURM_JOB_ID is not set"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ct_world world;
        set(cases[i][0]);
        assert_fails(ct_world_find(&world), CT_ERR_CONFIG, cases[i][1]);
    }
    char address[CT_HOST_BYTES + 1];
    memset(address, 'a', CT_HOST_BYTES);
    address[CT_HOST_BYTES] = '\0';
    ct_world world;
    set("RANK=0 WORLD_SIZE=2 LOCAL_RANK=0 MASTER_PORT=1");
    setenv("MASTER_ADDR", address, 1);
    assert_fails(ct_world_find(&world), CT_ERR_CONFIG, "MASTER_ADDR: expected at most 255 bytes");
}

int run_world_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alone),    cmocka_unit_test(by_hand_and_by_the_own_launcher),
        cmocka_unit_test(torchrun), cmocka_unit_test(mpi),
        cmocka_unit_test(slurm),    cmocka_unit_test(wrong_values),
    };
    return cmocka_run_group_tests_name("world", tests, forget_all, forget_all);
}
