/* Work waiting to run, and the seeded choice of what runs next (runtime.h says why). */
#include "runtime.h"

#include <algorithm>

namespace simt
{
namespace
{

/* A device runs ahead of a host that queues this much without waiting. */
constexpr size_t MOST_PENDING = 1024;

/* What happens to work that the host does not wait for, and which of several candidates goes first.
 */
enum class Others { late, early, mixed };
enum class Pick { oldest, newest, any };

struct Policy {
    Others others = (Others)random_below(3);
    Pick pick = (Pick)random_below(3);
};

struct Queue {
    std::vector<WorkPtr> ready; /* everything else hangs on these by `followers` */
    size_t pending = 0;
    uint64_t sequence = 0, wait = 0;
    const Work *running = nullptr;
};

Queue &queue()
{
    static auto *instance = new Queue; /* never destroyed: used at exit */
    return *instance;
}

void finish(const WorkPtr &work)
{
    Queue &state = queue();
    work->done = true;
    work->ended = std::chrono::steady_clock::now();
    work->action.reset();
    work->after.clear();
    state.pending--;
    std::vector<WorkPtr> followers = std::move(work->followers);
    work->followers.clear();
    for (WorkPtr &follower : followers)
        if (--follower->unmet == 0) state.ready.push_back(std::move(follower));
}

void execute(const WorkPtr &work)
{
    Queue &state = queue();
    if (work->action) {
        state.running = work.get();
        if (work->on_host) device_close();
        (*work->action)();
        if (work->on_host) device_open();
        state.running = nullptr;
    }
    finish(work);
}

/* Marks what `work` depends on, iteratively: chains can be long. */
void mark_needed(const WorkPtr &work, uint64_t wait)
{
    std::vector<Work *> stack = {work.get()};
    while (!stack.empty()) {
        Work *item = stack.back();
        stack.pop_back();
        if (item->done || item->needed_in == wait) continue;
        item->needed_in = wait;
        for (const WorkPtr &before : item->after) stack.push_back(before.get());
    }
}

WorkPtr take_next(const Policy &policy, uint64_t wait)
{
    std::vector<WorkPtr> &ready = queue().ready;
    bool want_needed = policy.others == Others::late;
    auto wanted = [&](const WorkPtr &work) {
        return policy.others == Others::mixed || (work->needed_in == wait) == want_needed;
    };
    bool some = std::any_of(ready.begin(), ready.end(), wanted);
    size_t best = ready.size(), seen = 0;
    for (size_t i = 0; i < ready.size(); i++) {
        if (some && !wanted(ready[i])) continue;
        seen++;
        bool better = best == ready.size();
        if (!better && policy.pick == Pick::oldest)
            better = ready[i]->sequence < ready[best]->sequence;
        if (!better && policy.pick == Pick::newest)
            better = ready[i]->sequence > ready[best]->sequence;
        if (!better && policy.pick == Pick::any) better = random_below((uint32_t)seen) == 0;
        if (better) best = i;
    }
    WorkPtr taken = std::move(ready[best]);
    ready[best] = std::move(ready.back());
    ready.pop_back();
    return taken;
}

} // namespace

WorkPtr add_work(const char *name, Action action, bool on_host, const std::vector<WorkPtr> &after)
{
    Queue &state = queue();
    if (state.pending >= MOST_PENDING) run_some(MOST_PENDING / 2);
    auto work = std::make_shared<Work>();
    work->name = name;
    work->action = std::move(action);
    work->on_host = on_host;
    work->sequence = ++state.sequence;
    for (const WorkPtr &before : after) {
        if (!before || before->done) continue;
        work->after.push_back(before);
        before->followers.push_back(work);
        work->unmet++;
    }
    state.pending++;
    if (work->unmet == 0) state.ready.push_back(work);
    return work;
}

void run_until(const WorkPtr &work)
{
    if (!work || work->done) return;
    uint64_t wait = ++queue().wait;
    mark_needed(work, wait);
    Policy policy;
    device_open();
    while (!work->done) execute(take_next(policy, wait));
    device_close();
}

void run_some(size_t count)
{
    Queue &state = queue();
    if (state.ready.empty()) return;
    Policy policy;
    uint64_t wait = ++state.wait;
    device_open();
    while (count-- > 0 && !state.ready.empty()) execute(take_next(policy, wait));
    device_close();
}

void run_all()
{
    run_some((size_t)-1);
}

void drop_all()
{
    Queue &state = queue();
    while (!state.ready.empty()) {
        WorkPtr work = std::move(state.ready.back());
        state.ready.pop_back();
        finish(work);
    }
}

const char *running_work()
{
    const Work *running = queue().running;
    return running ? running->name : nullptr;
}

void check_not_running(const char *call)
{
    if (running_work()) fault("%s called from %s, while work runs", call, running_work());
}

} // namespace simt
