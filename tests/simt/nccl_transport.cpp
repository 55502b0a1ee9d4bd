/* Messages between ranks: a kind and a length, then the data. Every wait also looks at the pipe
 * that an abort writes to. */
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include "nccl.h"
#include "runtime.h"

namespace simt
{
namespace
{

struct Header {
    Message kind;
    uint32_t padding;
    uint64_t bytes;
};

/* Until the socket is ready for `events`. */
Outcome wait_for(NcclState &state, int socket, short events, const char *waiting_for)
{
    using Clock = std::chrono::steady_clock;
    const auto end = Clock::now() + std::chrono::milliseconds(nccl_timeout_ms());
    for (;;) {
        if (state.aborted) return Outcome::aborted;
        pollfd ends[] = {{socket, events, 0}, {state.wake[0], POLLIN, 0}};
        const auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
        if (left <= 0)
            fault("NCCL: rank %d waited longer than %llu ms for %s", state.rank,
                  (unsigned long long)nccl_timeout_ms(), waiting_for);
        const int ready = poll(ends, 2, (int)left);
        if (ready < 0 && errno != EINTR) fault("NCCL: poll: %s", strerror(errno));
        if (ready > 0 && ends[1].revents) return Outcome::aborted;
        if (ready > 0 && ends[0].revents) return Outcome::ok;
    }
}

Outcome send_all(NcclState &state, int socket, const void *data, size_t bytes)
{
    const char *at = (const char *)data;
    while (bytes > 0) {
        const ssize_t sent = send(socket, at, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0) {
            at += sent;
            bytes -= (size_t)sent;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            const Outcome outcome = wait_for(state, socket, POLLOUT, "a rank to read its data");
            if (outcome != Outcome::ok) return outcome;
        } else if (errno != EINTR) {
            return Outcome::closed;
        }
    }
    return Outcome::ok;
}

Outcome receive_all(NcclState &state, int socket, const char *waiting_for, void *data, size_t bytes)
{
    char *at = (char *)data;
    while (bytes > 0) {
        const ssize_t got = recv(socket, at, bytes, MSG_DONTWAIT);
        if (got > 0) {
            at += got;
            bytes -= (size_t)got;
        } else if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            const Outcome outcome = wait_for(state, socket, POLLIN, waiting_for);
            if (outcome != Outcome::ok) return outcome;
        } else if (got == 0 || errno != EINTR) {
            return Outcome::closed;
        }
    }
    return Outcome::ok;
}

} // namespace

uint64_t nccl_timeout_ms()
{
    static const uint64_t value = environment_number("SIMT_NCCL_TIMEOUT_MS", 120000);
    return value;
}

Outcome send_message(NcclState &state, int socket, Message kind, const void *data, size_t bytes)
{
    const Header header = {kind, 0, bytes};
    const Outcome outcome = send_all(state, socket, &header, sizeof header);
    return outcome == Outcome::ok ? send_all(state, socket, data, bytes) : outcome;
}

Outcome receive_message(NcclState &state, int socket, const char *waiting_for, Message *kind,
                        std::vector<char> *data)
{
    Header header;
    const Outcome outcome = receive_all(state, socket, waiting_for, &header, sizeof header);
    if (outcome != Outcome::ok) return outcome;
    *kind = header.kind;
    data->resize(header.bytes);
    return receive_all(state, socket, waiting_for, data->data(), header.bytes);
}

bool has_died(int socket)
{
    Header header;
    const ssize_t got = recv(socket, &header, sizeof header, MSG_DONTWAIT | MSG_PEEK);
    return got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

NcclState::~NcclState()
{
    char rest[4096];
    for (int socket : sockets) {
        if (socket < 0) continue;
        /* Unread data would turn the end of the connection into a reset, and eat our bye. */
        while (recv(socket, rest, sizeof rest, MSG_DONTWAIT) > 0) {
        }
        close(socket);
    }
    close(wake[0]);
    close(wake[1]);
}

} // namespace simt
