/* Kernels' registers and shared memory as scripts/check-kernels.sh lists them, and the occupancy
 * that follows (CUDA C++ Programming Guide, "Multiprocessor Level"). */
#ifndef CT_BENCHMARKS_ROOFLINE_KERNEL_TABLE_H
#define CT_BENCHMARKS_ROOFLINE_KERNEL_TABLE_H

#include "base/memory.h"

typedef struct ct_kernel_use {
    char name[160];
    int registers;    /* a thread */
    int shared_bytes; /* static, a block */
} ct_kernel_use;

typedef struct ct_kernel_table {
    ct_kernel_use *items;
    size_t count, capacity;
} ct_kernel_table;

/* Reads the lines of sm_90 of a tab-separated table. */
CT_NODISCARD ct_status ct_kernel_table_load(const char *path, ct_kernel_table *table);
void ct_kernel_table_free(ct_kernel_table *table);

/* NULL: not in the table. */
const ct_kernel_use *ct_kernel_find(const ct_kernel_table *table, const char *name);

/* Share of the 64 warps of an H100's multiprocessor (65,536 registers in units of 256 a warp, 227
 * KiB of shared memory with 1 KiB kept a block, 32 blocks) that can be resident. */
double ct_kernel_occupancy(const ct_kernel_use *use, unsigned threads, size_t dynamic_shared_bytes);

#endif
