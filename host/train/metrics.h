/* metrics.jsonl: one JSON object a line, appended and flushed as training goes. On resume, lines of
 * steps past the checkpoint are dropped first, so a resumed run's file equals an unbroken one's in
 * everything but times.
 *   {"event":"train","step":12,"epoch":0,"loss":..,"logit_scale":..,"lr_factor":..,"grad_norm":..,
 *    "photos_per_second":..,"data_wait_share":..}
 *    and with several ranks "ranks":..,"photos_per_second_per_rank":..,"comm_exposed_share":..,
 *    "reduced_bytes":..
 *   {"event":"validation","step":..,"epoch":..,"image_to_text":{"r1":..,"r5":..,"r10":..,
 *    "median_rank":..,"mean_rank":..},"text_to_image":{...},"photos":..,"captions":..} */
#ifndef CT_TRAIN_METRICS_H
#define CT_TRAIN_METRICS_H

#include "train/retrieval.h"

typedef struct ct_metrics ct_metrics;

typedef struct ct_step_record {
    int64_t step, epoch; /* optimiser steps done; epoch from 0 */
    double loss, logit_scale, lr_factor, grad_norm;
    double photos_per_second, data_wait_share; /* since the last record; share in [0, 1] */
    /* With several ranks (else ranks is 0 or 1, and not written): share of the time in which
     * computing waited for collectives, and bytes that this rank put into sums. */
    int ranks;
    double comm_exposed_share, reduced_bytes;
} ct_step_record;

typedef struct ct_validation_record {
    int64_t step, epoch;
    ct_recall image_to_text, text_to_image;
    int32_t photos, captions;
} ct_validation_record;

/* Opens <path> for appending after keeping only records with step <= keep_step (a line cut short
 * by a crash is dropped too). keep_step < 0 starts an empty file. */
CT_NODISCARD ct_status ct_metrics_open(const char *path, int64_t keep_step, ct_metrics **out);
void ct_metrics_close(ct_metrics *metrics);

/* Makes room for so many records in all, so that writing up to that many allocates nothing. */
CT_NODISCARD ct_status ct_metrics_reserve(ct_metrics *metrics, int64_t steps, int64_t validations);

/* The records are also kept in memory for the report. */
CT_NODISCARD ct_status ct_metrics_step(ct_metrics *metrics, const ct_step_record *record);
CT_NODISCARD ct_status ct_metrics_validation(ct_metrics *metrics,
                                             const ct_validation_record *record);

int64_t ct_metrics_steps(const ct_metrics *metrics, const ct_step_record **records);
int64_t ct_metrics_validations(const ct_metrics *metrics, const ct_validation_record **records);

#endif
