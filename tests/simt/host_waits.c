/* A GPU computes on while the host waits for other ranks; the SIMT device has only the host's
 * thread. A rank that waits for an agreement while another one's device waits for its part in a
 * collective would wait for ever: so its device catches up first. Programs of several ranks are
 * linked with these instead of the functions themselves (-Wl,--wrap). */
#include "world/job.h"

void simt_catch_up(void); /* nccl.h */

ct_status __real_ct_job_agree(ct_job *job, int64_t *numbers, int count);
ct_status __wrap_ct_job_agree(ct_job *job, int64_t *numbers, int count);
ct_status __real_ct_job_broadcast(ct_job *job, void *data, size_t bytes);
ct_status __wrap_ct_job_broadcast(ct_job *job, void *data, size_t bytes);

ct_status __wrap_ct_job_agree(ct_job *job, int64_t *numbers, int count)
{
    if (job) simt_catch_up();
    return __real_ct_job_agree(job, numbers, count);
}

ct_status __wrap_ct_job_broadcast(ct_job *job, void *data, size_t bytes)
{
    if (job) simt_catch_up();
    return __real_ct_job_broadcast(job, data, bytes);
}
