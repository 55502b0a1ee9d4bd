/* Captioned photos: a captions file read into photos with their captions, split by photo.
 *
 *   photo[p]   { file name, first caption, number of captions, split }
 *   caption[c] { text, photo }        captions of a photo are consecutive, in file order
 *
 * Photos are in order of first appearance in the file. Nothing is decoded here. */
#ifndef CT_DATA_DATASET_H
#define CT_DATA_DATASET_H

#include <stdint.h>

#include "base/status.h"
#include "config/config.h"

typedef enum ct_split {
    CT_SPLIT_TRAIN,
    CT_SPLIT_VALIDATION,
    CT_SPLIT_TEST,
    CT_SPLIT_NONE
} ct_split;

typedef struct ct_photo {
    const char *name; /* as in the captions file; the file is <images>/<name> */
    int32_t first_caption, caption_count;
    ct_split split;
} ct_photo;

typedef struct ct_caption {
    const char *text; /* UTF-8 as in the file, quotes undone, outer white space trimmed */
    int32_t photo;
} ct_caption;

typedef struct ct_dataset {
    ct_photo *photos;
    ct_caption *captions;
    int32_t photo_count, caption_count;
    int32_t skipped_rows; /* malformed rows left out */
    char *images;         /* folder */
    void *pool;           /* the strings: the captions file, cut up in place */
} ct_dataset;

/* Reads the captions file (format given or told from its first line) and assigns splits: from the
 * lists if the config names them (a listed name without captions, or one in two lists, is an
 * error; photos in none are CT_SPLIT_NONE), else by seed. A malformed row (no separator, empty
 * name or caption, unbalanced quote, bytes that are not UTF-8, a name that leads out of the folder
 * of photos) is reported with its line and skipped (from the 21st on without a report); more of
 * them than data.max_bad_share is an error, as is nothing to train on. By seed, a share above 0 is
 * at least one photo. A photo whose file is not there is not looked for here. */
CT_NODISCARD ct_status ct_dataset_open(const ct_config *config, ct_dataset **out);
void ct_dataset_destroy(ct_dataset *dataset);

/* The parser alone, for tests and the fuzzer: `text` is the file's contents. Splits are NONE. */
CT_NODISCARD ct_status ct_dataset_parse(const char *text, size_t size, const char *name,
                                        ct_captions_format format, double max_bad_share,
                                        ct_dataset **out);

/* *photos = indices of the split's photos, ascending; freed with free(). */
CT_NODISCARD ct_status ct_dataset_photos(const ct_dataset *dataset, ct_split split,
                                         int32_t **photos, int32_t *count);

/* "train", "validation", "test". */
const char *ct_split_name(ct_split split);

#endif
