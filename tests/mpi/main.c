/* MPI's communicator, run by mpirun: the checks of all communicators and what only it promises, or
 * with an argument its own ending ("abort-sum", "abort-started", "abort-gather"). */
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/half.h"
#include "comm/checks.h"
#include "cpu/cpu.h"
#include "mpi/mpi_comm.h"

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, ct_error_message());
    exit(1);
}

/* ---- sums ----------------------------------------------------------------------------------- */

/* MPI chooses its algorithm by size: short, odd, and long sums. */
static void check_sizes(ct_device *device)
{
    static const int64_t counts[] = {1, 2, 3, 4, 5, 7, 63, 1023, 16384, 65537, 1000003};
    static const ct_dtype dtypes[] = {CT_F32, CT_BF16, CT_I32};
    for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++) {
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
            check_comm_sum(device, dtypes[d], counts[c]);
    }
    check_comm_sum(device, CT_F32, 10000000);
    check_comm_sum(device, CT_BF16, 10000000);
}

/* Two ranks' numbers, the others' are 0: the order of additions does not matter, and the sum is
 * that of f32, rounded once to the nearest, ties to even. */
static void check_rounding(ct_comm *comm)
{
    static const float pairs[][2] = {{1.0F, 0x1p-8F},
                                     {1.0078125F, 0x1p-8F},
                                     {1.0F, 0x1.8p-8F},
                                     {-1.0F, -0x1.08p-8F},
                                     {0x1.FEp127F, 0x1p119F},
                                     {256, 255},
                                     {1e30F, -1e30F},
                                     {3.0F, 0x1p-20F},
                                     {INFINITY, 1.0F},
                                     {INFINITY, -INFINITY},
                                     {NAN, 1.0F},
                                     {-0x1p-133F, 0x1p-132F}};
    enum { COUNT = sizeof pairs / sizeof *pairs };
    uint16_t x[COUNT];
    const ct_tensor tensor = ct_tensor1(x, CT_BF16, COUNT);
    for (int i = 0; i < COUNT; i++)
        x[i] = comm->rank < 2 ? ct_bf16_from_f32(pairs[i][comm->rank]) : 0;
    if (ct_comm_all_reduce(comm, &tensor) != CT_OK) fail("all_reduce");
    for (int i = 0; i < COUNT; i++) {
        const float a = ct_bf16_to_f32(ct_bf16_from_f32(pairs[i][0])),
                    b = ct_bf16_to_f32(ct_bf16_from_f32(pairs[i][1])), sum = ct_bf16_to_f32(x[i]);
        const float expected = ct_bf16_to_f32(ct_bf16_from_f32(a + b));
        if (sum == expected || (isnan(sum) && isnan(expected))) continue;
        fprintf(stderr, "%a + %a in bf16: %a instead of %a\n", a, b, sum, expected);
        exit(1);
    }
}

/* As many sums at once as the header promises, and not one more. */
static void check_bound(ct_comm *comm)
{
    static float x[CT_MPI_MAX_STARTED + 1];
    for (int i = 0; i <= CT_MPI_MAX_STARTED; i++) {
        const ct_tensor tensor = ct_tensor1(&x[i], CT_F32, 1);
        const bool fits = i < CT_MPI_MAX_STARTED;
        x[i] = (float)(i + comm->rank);
        if (ct_comm_all_reduce_start(comm, &tensor) != (fits ? CT_OK : CT_ERR_UNSUPPORTED))
            fail("the bound of started sums");
    }
    if (ct_comm_finish(comm) != CT_OK) fail("finish");
    for (int i = 0; i < CT_MPI_MAX_STARTED; i++)
        if (x[i] != (float)(comm->size * i + comm->size * (comm->size - 1) / 2))
            fail("one of many started sums");
}

static void check_stats(const ct_comm *comm)
{
    if (!(comm->stats.exposed_seconds > 0 && comm->stats.exposed_seconds < 3600))
        fail("the time that computing waited");
}

/* What this communicator cannot sum it refuses, without a word to the other ranks. */
static void check_refusals(ct_comm *comm)
{
    uint16_t x = 0;
    const ct_tensor f16 = ct_tensor1(&x, CT_F16, 1), bf16 = ct_tensor1(&x, CT_BF16, 1);
    if (ct_comm_all_reduce(comm, &f16) != CT_ERR_UNSUPPORTED ||
        ct_comm_all_reduce_start(comm, &f16) != CT_ERR_UNSUPPORTED ||
        ct_comm_all_reduce_mean(comm, &bf16) != CT_ERR_UNSUPPORTED)
        fail("a sum of a type that has none");
}

