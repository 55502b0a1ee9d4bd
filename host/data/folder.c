#include "data/folder.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/memory.h"

/* The names found, one behind the other with their NULs: the pool of the dataset to be. */
typedef struct name_list {
    char *pool;
    size_t bytes, capacity;
    int32_t count;
} name_list;

static bool is_jpeg(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && dot != name && (strcasecmp(dot, ".jpg") == 0 || strcasecmp(dot, ".jpeg") == 0);
}

static ct_status list_names(const char *folder, name_list *names)
{
    DIR *directory = opendir(folder);
    if (!directory) return ct_fail_errno(CT_ERR_IO, "%s: cannot open the folder", folder);
    ct_status status = CT_OK;
    for (struct dirent *entry; status == CT_OK && (entry = readdir(directory));) {
        size_t bytes = strlen(entry->d_name) + 1;
        if (!is_jpeg(entry->d_name)) continue;
        status = ct_grow(&names->pool, &names->capacity, names->bytes + bytes, 1, "file names");
        if (status != CT_OK) break;
        memcpy(names->pool + names->bytes, entry->d_name, bytes);
        names->bytes += bytes;
        names->count++;
    }
    closedir(directory);
    if (status == CT_OK && names->count == 0)
        return ct_fail(CT_ERR_IO, "%s: expected .jpg or .jpeg files, found none", folder);
    return status;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const ct_photo *)a)->name, ((const ct_photo *)b)->name);
}

ct_status ct_dataset_open_folder(const char *folder, ct_dataset **out)
{
    name_list names = {0};
    ct_dataset *dataset;
    CT_TRY(ct_alloc(1, sizeof *dataset, "the data set", &dataset));
    ct_status status = list_names(folder, &names);
    dataset->pool = names.pool;
    if (status == CT_OK) status = ct_strdup(folder, &dataset->images);
    if (status == CT_OK)
        status =
            ct_alloc((size_t)names.count, sizeof *dataset->photos, "the photos", &dataset->photos);
    if (status != CT_OK) {
        ct_dataset_destroy(dataset);
        return status;
    }
    const char *name = names.pool;
    for (int32_t p = 0; p < names.count; p++, name += strlen(name) + 1)
        dataset->photos[p] = (ct_photo){.name = name, .split = CT_SPLIT_NONE};
    dataset->photo_count = names.count;
    qsort(dataset->photos, (size_t)names.count, sizeof *dataset->photos, by_name);
    *out = dataset;
    return CT_OK;
}
