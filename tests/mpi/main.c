/* MPI's communicator against the checks of all communicators, or with the argument "abort" its own
 * ending: run by mpirun. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "comm/checks.h"
#include "cpu/cpu.h"
#include "mpi/mpi_comm.h"

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, ct_error_message());
    exit(1);
}

static void *abort_soon(void *comm)
{
    usleep(200000);
    ct_comm_abort(comm);
    return NULL;
}

/* The last rank never comes to the sum that the others wait in. */
static void check_abort(ct_comm *comm)
{
    pthread_t thread;
    float x = 1;
    const ct_tensor tensor = ct_tensor1(&x, CT_F32, 1);
    if (pthread_create(&thread, NULL, abort_soon, comm)) fail("pthread_create");
    const double begin = ct_clock_seconds();
    if (comm->rank == comm->size - 1) pthread_join(thread, NULL);
    const ct_status status = ct_comm_all_reduce(comm, &tensor);
    if (status != CT_ERR_DEVICE || !strstr(ct_error_message(), "another rank"))
        fail("an aborted collective must say that it was");
    if (ct_clock_seconds() - begin > 2) fail("an aborted collective must end at once");
    if (comm->rank < comm->size - 1) pthread_join(thread, NULL);
    if (ct_comm_finish(comm) != CT_ERR_DEVICE) fail("collectives after an abort must fail");
}

int main(int argc, char **argv)
{
    const bool aborts = argc > 1 && strcmp(argv[1], "abort") == 0;
    ct_world world = {0};
    ct_device *device;
    if (ct_mpi_open(&world) != CT_OK || ct_cpu_device_create(1, &device) != CT_OK ||
        ct_mpi_comm_create(&device->comm) != CT_OK)
        fail("opening");
    if (world.rank != device->comm->rank || world.size != device->comm->size ||
        world.local_size != world.size || world.port <= 0 || !world.master[0] || !world.token[0])
        fail("what MPI says of the ranks");
    if (aborts) check_abort(device->comm);
    else check_comm(device);
    ct_comm_destroy(device->comm);
    ct_device_destroy(device);
    ct_mpi_close(aborts);
    if (aborts) printf("rank %d was not kept by the sum\n", world.rank);
    return 0;
}
