/* Several ranks against one: each rank also computes what one rank makes of the whole batch, and
 * compares. Run by an MPI launcher, all ranks alike. A check that fails ends the process with
 * status 1, and with it the job. */
#ifndef CT_TESTS_RANKS_H
#define CT_TESTS_RANKS_H

#include "model/clip.h"
#include "model/optimizer.h"

/* Ends the process when `status` is a failure. */
void must(ct_status status);
void check(int holds, const char *format, ...) CT_PRINTF(2, 3);

/* A device with this rank's communicator, and one by itself. */
void open_ranks(int *argc, char ***argv);
ct_device *device_of_rank(void);
ct_device *device_alone(void);
void close_ranks(void);

/* One variant of a model: assignments of configuration keys beside the common ones. */
typedef struct variant {
    const char *name;
    const char *keys[8];
    double limit; /* of a gradient's relative difference; 0: twice what another order costs */
} variant;

typedef struct model {
    ct_config *config;
    ct_clip *clip;
    ct_optimizer *optimizer;
} model;

/* micro: train.micro_batch_size. batch: pairs that this device sees. */
void model_open(const variant *v, ct_device *device, int batch, int micro, model *out);
void model_close(model *m);

enum { BATCH = 48, SIZE = 32, VOCABULARY = 50, LONGEST = 12, STEPS = 50 };

/* Pairs of pure chance, different in each step; some photos are there twice. */
typedef struct pairs {
    uint8_t images[BATCH * SIZE * SIZE * 3];
    int32_t tokens[BATCH * LONGEST], positions[BATCH * LONGEST], cu_seqlens[BATCH + 1];
    int32_t photo_ids[BATCH];
} pairs;
void draw_pairs(int step, pairs *out);
void swap_halves(const pairs *p, pairs *out);

/* Forward and backward of pairs [first, first + count), and an update. */
void run_backward(model *m, const pairs *p, int first, int count, int step);
void run_update(model *m, int step);
float loss_of(model *m);

#endif
