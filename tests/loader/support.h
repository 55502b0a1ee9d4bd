/* A small world for the tests of the loader: a data set of tiny photos, captions, tokens. */
#ifndef CT_TESTS_LOADER_SUPPORT_H
#define CT_TESTS_LOADER_SUPPORT_H

#include "../support.h"
#include "loader/loader.h"

enum {
    PHOTOS = 43,
    CAPTIONS_A_PHOTO = 2,
    CAPTIONS = PHOTOS * CAPTIONS_A_PHOTO,
    BATCH = 8,
    SIZE = 32,
    IMAGE_BYTES = SIZE * SIZE * 3,
    MOST_TOKENS = 9
};

typedef struct world {
    ct_config config;
    ct_dataset dataset;
    ct_photo photos[PHOTOS];
    ct_caption captions[CAPTIONS];
    ct_token_store store;
    int32_t ids[CAPTIONS * MOST_TOKENS];
    int64_t offset[CAPTIONS + 1];
    int32_t all[PHOTOS]; /* 0, 1, 2, ... */
} world;

void world_init(world *w);

/* Lets photo `index` be a file that cannot be read. */
void world_break(world *w, int32_t index, const char *name);

/* A training or evaluation loader over all photos with that many workers and batches. */
ct_loader *start_training(world *w, int64_t workers, int64_t prefetch, int64_t first_step);
ct_loader *start_share(world *w, int64_t workers, int64_t first_step, ct_loader_share share);
ct_loader *start_evaluation(world *w, int64_t workers, int64_t prefetch);

/* The next batch, which must come. */
const ct_batch *next_batch(ct_loader *loader);

/* A number that stands for everything a batch holds. */
uint64_t digest(const ct_batch *batch);

int run_training_tests(void);
int run_evaluation_tests(void);
int run_bad_photo_tests(void);
int run_thread_tests(void);

#endif
