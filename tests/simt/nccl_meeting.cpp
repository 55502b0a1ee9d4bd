/* Unique ids, and how ranks find each other. */
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>

#include "nccl.h"
#include "runtime.h"

namespace simt
{
namespace
{

struct Id {
    char magic[8];
    uint64_t token;
    sockaddr_in address;
};
static_assert(sizeof(Id) <= sizeof(ncclUniqueId), "must fit");
constexpr char MAGIC[8] = "SIMT-id";

/* What a rank tells rank 0, and what it is told. */
struct Hello {
    uint64_t token;
    uint64_t machine; /* its network namespace: as good as a machine of its own */
    int32_t rank, size, device, padding;
};

/* Sockets of ids made here that no communicator has used yet. */
std::map<uint64_t, int> &listening()
{
    static auto *instance = new std::map<uint64_t, int>;
    return *instance;
}

in_addr own_address()
{
    const char *name = getenv("MASTER_ADDR");
    if (!name || !*name) name = "127.0.0.1";
    addrinfo hints = {}, *found = nullptr;
    hints.ai_family = AF_INET;
    hints.ai_socktype = SOCK_STREAM;
    if (getaddrinfo(name, nullptr, &hints, &found) != 0)
        fault("ncclGetUniqueId: MASTER_ADDR \"%s\" is no host", name);
    const in_addr address = ((sockaddr_in *)found->ai_addr)->sin_addr;
    freeaddrinfo(found);
    return address;
}

void prompt(int socket)
{
    const int on = 1;
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

Hello hello_of(const NcclState &state, uint64_t token)
{
    struct stat space = {};
    stat("/proc/self/ns/net", &space);
    return {token, space.st_ino, state.rank, state.size, state.device, 0};
}

/* What the library finds wrong with ranks that have come; "" when nothing. */
std::string objection(const std::vector<Hello> &ranks)
{
    for (size_t a = 0; a < ranks.size(); a++)
        for (size_t b = 0; b < a; b++)
            if (ranks[a].machine == ranks[b].machine && ranks[a].device == ranks[b].device)
                return "Duplicate GPU detected : rank " + std::to_string(b) + " and rank " +
                       std::to_string(a) + " both on CUDA device " +
                       std::to_string(ranks[a].device);
    return "";
}

/* A socket that is listened on, until someone comes; -1 when aborted. Has no time limit: that is
 * the caller's. */
int accept_one(NcclState &state, int listener)
{
    for (;;) {
        pollfd ends[] = {{listener, POLLIN, 0}, {state.wake[0], POLLIN, 0}};
        if (poll(ends, 2, -1) < 0 && errno != EINTR) fault("NCCL: poll: %s", strerror(errno));
        if (ends[1].revents) return -1;
        const int socket = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
        if (socket >= 0) return socket;
    }
}

/* The rank that has connected; false when it is gone again, or of another job. */
bool welcome_one(NcclState &state, int socket, uint64_t token, std::vector<Hello> *ranks)
{
    Message kind;
    std::vector<char> data;
    if (receive_message(state, socket, "a rank's greeting", &kind, &data) != Outcome::ok)
        return false;
    if (kind != Message::hello || data.size() != sizeof(Hello)) return false;
    Hello hello;
    memcpy(&hello, data.data(), sizeof hello);
    if (hello.token != token) return false;
    if (hello.size != state.size)
        fault("ncclCommInitRank: rank %d was told of %d ranks, rank 0 of %d", hello.rank,
              hello.size, state.size);
    if (hello.rank <= 0 || hello.rank >= state.size || state.sockets[(size_t)hello.rank] >= 0)
        fault("ncclCommInitRank: rank %d of %d came twice or cannot be", hello.rank, state.size);
    state.sockets[(size_t)hello.rank] = socket;
    (*ranks)[(size_t)hello.rank] = hello;
    return true;
}

ncclResult_t meet_as_root(NcclState &state, const Id &id)
{
    const auto found = listening().find(id.token);
    if (found == listening().end())
        fault("ncclCommInitRank: on the SIMT device rank 0 is the process that made the id");
    const int listener = found->second;
    listening().erase(found);
    std::vector<Hello> ranks((size_t)state.size);
    ranks[0] = hello_of(state, id.token);
    for (int missing = state.size - 1; missing > 0;) {
        const int socket = accept_one(state, listener);
        if (socket < 0) {
            close(listener);
            return ncclInternalError;
        }
        prompt(socket);
        if (welcome_one(state, socket, id.token, &ranks)) missing--;
        else close(socket);
    }
    close(listener);
    const std::string wrong = objection(ranks);
    for (size_t rank = 1; rank < ranks.size(); rank++)
        (void)send_message(state, state.sockets[rank], Message::welcome, wrong.data(),
                           wrong.size());
    if (wrong.empty()) return ncclSuccess;
    set_nccl_error(wrong);
    return ncclInvalidUsage;
}

ncclResult_t meet_root(NcclState &state, const Id &id)
{
    const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    state.sockets[0] = socket;
    if (socket < 0 || connect(socket, (const sockaddr *)&id.address, sizeof id.address) != 0) {
        set_nccl_error(std::string("cannot reach rank 0: ") + strerror(errno));
        return ncclSystemError;
    }
    prompt(socket);
    const Hello hello = hello_of(state, id.token);
    Message kind;
    std::vector<char> data;
    Outcome outcome = send_message(state, socket, Message::hello, &hello, sizeof hello);
    if (outcome == Outcome::ok)
        outcome = receive_message(state, socket, "all ranks to come", &kind, &data);
    if (outcome != Outcome::ok) {
        set_nccl_error("rank 0 is gone");
        return outcome == Outcome::closed ? ncclRemoteError : ncclInternalError;
    }
    if (data.empty()) return ncclSuccess;
    set_nccl_error(std::string(data.begin(), data.end()));
    return ncclInvalidUsage;
}

} // namespace

void make_id(ncclUniqueId *out)
{
    Id id = {};
    memcpy(id.magic, MAGIC, sizeof id.magic);
    if (getrandom(&id.token, sizeof id.token, 0) != (ssize_t)sizeof id.token)
        fault("ncclGetUniqueId: no random numbers");
    id.address.sin_family = AF_INET;
    sockaddr_in any = id.address;
    any.sin_addr.s_addr = htonl(INADDR_ANY);
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t length = sizeof any;
    if (listener < 0 || bind(listener, (sockaddr *)&any, sizeof any) != 0 ||
        listen(listener, 64) != 0 || getsockname(listener, (sockaddr *)&any, &length) != 0)
        fault("ncclGetUniqueId: cannot listen: %s", strerror(errno));
    id.address.sin_addr = own_address();
    id.address.sin_port = any.sin_port;
    listening()[id.token] = listener;
    memset(out, 0, sizeof *out);
    memcpy(out, &id, sizeof id);
}

void meet(NcclStatePtr state, ncclUniqueId unique)
{
    Id id;
    memcpy(&id, &unique, sizeof id);
    if (memcmp(id.magic, MAGIC, sizeof id.magic) != 0)
        fault("ncclCommInitRank: the id is not one of ncclGetUniqueId");
    state->result = state->rank == 0 ? meet_as_root(*state, id) : meet_root(*state, id);
}

void say_bye(NcclState &state)
{
    for (int socket : state.sockets)
        if (socket >= 0) (void)send_message(state, socket, Message::bye, nullptr, 0);
}

} // namespace simt
