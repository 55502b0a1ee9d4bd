/* The report's photos: each is embedded once, as an SVG symbol holding a small JPEG, and shown any
 * number of times by reference. */
#ifndef CT_TRAIN_REPORT_THUMBS_H
#define CT_TRAIN_REPORT_THUMBS_H

#include <stdio.h>

#include "data/dataset.h"

typedef struct ct_thumbs ct_thumbs;

/* The dataset is borrowed. */
CT_NODISCARD ct_status ct_thumbs_create(const ct_dataset *dataset, ct_thumbs **out);
void ct_thumbs_destroy(ct_thumbs *thumbs);

/* Notes that a photo of the dataset will be shown. */
void ct_thumbs_want(ct_thumbs *thumbs, int32_t photo);

/* Embeds the photos wanted: the centre square, at most 160 pixels a side. One that cannot be read
 * is left out. */
CT_NODISCARD ct_status ct_thumbs_embed(ct_thumbs *thumbs, FILE *stream);

/* The photo, or a grey tile with its name if it was not embedded. */
void ct_thumbs_show(const ct_thumbs *thumbs, FILE *stream, int32_t photo);

#endif
