/* TCP sockets over IPv4 and IPv6: close-on-exec, never blocking. */
#ifndef CT_WORLD_SOCKET_H
#define CT_WORLD_SOCKET_H

#include <stdbool.h>

#include "base/status.h"

/* *out = a socket that listens at the port: on this machine only when `master` is a name of the
 * loopback, else on all its addresses, since a host may know itself by another address than others
 * do. CT_ERR_IO. */
CT_NODISCARD ct_status ct_socket_listen(const char *master, int port, int *out);

/* The next connection, or -1 when there is none now. */
int ct_socket_accept(int listener);

/* One try of all addresses of `master`. *out = a connected socket; -1 with errno's text in
 * reason[128] when none took it by `deadline` (ct_clock_seconds). */
void ct_socket_connect(const char *master, int port, double deadline, int *out, char *reason);

/* *port = a free port of 127.0.0.1, which the kernel gives to nobody else by itself while the
 * socket *out is open; ct_socket_listen can still take it. CT_ERR_IO. */
CT_NODISCARD ct_status ct_socket_reserve(int *port, int *out);

#endif
