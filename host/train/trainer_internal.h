/* A run in progress, shared by trainer.c (the loop), trainer_setup.c (building and resuming) and
 * trainer_output.c (checkpoints, validation, report). */
#ifndef CT_TRAIN_TRAINER_INTERNAL_H
#define CT_TRAIN_TRAINER_INTERNAL_H

#include "loader/loader.h"
#include "model/clip.h"
#include "model/optimizer.h"
#include "train/corpus.h"
#include "train/metrics.h"
#include "train/progress.h"
#include "train/trainer.h"

typedef struct ct_trainer {
    const ct_train_options *options;
    const ct_config *config;
    ct_tokenizer *tokenizer;
    ct_corpus *corpus;
    ct_clip *clip;
    ct_optimizer *optimizer;
    ct_loader *loader;
    ct_metrics *metrics;
    ct_progress progress;
    int64_t first_step; /* optimiser steps done when this process took over */
    int64_t step;       /* optimiser steps done */
    bool stop;          /* some rank was asked to stop: all do, before the next step */
    bool staged;        /* the batch of the next step is on the device already */
    int64_t epoch;      /* of the batch staged last */
    int64_t total_steps, steps_per_epoch;
    int64_t checkpoint_step; /* of the last checkpoint written or resumed from; -1: none */
    int64_t skipped_in_row;  /* steps whose gradients were not finite */
    double recall10;         /* of the last validation, percent; -1: none yet */
    double start_seconds;    /* clock at the first step */
    double photos_per_second, data_wait_share; /* smoothed, for the progress line */
    ct_comm_stats comm_stats;                  /* at the last record */
} ct_trainer;

static inline ct_comm *ct_trainer_comm(const ct_trainer *trainer)
{
    return trainer->options->device->comm;
}

/* Rank 0 writes the run's files and speaks for all. */
static inline bool ct_trainer_leads(const ct_trainer *trainer)
{
    return ct_comm_rank(ct_trainer_comm(trainer)) == 0;
}

/* Builds everything and restores the checkpoint, up to the first step. */
CT_NODISCARD ct_status ct_trainer_open(const ct_train_options *options, ct_trainer *trainer);
void ct_trainer_close(ct_trainer *trainer);

CT_NODISCARD ct_status ct_trainer_save(ct_trainer *trainer);

/* Recall on the validation split, into the metrics and report.html. */
CT_NODISCARD ct_status ct_trainer_validate(ct_trainer *trainer);

#endif
