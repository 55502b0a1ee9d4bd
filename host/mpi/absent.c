/* In the place of MPI where the build found none. */
#include "mpi/mpi_comm.h"

bool ct_mpi_available(const char **why)
{
    if (why)
        *why = "this build has no MPI: none was found when it was configured, or CT_MPI is OFF";
    return false;
}

static ct_status refuse(void)
{
    const char *why;
    (void)ct_mpi_available(&why);
    return ct_fail(CT_ERR_UNSUPPORTED, "%s", why);
}

ct_status ct_mpi_open(ct_world *world)
{
    (void)world;
    return refuse();
}

ct_status ct_mpi_comm_create(ct_comm **out)
{
    (void)out;
    return refuse();
}

void ct_mpi_close(bool failed)
{
    (void)failed;
}
