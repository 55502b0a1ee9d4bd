/* The checks of any communicator (tests/comm) on NCCL's, on the SIMT device: comm_main RANKS. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "comm/checks.h"
#include "cuda/cuda.h"
#include "ranks.h"

static int ranks_asked;

static int failed(void)
{
    fprintf(stderr, "%s\n", ct_error_message());
    return 1;
}

static int check_rank(int rank, int size, const void *context)
{
    (void)context;
    char id[CT_NCCL_ID_BYTES];
    ct_device *device;
    if (ct_cuda_device_create(&(ct_cuda_options){.gpu = rank}, &device) != CT_OK) return failed();
    if (rank == 0 && ct_cuda_nccl_id(id) != CT_OK) return failed();
    ranks_broadcast(rank, id, sizeof id);
    if (ct_cuda_comm_create(device, id, rank, size, 30, &device->comm) != CT_OK) return failed();
    check_comm(device);
    ct_comm_destroy(device->comm);
    ct_device_destroy(device);
    return 0;
}

static void checks_pass(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 3; seed++)
        ranks_expect_success(
            &(ranks_options){.size = ranks_asked, .seed = seed, .delay_us = seed == 2 ? 300 : 0},
            check_rank, NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(checks_pass)};
    ranks_asked = argc > 1 ? atoi(argv[1]) : 0;
    if (ranks_asked < 2 || ranks_asked > RANKS_MOST) return 2;
    return cmocka_run_group_tests_name("simt_comm", tests, NULL, NULL);
}
