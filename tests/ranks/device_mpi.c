/* Ranks on processors. */
#include "cpu/cpu.h"
#include "mpi/mpi_comm.h"
#include "ranks.h"

static ct_device *of_rank, *alone;

void open_ranks(int *argc, char ***argv)
{
    ct_world world = {0};
    (void)argc;
    (void)argv;
    must(ct_mpi_open(&world));
    must(ct_cpu_device_create(1, &of_rank));
    must(ct_cpu_device_create(1, &alone));
    must(ct_mpi_comm_create(&of_rank->comm));
}

ct_device *device_of_rank(void)
{
    return of_rank;
}

ct_device *device_alone(void)
{
    return alone;
}

void close_ranks(void)
{
    ct_comm_destroy(of_rank->comm);
    ct_device_destroy(of_rank);
    ct_device_destroy(alone);
    ct_mpi_close(false);
}
