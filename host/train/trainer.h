/* Training from a configuration to a folder with checkpoints, metrics and a report. */
#ifndef CT_TRAIN_TRAINER_H
#define CT_TRAIN_TRAINER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/interrupt.h"
#include "config/config.h"
#include "op.h"
#include "world/job.h"

typedef enum ct_start {
    CT_START_NEW,       /* the output folder must not hold a run */
    CT_START_OVERWRITE, /* a run that is there is removed */
    CT_START_RESUME     /* goes on from the newest checkpoint there; starts anew if there is none */
} ct_start;

typedef struct ct_train_options {
    const ct_config *config;
    const char *title; /* of the report: the configuration's file name */
    ct_start start;
    const char *resume_path; /* CT_START_RESUME: this checkpoint instead of the newest; NULL */
    int64_t stop_at;         /* writes a checkpoint and stops after that many steps; 0: never */
    int threads;             /* compute threads */
    ct_device *device;       /* borrowed; with its communicator when there are several ranks */
    ct_job *job;             /* borrowed; NULL: one rank */
    ct_interrupt *interrupt; /* may be NULL */
} ct_train_options;

/* With several ranks all call it alike; rank 0 alone writes files, draws progress and reports.
 * CT_ERR_INTERRUPTED when the user stopped it: a checkpoint has then been written. */
CT_NODISCARD ct_status ct_train(const ct_train_options *options);

#endif
