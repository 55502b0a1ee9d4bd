#include "world/world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLURM_PORT_FIRST 20000
#define SLURM_PORTS      10000
/* Step ids from here on are not of srun's steps: batch scripts, interactive shells, ... */
#define SLURM_STEP_SPECIAL 0xfffffff0ll

/* NULL when it is not set or empty. */
static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

/* *out = the variable's whole number from `least` to `most`. */
static ct_status read_number(const char *name, long long least, long long most, long long *out)
{
    const char *text = variable(name);
    char *end;
    if (!text) return ct_fail(CT_ERR_CONFIG, "environment: %s is not set", name);
    errno = 0;
    *out = strtoll(text, &end, 10);
    if (*end || errno || *out < least || *out > most)
        return ct_fail(CT_ERR_CONFIG,
                       "environment: %s: expected a whole number from %lld to %lld, found \"%s\"",
                       name, least, most, text);
    return CT_OK;
}

typedef struct names {
    const char *rank, *size, *local_rank, *local_size;
} names;

/* Ranks and sizes by these names. The local rank chooses the GPU, so several ranks need it; the
 * local size may be missing. */
static ct_status read_ranks(ct_world *world, names name)
{
    long long rank = 0, size = 1, local_rank = 0, local_size = 0;
    CT_TRY(read_number(name.size, 1, CT_RANKS_MAX, &size));
    CT_TRY(read_number(name.rank, 0, size - 1, &rank));
    if (variable(name.local_size)) CT_TRY(read_number(name.local_size, 1, size, &local_size));
    if (size > 1 || variable(name.local_rank))
        CT_TRY(read_number(name.local_rank, 0, (local_size ? local_size : size) - 1, &local_rank));
    world->rank = (int)rank;
    world->size = (int)size;
    world->local_rank = (int)local_rank;
    world->local_size = (int)local_size;
    return CT_OK;
}

/* MASTER_ADDR and MASTER_PORT, when the first is set. */
static ct_status read_master(ct_world *world)
{
    const char *address = variable("MASTER_ADDR"),
               *store = variable("TORCHELASTIC_USE_AGENT_STORE");
    long long port = 0;
    if (!address) return CT_OK;
    if (strlen(address) >= sizeof world->master)
        return ct_fail(CT_ERR_CONFIG, "environment: MASTER_ADDR: expected at most %d bytes",
                       CT_HOST_BYTES - 1);
    bool taken = !world->launched && store && strcmp(store, "True") == 0;
    CT_TRY(read_number("MASTER_PORT", 1, taken ? 65534 : 65535, &port));
    snprintf(world->master, sizeof world->master, "%s", address);
    world->port = (int)port + (taken ? 1 : 0);
    return CT_OK;
}

static void read_token(ct_world *world)
{
    static const char *const sources[] = {"CT_JOB_TOKEN", "TORCHELASTIC_RUN_ID", "SLURM_JOB_ID"};
    for (size_t i = 0; i < sizeof sources / sizeof *sources && !world->token[0]; i++)
        if (variable(sources[i]))
            snprintf(world->token, sizeof world->token, "%s", variable(sources[i]));
}

/* ---- Slurm ---- */

/* Whether srun started this process as a task. */
static bool is_slurm_task(void)
{
    const char *step = variable("SLURM_STEP_ID");
    if (!step || !variable("SLURM_PROCID")) return false;
    char *end;
    long long id = strtoll(step, &end, 10);
    return !*end && id >= 0 && id < SLURM_STEP_SPECIAL;
}

/* The first of "node[007-010,12]-ib,other": node007-ib. False when it is not written so. */
static bool first_host(const char *list, char *to, size_t capacity)
{
    size_t head = strcspn(list, "[,");
    int written;
    if (list[head] == '[') {
        const char *first = list + head + 1;
        size_t digits = strspn(first, "0123456789");
        const char *end = strchr(first, ']');
        if (!digits || !end) return false;
        written = snprintf(to, capacity, "%.*s%.*s%.*s", (int)head, list, (int)digits, first,
                           (int)strcspn(end + 1, "[,"), end + 1);
    } else {
        written = snprintf(to, capacity, "%.*s", (int)head, list);
    }
    return written > 0 && (size_t)written < capacity;
}

static ct_status find_slurm_master(ct_world *world)
{
    const char *hosts = variable("SLURM_STEP_NODELIST");
    const char *launcher = variable("SLURM_LAUNCH_NODE_IPADDR");
    long long job = 0, step = 0;
    if (!(hosts && first_host(hosts, world->master, sizeof world->master))) {
        if (!launcher || strlen(launcher) >= sizeof world->master)
            return ct_fail(CT_ERR_CONFIG, "environment: neither MASTER_ADDR nor "
                                          "SLURM_STEP_NODELIST says where rank 0 is");
        snprintf(world->master, sizeof world->master, "%s", launcher);
    }
    CT_TRY(read_number("SLURM_JOB_ID", 0, 1ll << 40, &job));
    CT_TRY(read_number("SLURM_STEP_ID", 0, SLURM_STEP_SPECIAL, &step));
    world->port = SLURM_PORT_FIRST + (int)((job + 97 * step) % SLURM_PORTS);
    return CT_OK;
}

/* ---- all ---- */

ct_status ct_world_find(ct_world *world)
{
    static const names own = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"};
    static const names open_mpi = {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
                                   "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"};
    static const names pmi = {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"};
    static const names slurm_pmi = {"PMI_RANK", "PMI_SIZE", "SLURM_LOCALID", "MPI_LOCALNRANKS"};
    names slurm = {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", ""};
    const char *launched = variable("CT_LAUNCHED");
    bool in_slurm = false;
    *world = (ct_world){.size = 1};
    world->launched = launched && strcmp(launched, "1") == 0;
    if (variable("RANK")) {
        CT_TRY(read_ranks(world, own));
    } else if (variable("OMPI_COMM_WORLD_RANK")) {
        world->mpi = true;
        CT_TRY(read_ranks(world, open_mpi));
    } else if (variable("PMI_RANK")) {
        world->mpi = true;
        CT_TRY(read_ranks(world, variable("MPI_LOCALRANKID") ? pmi : slurm_pmi));
    } else if (is_slurm_task()) {
        in_slurm = true;
        if (!variable(slurm.size)) slurm.size = "SLURM_NTASKS";
        CT_TRY(read_ranks(world, slurm));
    } else {
        long long size = 1;
        if (variable("WORLD_SIZE")) CT_TRY(read_number("WORLD_SIZE", 1, CT_RANKS_MAX, &size));
        if (size > 1)
            return ct_fail(CT_ERR_CONFIG, "environment: WORLD_SIZE is %lld, but RANK is not set",
                           size);
    }
    read_token(world);
    if (world->size == 1) return CT_OK;
    CT_TRY(read_master(world));
    if (world->master[0] || world->mpi) return CT_OK;
    if (in_slurm) return find_slurm_master(world);
    return ct_fail(CT_ERR_CONFIG, "environment: MASTER_ADDR is not set (WORLD_SIZE is %d)",
                   world->size);
}
