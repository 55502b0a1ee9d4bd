/* The report's gallery: captions with the photos found for them, and photos with captions. */
#ifndef CT_TRAIN_REPORT_GALLERY_H
#define CT_TRAIN_REPORT_GALLERY_H

#include <stdio.h>

#include "train/report.h"

/* input->retrieval must be there. */
CT_NODISCARD ct_status ct_gallery_write(FILE *stream, const ct_report_input *input);

#endif
