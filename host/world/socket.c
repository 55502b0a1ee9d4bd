#include "world/socket.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"

#define REASON_BYTES            128
#define ADDRESS_CONNECT_SECONDS 3.0 /* for one of several addresses */
#define BACKLOG                 1024

static int open_socket(int family)
{
    return socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/* A message is an answer that somebody waits for: it leaves at once. */
static void send_at_once(int socket)
{
    int on = 1;
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static int resolve(const char *host, int port, int flags, struct addrinfo **out)
{
    char service[16];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags};
    snprintf(service, sizeof service, "%d", port);
    return getaddrinfo(host, service, &hints, out);
}

/* ---- listening ---- */

static bool is_loopback(const char *host)
{
    return strcmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 ||
           strcmp(host, "::1") == 0;
}

static int listen_at(const struct sockaddr *address, socklen_t bytes)
{
    int on = 1, off = 0;
    int listener = open_socket(address->sa_family);
    if (listener < 0) return -1;
    /* A port is free again at once when its last job has ended. */
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (address->sa_family == AF_INET6)
        setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(listener, address, bytes) == 0 && listen(listener, BACKLOG) == 0) return listener;
    int error = errno;
    close(listener);
    errno = error;
    return -1;
}

ct_status ct_socket_listen(const char *master, int port, int *out)
{
    *out = -1;
    if (is_loopback(master)) {
        struct addrinfo *addresses;
        int error = resolve(master, port, 0, &addresses);
        if (error) return ct_fail(CT_ERR_IO, "%s: %s", master, gai_strerror(error));
        for (struct addrinfo *at = addresses; at && *out < 0; at = at->ai_next)
            *out = listen_at(at->ai_addr, at->ai_addrlen);
        error = errno;
        freeaddrinfo(addresses);
        errno = error;
    } else {
        struct sockaddr_in6 both = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
        struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        *out = listen_at((const struct sockaddr *)&both, sizeof both);
        if (*out < 0 && errno != EADDRINUSE && errno != EACCES) /* no IPv6 here */
            *out = listen_at((const struct sockaddr *)&v4, sizeof v4);
    }
    if (*out < 0) return ct_fail_errno(CT_ERR_IO, "cannot listen at %s:%d", master, port);
    return CT_OK;
}

int ct_socket_accept(int listener)
{
    int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (connection >= 0) send_at_once(connection);
    return connection;
}

ct_status ct_socket_reserve(int *port, int *out)
{
    int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof address;
    *out = open_socket(AF_INET);
    /* Bound, but not listening, and with SO_REUSEADDR on both: Linux lets another socket that asks
     * for this port have it, and gives it to none that asks for any port. */
    if (*out >= 0 && setsockopt(*out, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        bind(*out, (const struct sockaddr *)&address, bytes) == 0 &&
        getsockname(*out, (struct sockaddr *)&address, &bytes) == 0) {
        *port = ntohs(address.sin_port);
        return CT_OK;
    }
    ct_status status = ct_fail_errno(CT_ERR_IO, "cannot find a free port");
    if (*out >= 0) close(*out);
    *out = -1;
    return status;
}

/* ---- connecting ---- */

/* Whether the kernel has connected the socket with itself: it may, when nobody listens yet at a
 * port among those that it gives to outgoing connections. */
static bool is_own_mirror(int socket)
{
    struct sockaddr_storage here = {0}, there = {0};
    socklen_t here_bytes = sizeof here, there_bytes = sizeof there;
    return getsockname(socket, (struct sockaddr *)&here, &here_bytes) == 0 &&
           getpeername(socket, (struct sockaddr *)&there, &there_bytes) == 0 &&
           here_bytes == there_bytes && memcmp(&here, &there, here_bytes) == 0;
}

/* Closes it without leaving the port to wait for stray packets: rank 0 needs it. */
static void close_mirror(int socket)
{
    struct linger none = {.l_onoff = 1};
    setsockopt(socket, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    close(socket);
    errno = ECONNREFUSED;
}

/* A connected socket, or -1 and errno. */
static int connect_to(const struct addrinfo *address, double deadline)
{
    int error = 0, made = open_socket(address->ai_family);
    socklen_t bytes = sizeof error;
    if (made < 0) return -1;
    if (connect(made, address->ai_addr, address->ai_addrlen) != 0) error = errno;
    if (error == EINPROGRESS || error == EINTR) { /* it goes on by itself */
        struct pollfd poll_for = {.fd = made, .events = POLLOUT};
        double left;
        int ready = 0;
        while (ready <= 0 && (left = deadline - ct_clock_seconds()) > 0)
            ready = poll(&poll_for, 1, (int)(left * 1e3) + 1);
        if (ready <= 0) error = ETIMEDOUT;
        else if (getsockopt(made, SOL_SOCKET, SO_ERROR, &error, &bytes) != 0) error = errno;
    }
    if (error) {
        close(made);
        errno = error;
        return -1;
    }
    if (is_own_mirror(made)) {
        close_mirror(made);
        return -1;
    }
    send_at_once(made);
    return made;
}

void ct_socket_connect(const char *master, int port, double deadline, int *out, char *reason)
{
    struct addrinfo *addresses;
    *out = -1;
    int error = resolve(master, port, AI_ADDRCONFIG, &addresses);
    /* The loopback alone does not count as an address for AI_ADDRCONFIG. */
    if (error) error = resolve(master, port, 0, &addresses);
    if (error) {
        snprintf(reason, REASON_BYTES, "%s", gai_strerror(error));
        return;
    }
    for (struct addrinfo *at = addresses; at && *out < 0; at = at->ai_next) {
        double now = ct_clock_seconds(), limit = deadline;
        if (at->ai_next && now + ADDRESS_CONNECT_SECONDS < limit)
            limit = now + ADDRESS_CONNECT_SECONDS;
        *out = connect_to(at, limit);
        if (*out < 0) snprintf(reason, REASON_BYTES, "%s", strerror(errno));
    }
    freeaddrinfo(addresses);
}
