/* A folder of one's own photos, without captions. */
#ifndef CT_DATA_FOLDER_H
#define CT_DATA_FOLDER_H

#include "data/dataset.h"

/* Every .jpg and .jpeg file (in any case) of the folder, sorted by name, in split CT_SPLIT_NONE.
 * Subfolders are not entered. None at all is an error. */
CT_NODISCARD ct_status ct_dataset_open_folder(const char *folder, ct_dataset **out);

#endif
