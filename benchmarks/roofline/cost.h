/* What an operation of op.h costs at least: bytes that must cross device memory, each tensor once a
 * direction, and floating-point operations of its products (a multiply-add is 2). */
#ifndef CT_BENCHMARKS_ROOFLINE_COST_H
#define CT_BENCHMARKS_ROOFLINE_COST_H

#include "op.h"

typedef struct ct_cost {
    double read_bytes, written_bytes;
    double flops;     /* of products only: what tensor cores do */
    int64_t shape[4]; /* of the main output, for the table */
    int rank;
    ct_dtype dtype; /* of the products' inputs */
} ct_cost;

ct_cost ct_cost_of(ct_op op, const void *args);

#endif
