/* Which photo trains, validates or tests. */
#ifndef CT_DATA_SPLIT_H
#define CT_DATA_SPLIT_H

#include "data/dataset.h"

/* Sets the photos' splits from the config's lists, or by its seed. CT_ERR_CONFIG or CT_ERR_FORMAT
 * when nothing is left to train on, or a list names a photo that has no captions or that another
 * list names. */
CT_NODISCARD ct_status ct_split_assign(ct_dataset *dataset, const ct_config *config);

#endif
