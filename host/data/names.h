/* Photo names to photo indices: an open-addressing hash table (linear probing, at most half full)
 * whose entries point into the dataset's photos. */
#ifndef CT_DATA_NAMES_H
#define CT_DATA_NAMES_H

#include "data/dataset.h"

typedef struct ct_names {
    struct ct_names_slot {
        uint32_t hash;
        int32_t photo; /* index + 1; 0: free */
    } * slots;
    uint32_t capacity; /* a power of two */
    int32_t count;
} ct_names;

/* Index of the photo of that name, or -1. */
int32_t ct_names_find(const ct_names *names, const ct_photo *photos, const char *name);

/* Adds photos[names->count], whose name must not be there. */
CT_NODISCARD ct_status ct_names_add(ct_names *names, const ct_photo *photos);

void ct_names_free(ct_names *names);

#endif
