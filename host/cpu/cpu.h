/* The CPU backend: oneDNN for convolutions and matrix products, OpenMP and vector code for the
 * rest. f32. Results depend on the number of threads (the order of sums), not on timing: two runs
 * with equal thread counts on one machine give equal bits. */
#ifndef CT_CPU_CPU_H
#define CT_CPU_CPU_H

#include "op.h"

/* threads: 0 = all processors this process may use. */
CT_NODISCARD ct_status ct_cpu_device_create(int threads, ct_device **out);

/* Processors this process may run on (affinity and cgroup quota respected). */
int ct_cpu_count(void);

#endif
