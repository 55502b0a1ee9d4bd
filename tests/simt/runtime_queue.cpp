/* Work waiting to run, and the seeded choice of what runs next (runtime.h says why). */
#include "runtime.h"

#include <algorithm>

namespace simt
{
namespace
{

/* A device runs ahead of a host that queues this much without waiting. */
constexpr size_t MOST_PENDING = 1024;

/* What happens to work that the host does not wait for. */
enum class Others { late, early, mixed };

/* One time that the device gets. */
struct Turn {
    uint64_t wait; /* needs the items marked with it */
    bool all;      /* needs everything */
    Others others = (Others)random_below(3);

    bool needs(const Work &work) const { return all || work.needed_in == wait; }
};

/* Which of several candidates goes first. */
enum class Pick { oldest, newest, any };

/* How the device goes about its work for a while. Whiles may be long: a stream that is behind for a
 * moment only catches up unseen where another has much to do. */
struct Mood {
    Pick pick = (Pick)random_below(3);
    bool eager = random_below(2);        /* it keeps up with the host */
    bool starving = random_below(4) > 0; /* some streams run what is waited for only */
    uint32_t which = random_below(4);
    size_t left = (size_t)16 << random_below(8); /* items */

    /* Every second stream, or every second pair of streams. */
    bool starves(const Work &work) const
    {
        return starving && (work.stream >> which / 2 & 1) == which % 2;
    }
};

struct Queue {
    Mood mood;
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

/* Whether `work` goes before `other`, the choice so far; both are among the first `seen`. */
bool goes_first(Pick pick, const Work &work, const Work &other, uint32_t seen)
{
    if (pick == Pick::any) return random_below(seen) == 0;
    return pick == Pick::newest ? work.sequence > other.sequence : work.sequence < other.sequence;
}

/* NULL: all that is ready starves. */
WorkPtr take_next(const Turn &turn)
{
    Queue &state = queue();
    if (state.mood.left == 0) state.mood = Mood();
    std::vector<WorkPtr> &ready = state.ready;
    auto may_run = [&](const WorkPtr &work) {
        return turn.needs(*work) || !state.mood.starves(*work);
    };
    auto wanted = [&](const WorkPtr &work) {
        if (turn.others == Others::mixed) return may_run(work);
        return may_run(work) && turn.needs(*work) == (turn.others == Others::late);
    };
    bool some = std::any_of(ready.begin(), ready.end(), wanted);
    size_t best = ready.size();
    uint32_t seen = 0;
    for (size_t i = 0; i < ready.size(); i++) {
        if (some ? !wanted(ready[i]) : !may_run(ready[i])) continue;
        seen++;
        if (best == ready.size() || goes_first(state.mood.pick, *ready[i], *ready[best], seen))
            best = i;
    }
    if (best == ready.size()) return nullptr;
    state.mood.left--;
    WorkPtr taken = std::move(ready[best]);
    ready[best] = std::move(ready.back());
    ready.pop_back();
    return taken;
}

/* At most `count` items, for as long as there are any that may run. */
void run_items(size_t count, const Turn &turn)
{
    if (queue().ready.empty()) return;
    device_open();
    while (count-- > 0 && !queue().ready.empty()) {
        WorkPtr next = take_next(turn);
        if (!next) break;
        execute(next);
    }
    device_close();
}

} // namespace

WorkPtr add_work(unsigned stream, const char *name, Action action, bool on_host,
                 const std::vector<WorkPtr> &after)
{
    Queue &state = queue();
    if (state.pending >= MOST_PENDING) run_items(MOST_PENDING / 2, Turn{++state.wait, true});
    auto work = std::make_shared<Work>();
    work->name = name;
    work->action = std::move(action);
    work->on_host = on_host;
    work->stream = stream;
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
    Turn turn = {++queue().wait, false};
    mark_needed(work, turn.wait);
    device_open();
    while (!work->done) execute(take_next(turn));
    device_close();
}

void run_some(const WorkPtr &work)
{
    Turn turn = {++queue().wait, false};
    if (work) mark_needed(work, turn.wait);
    run_items(random_below(4), turn);
}

void run_meanwhile()
{
    if (random_below(16) != 0) return;
    Turn turn = {++queue().wait, false};
    run_items(1 + random_below(queue().mood.eager ? 64 : 4), turn);
}

void run_all()
{
    run_items((size_t)-1, Turn{++queue().wait, true});
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