/* ---- abort ---------------------------------------------------------------------------------- */

static void *abort_soon(void *comm)
{
    usleep(200000);
    ct_comm_abort(comm);
    return NULL;
}

static ct_status wait_in(ct_comm *comm, const char *what)
{
    float x = 1, all[64];
    const ct_tensor tensor = ct_tensor1(&x, CT_F32, 1),
                    gathered = ct_tensor1(all, CT_F32, comm->size);
    if (strcmp(what, "abort-sum") == 0) return ct_comm_all_reduce(comm, &tensor);
    if (strcmp(what, "abort-gather") == 0) return ct_comm_all_gather(comm, &gathered, &tensor);
    if (strcmp(what, "abort-started") != 0) fail(what);
    const ct_status status = ct_comm_all_reduce_start(comm, &tensor);
    return status == CT_OK ? ct_comm_finish(comm) : status;
}

/* The last rank never comes to what the others wait in. */
static void check_abort(ct_comm *comm, const char *what)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, abort_soon, comm)) fail("pthread_create");
    const bool silent = comm->rank == comm->size - 1;
    const double begin = ct_clock_seconds();
    if (silent) pthread_join(thread, NULL);
    const ct_status status = wait_in(comm, what);
    if (status != CT_ERR_DEVICE || !strstr(ct_error_message(), "another rank"))
        fail("an aborted collective must say that it was");
    if (ct_clock_seconds() - begin > 2) fail("an aborted collective must end at once");
    if (!silent) pthread_join(thread, NULL);
    ct_comm_abort(comm);
    if (ct_comm_finish(comm) != CT_ERR_DEVICE) fail("collectives after an abort must fail");
}

/* mpirun ends all ranks when one has gone without MPI_Finalize: each stays until all have said how
 * it went, and a moment longer for mpirun to hear it. */
static void stay_for_all(const ct_world *world)
{
    char name[80];
    snprintf(name, sizeof name, "/ct-test-mpi-%s", world->token);
    const int file = shm_open(name, O_CREAT | O_RDWR, 0600);
    if (file < 0 || ftruncate(file, sizeof(atomic_int)) != 0) fail(name);
    atomic_int *there = mmap(NULL, sizeof *there, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (there == MAP_FAILED) fail(name);
    close(file);
    atomic_fetch_add(there, 1);
    while (atomic_load(there) < world->size) usleep(1000);
    shm_unlink(name);
    munmap(there, sizeof *there);
    usleep(200000);
}

/* ---- all ------------------------------------------------------------------------------------ */

static void check_world(const ct_world *world, ct_comm *comm)
{
    ct_world all[64];
    if (world->rank != comm->rank || world->size != comm->size || world->size > 64 ||
        world->local_rank != world->rank || world->local_size != world->size)
        fail("what MPI says of the ranks");
    if (ct_comm_gather_host(comm, all, world, sizeof *world) != CT_OK) fail("gather_host");
    if (world->port <= 0 || strcmp(world->master, "127.0.0.1") != 0 || !world->token[0])
        fail("where to meet");
    for (int r = 0; r < world->size; r++)
        if (all[r].rank != r || all[r].port != world->port ||
            strcmp(all[r].master, world->master) != 0 || strcmp(all[r].token, world->token) != 0)
            fail("where to meet, as the ranks know it");
}

static void check_all(ct_device *device)
{
    check_comm(device);
    check_comm_empty(device);
    check_sizes(device);
    check_rounding(device->comm);
    check_refusals(device->comm);
    check_bound(device->comm);
    check_stats(device->comm);
}

int main(int argc, char **argv)
{
    const bool aborts = argc > 1;
    ct_world world = {0};
    ct_device *device;
    if (ct_mpi_open(&world) != CT_OK || ct_cpu_device_create(1, &device) != CT_OK ||
        ct_mpi_comm_create(&device->comm) != CT_OK)
        fail("opening");
    check_world(&world, device->comm);
    if (aborts) check_abort(device->comm, argv[1]);
    else check_all(device);
    ct_comm_destroy(device->comm);
    ct_device_destroy(device);
    if (aborts) {
        printf("rank %d was not kept\n", world.rank);
        fflush(stdout);
        stay_for_all(&world);
    }
    ct_mpi_close(aborts);
    return 0;
}
