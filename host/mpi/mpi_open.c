#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "mpi/mpi_check.h"
#include "mpi/mpi_comm.h"

bool ct_mpi_available(const char **why)
{
    (void)why;
    return true;
}

ct_status ct_mpi_failed(const char *call, int error)
{
    char words[MPI_MAX_ERROR_STRING] = "unknown error";
    int length;
    (void)MPI_Error_string(error, words, &length);
    return ct_fail(CT_ERR_DEVICE, "%.*s: %s", (int)strcspn(call, "("), call, words);
}

/* A port that nothing listens on now. Between this and rank 0's listening another program could
 * take it; the meeting then fails with a message. */
static ct_status free_port(int *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    const int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (descriptor < 0) return ct_fail_errno(CT_ERR_IO, "cannot open a socket");
    const bool bound = bind(descriptor, (struct sockaddr *)&address, size) == 0 &&
                       getsockname(descriptor, (struct sockaddr *)&address, &size) == 0;
    const ct_status status =
        bound ? CT_OK : ct_fail_errno(CT_ERR_IO, "cannot find a free port to meet at");
    close(descriptor);
    *port = ntohs(address.sin_port);
    return status;
}

/* What rank 0 tells all. */
typedef struct meeting {
    char master[CT_HOST_BYTES];
    char token[32];
    int port;
} meeting;

/* Loopback addresses, and those of a link, which mean nothing on other machines. */
static bool is_local(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET6) {
        const struct in6_addr *v6 = &((const struct sockaddr_in6 *)address)->sin6_addr;
        return IN6_IS_ADDR_LOOPBACK(v6) || IN6_IS_ADDR_LINKLOCAL(v6);
    }
    const uint32_t v4 = ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr);
    return v4 >> 24 == 127 || v4 >> 16 == 0xA9FE; /* 169.254.0.0/16 */
}

/* The number that this machine's name stands for: the others may not know the name (a container's).
 * Where it stands for none that they could reach (127.0.1.1, say), the name stays for them to look
 * up. */
static ct_status find_host(char host[CT_HOST_BYTES])
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    struct addrinfo *addresses;
    bool found = false;
    if (gethostname(host, CT_HOST_BYTES - 1) != 0)
        return ct_fail_errno(CT_ERR_IO, "this machine's name is not known");
    if (getaddrinfo(host, NULL, &hints, &addresses) != 0) return CT_OK;
    for (const struct addrinfo *at = addresses; at && !found; at = at->ai_next) {
        char number[INET6_ADDRSTRLEN];
        found = !is_local(at->ai_addr) && getnameinfo(at->ai_addr, at->ai_addrlen, number,
                                                      sizeof number, NULL, 0, NI_NUMERICHOST) == 0;
        if (found) snprintf(host, CT_HOST_BYTES, "%s", number);
    }
    freeaddrinfo(addresses);
    return CT_OK;
}

static ct_status choose_meeting(bool one_machine, meeting *out)
{
    uint64_t secret;
    if (one_machine) snprintf(out->master, sizeof out->master, "127.0.0.1");
    else CT_TRY(find_host(out->master));
    if (getrandom(&secret, sizeof secret, 0) != (ssize_t)sizeof secret)
        return ct_fail_errno(CT_ERR_IO, "no random numbers");
    snprintf(out->token, sizeof out->token, "%016llx", (unsigned long long)secret);
    return free_port(&out->port);
}

static ct_status share_meeting(ct_world *world)
{
    meeting m = {0};
    ct_status status = CT_OK;
    if (world->rank == 0) status = choose_meeting(world->local_size == world->size, &m);
    /* Also after a failure: the others wait for it, and then for a rank 0 that never listens. */
    CT_MPI(MPI_Bcast(&m, sizeof m, MPI_BYTE, 0, MPI_COMM_WORLD));
    CT_TRY(status);
    if (!m.port) return ct_fail(CT_ERR_DEVICE, "rank 0 has no address to meet at");
    snprintf(world->master, sizeof world->master, "%s", m.master);
    snprintf(world->token, sizeof world->token, "%s", m.token);
    world->port = m.port;
    return CT_OK;
}

/* MPI's own threads inherit the mask: signals are the main thread's business. */
static ct_status initialise(int *provided)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, provided);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error == MPI_SUCCESS ? CT_OK : ct_mpi_failed("MPI_Init_thread", error);
}

ct_status ct_mpi_open(ct_world *world)
{
    int provided;
    MPI_Comm machine;
    CT_TRY(initialise(&provided));
    CT_MPI(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    if (provided < MPI_THREAD_FUNNELED)
        return ct_fail(CT_ERR_UNSUPPORTED, "this MPI does not allow programs with threads");
    CT_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &world->rank));
    CT_MPI(MPI_Comm_size(MPI_COMM_WORLD, &world->size));
    CT_MPI(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world->rank, MPI_INFO_NULL,
                               &machine));
    CT_MPI(MPI_Comm_rank(machine, &world->local_rank));
    CT_MPI(MPI_Comm_size(machine, &world->local_size));
    CT_MPI(MPI_Comm_free(&machine));
    return world->master[0] ? CT_OK : share_meeting(world);
}

void ct_mpi_close(bool failed)
{
    if (!failed) (void)MPI_Finalize();
}
