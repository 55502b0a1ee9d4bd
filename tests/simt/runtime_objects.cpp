/* Live handles: every create has its destroy, and nothing is used after it. */
#include "runtime.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <unordered_map>

namespace simt
{
namespace
{

/* Never destroyed: other objects' destructors may still free handles while the process ends. */
std::unordered_map<const void *, const char *> &objects()
{
    static auto *instance = new std::unordered_map<const void *, const char *>;
    return *instance;
}

/* A communicator may be aborted, which destroys it, from a second thread. */
std::recursive_mutex &lock()
{
    static auto *instance = new std::recursive_mutex;
    return *instance;
}
using Guard = std::lock_guard<std::recursive_mutex>;

void at_exit()
{
    write_call_count();
    drop_all();
    check_leaks("at exit");
}

} // namespace

void start_exit_checks()
{
    static const int registered = std::atexit(at_exit);
    if (registered != 0) fault("atexit is full");
}

void object_created(const void *handle, const char *kind)
{
    start_exit_checks();
    Guard guard(lock());
    objects()[handle] = kind;
}

void object_check(const void *handle, const char *kind, const char *call)
{
    Guard guard(lock());
    auto found = objects().find(handle);
    if (found == objects().end())
        fault("%s: %p is not a live %s (destroyed, or never created)", call, handle, kind);
    if (strcmp(found->second, kind) != 0)
        fault("%s: %p is of kind \"%s\", expected \"%s\"", call, handle, found->second, kind);
}

void object_destroyed(const void *handle, const char *kind, const char *call)
{
    Guard guard(lock());
    object_check(handle, kind, call);
    objects().erase(handle);
}

void check_leaks(const char *when)
{
    Guard guard(lock());
    if (objects().empty()) return;
    std::map<std::string, size_t> counts;
    for (const auto &object : objects()) counts[object.second]++;
    std::string list;
    for (const auto &count : counts) {
        const void *example = nullptr;
        for (const auto &object : objects())
            if (count.first == object.second) example = object.first;
        char line[256];
        snprintf(line, sizeof line, "%s%zu x %s (one is %s)", list.empty() ? "" : ", ",
                 count.second, count.first.c_str(), describe_address(example));
        list += line;
    }
    fault("leak: %s %s", list.c_str(), when);
}

} // namespace simt
