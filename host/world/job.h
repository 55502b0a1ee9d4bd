/* The ranks of a job as processes: they meet once, agree on small numbers each step, and learn of
 * each other's failure. Tensors travel by other ways (comm.h).
 *
 * A star of TCP connections around rank 0. A thread of each rank watches them:
 * - a rank that fails says why, and all others learn it;
 * - a connection that closes without a goodbye is a rank that died;
 * - each side sends a sign of life every second; `timeout_seconds` without one is a machine or a
 *   network that is gone;
 * - rank 0 knows who has not come to an agreement; after timeout_seconds it names them.
 * The first failure is kept, told to all, and `on_failure` is called once, from a thread of its
 * own. A process that has not come to ct_job_leave `grace_seconds` after that is ended with
 * status 1.
 *
 * One message is printed for the whole job, by ct_job_fail's rank or, for a death, by rank 0 (by
 * rank 1 when it is rank 0 that died): "rank 3 on host-b: ...". Ranks that were started by our own
 * launcher leave deaths to it. A meeting that fails is not a job yet: every rank has its message.
 *
 * One thread of a process calls these functions; ct_job_fail and ct_job_told any thread may. */
#ifndef CT_WORLD_JOB_H
#define CT_WORLD_JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "world/world.h"

typedef struct ct_job ct_job;

typedef struct ct_job_options {
    double timeout_seconds; /* for meeting, for signs of life, for agreements */
    double grace_seconds;
    /* All ranks must have the same; a rank with another one is refused by name. */
    uint64_t config_hash;
    const char *version;
} ct_job_options;

/* Meets the others at world->master:port, within timeout_seconds (looking up the host's name not
 * counted: the resolver has its own limits). Call it while SIGINT still ends the process: it may
 * take that long. `options->version` need not outlive the call. With a world of one rank *out is
 * NULL, and all functions take NULL for such a job. CT_ERR_IO when not all came in time: says which
 * ranks are missing; CT_ERR_CONFIG when configurations, versions or numbers of ranks differ, when a
 * rank comes twice, or when it is not known where rank 0 is; CT_ERR_ARGUMENT for another job's
 * token. */
CT_NODISCARD ct_status ct_job_meet(const ct_world *world, const ct_job_options *options,
                                   ct_job **out);

/* Says goodbye, unless the job has failed, and ends the thread. Rank 0 waits for the others'
 * goodbyes, for timeout_seconds at most: to them its end would be a death. The last call of a job,
 * after its communicator is gone: nothing ends a process that hangs later. NULL is fine. */
void ct_job_leave(ct_job *job);

/* Called once, from a thread of its own, when any rank fails, before others' waits time out. Set it
 * before the first collective; a failure that came earlier calls it at once, from this thread. NULL
 * takes it back, and waits for a call that is under way: do so before destroying the context. */
void ct_job_on_failure(ct_job *job, void (*call)(void *context), void *context);

/* numbers[i] = the greatest of the ranks' numbers[i], i < count <= 8. Every rank calls it, in the
 * same order. Fails with CT_ERR_DEVICE when the job has failed, which it does when not all ranks
 * have come timeout_seconds after the first. */
CT_NODISCARD ct_status ct_job_agree(ct_job *job, int64_t *numbers, int count);

/* bytes of rank 0 to all: NCCL's unique id. Up to 4096 bytes. Every rank calls it, as above. */
CT_NODISCARD ct_status ct_job_broadcast(ct_job *job, void *data, size_t bytes);

/* From true to false this rank does something that may take longer than timeout_seconds (reads a
 * checkpoint, validates): agreements that it is missing from do not time out meanwhile. It must
 * still give signs of life. */
void ct_job_busy(ct_job *job, bool busy);

/* This rank cannot go on; the thread's present message says why. Tells all others, and makes the
 * message "rank R on HOST: ...". When the job has failed before, because of another rank, sets the
 * message of that failure. Returns `status`. */
CT_NODISCARD ct_status ct_job_fail(ct_job *job, ct_status status);

/* Whether the failure's message is another rank's, or the launcher's, to print: this process then
 * ends without a word. */
bool ct_job_told(const ct_job *job);

#endif
