/* report.html: one self-contained file (no network, no scripts needed to read it) with the run's
 * facts, loss and recall curves as inline SVG, the recall table, and a gallery: captions with
 * their top-5 photos and photos with their top-5 captions, right answers marked. Photos are
 * embedded as small JPEG thumbnails (data: URIs). All user text is escaped. */
#ifndef CT_TRAIN_REPORT_H
#define CT_TRAIN_REPORT_H

#include "data/dataset.h"
#include "train/metrics.h"
#include "train/retrieval.h"

typedef struct ct_report_input {
    const char *title;             /* e.g. the configuration's file name */
    const char *const *fact_names; /* "device", "parameters", "images", ... */
    const char *const *fact_values;
    int fact_count;
    const ct_step_record *steps; /* may be empty */
    int64_t step_count;
    const ct_validation_record *validations;
    int64_t validation_count;
    const ct_retrieval *retrieval; /* of the last validation; NULL: none yet, and the next three
                                      are not looked at */
    const ct_dataset *dataset;
    const int32_t *photos;   /* (retrieval->images) row -> dataset photo */
    const int32_t *captions; /* (retrieval->texts) row -> dataset caption */
    int32_t gallery;         /* queries shown a direction, chosen evenly over the split */
    const char *split;       /* "validation" */
} ct_report_input;

CT_NODISCARD ct_status ct_report_write(const char *path, const ct_report_input *input);

#endif
