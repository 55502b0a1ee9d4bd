#include "programs/ranks.h"

#include <stdlib.h>
#include <string.h>

#include "cuda/cuda.h"
#include "mpi/mpi_comm.h"

#define GRACE_SECONDS 10.0

/* Machines may differ in these. */
static bool is_local_key(const char *line)
{
    static const char *const keys[] = {"threads:", "  workers:", "  prefetch:", "  plan_cache:"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strncmp(line, keys[i], strlen(keys[i])) == 0) return true;
    return false;
}

/* FNV-1a, 64 bits (Fowler, Noll, Vo), of the configuration's lines. */
static ct_status hash_config(const ct_config *config, uint64_t more, uint64_t *hash)
{
    char *text, *rest;
    CT_TRY(ct_config_print(config, &text));
    *hash = UINT64_C(0xcbf29ce484222325) ^ more;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        if (is_local_key(line)) continue;
        for (const char *c = line; *c; c++) *hash = (*hash ^ (uint8_t)*c) * UINT64_C(0x100000001b3);
    }
    free(text);
    return CT_OK;
}

/* MPI's launchers tell ranks; the address to meet at can only come through MPI itself. */
static ct_status open_mpi(ct_ranks *ranks)
{
    const char *why;
    if (!ranks->world.mpi) return CT_OK;
    if (!ct_mpi_available(&why)) {
        if (ranks->world.master[0]) return CT_OK;
        return ct_fail(CT_ERR_UNSUPPORTED,
                       "started by an MPI launcher, but %s; set MASTER_ADDR and MASTER_PORT", why);
    }
    CT_TRY(ct_mpi_open(&ranks->world));
    ranks->mpi = true;
    return CT_OK;
}

ct_status ct_ranks_meet(ct_ranks *ranks, const ct_config *config, uint64_t more)
{
    if (ranks->world.size == 1) return CT_OK;
    ct_job_options options = {.timeout_seconds = config->distributed.timeout_s,
                              .grace_seconds = GRACE_SECONDS,
                              .version = CT_VERSION};
    CT_TRY(hash_config(config, more, &options.config_hash));
    CT_TRY(open_mpi(ranks));
    return ct_job_meet(&ranks->world, &options, &ranks->job);
}

static ct_status connect_gpus(ct_ranks *ranks, const ct_config *config, ct_device *device)
{
    uint8_t id[CT_NCCL_ID_BYTES] = {0};
    if (ranks->world.rank == 0) CT_TRY(ct_cuda_nccl_id(id));
    CT_TRY(ct_job_broadcast(ranks->job, id, sizeof id));
    return ct_cuda_comm_create(device, id, ranks->world.rank, ranks->world.size,
                               config->distributed.timeout_s, &ranks->comm);
}

static void abort_comm(void *comm)
{
    ct_comm_abort(comm);
}

ct_status ct_ranks_connect(ct_ranks *ranks, const ct_config *config, ct_device *device)
{
    if (!ranks->job) return CT_OK;
    if (strcmp(device->backend->name, "cuda") == 0) {
        CT_TRY(connect_gpus(ranks, config, device));
    } else if (ranks->mpi) {
        CT_TRY(ct_mpi_comm_create(&ranks->comm));
    } else {
        return ct_fail(CT_ERR_UNSUPPORTED,
                       "several ranks on processors need MPI: start them with --ranks N or mpirun");
    }
    device->comm = ranks->comm;
    ct_job_on_failure(ranks->job, abort_comm, ranks->comm);
    return CT_OK;
}

ct_status ct_ranks_end(ct_ranks *ranks, ct_status status)
{
    const bool failed = status != CT_OK && status != CT_ERR_INTERRUPTED;
    if (ranks->job && failed) status = ct_job_fail(ranks->job, status);
    if (ranks->job) ct_job_on_failure(ranks->job, NULL, NULL);
    /* This rank's device may wait in a collective that no other one will come to. */
    if (failed) ct_comm_abort(ranks->comm);
    ct_comm_destroy(ranks->comm);
    ranks->comm = NULL;
    return status;
}

void ct_ranks_leave(ct_ranks *ranks, ct_status status)
{
    ct_job_leave(ranks->job);
    if (ranks->mpi) ct_mpi_close(status != CT_OK && status != CT_ERR_INTERRUPTED);
}
