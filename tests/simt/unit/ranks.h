/* Processes of one job, for tests: each a child with an environment and a seed of its own. */
#ifndef CT_TESTS_SIMT_UNIT_RANKS_H
#define CT_TESTS_SIMT_UNIT_RANKS_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RANKS_MOST 8

typedef struct ranks_ending {
    int status;        /* exit status; 1000 + signal when one ended it */
    char errors[8192]; /* what it wrote to standard error */
} ranks_ending;

typedef struct ranks_options {
    int size;
    unsigned seed;
    unsigned delay_us;   /* SIMT_NCCL_DELAY_US */
    unsigned timeout_ms; /* SIMT_NCCL_TIMEOUT_MS; 0: 30 s */
} ranks_options;

/* What the body of a child may return, or call exit with. */
typedef int ranks_body(int rank, int size, const void *context);

/* Runs `body` in options->size children, rank by rank, and waits for all. */
void ranks_run(const ranks_options *options, ranks_body *body, const void *context,
               ranks_ending *endings);

/* In a child: rank 0's data (at most 4096 bytes, once a run) for all. */
void ranks_broadcast(int rank, void *data, size_t bytes);

/* All children must end well. */
void ranks_expect_success(const ranks_options *options, ranks_body *body, const void *context);
/* At least one must end by a SIMT fault that contains `text`; the others may end as they like. */
void ranks_expect_fault(const ranks_options *options, const char *text, ranks_body *body,
                        const void *context);

#ifdef __cplusplus
}
#endif

#endif
