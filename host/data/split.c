#include "data/split.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/rng.h"
#include "config/text.h"
#include "data/names.h"

#define MAX_LIST_BYTES (256 << 20)

/* Below 1 a share of the photos, rounded, but at least one; from 1 on their number. */
static int64_t part_size(double part, int32_t photos)
{
    if (part <= 0) return 0;
    if (part >= 1) return (int64_t)part;
    int64_t size = (int64_t)(part * photos + 0.5);
    return size ? size : 1;
}

static ct_status split_by_seed(ct_dataset *dataset, const ct_config *config)
{
    int32_t count = dataset->photo_count, *order;
    int64_t validation = part_size(config->data.validation, count);
    int64_t test = part_size(config->data.test, count);
    if (validation + test >= count)
        return ct_fail(CT_ERR_CONFIG,
                       "data.validation and data.test: %lld and %lld of %d photos leave nothing to "
                       "train on",
                       (long long)validation, (long long)test, count);
    CT_TRY(ct_alloc((size_t)count, sizeof *order, "the split", &order));
    ct_rng_permute(ct_rng_make((uint64_t)config->data.split_seed, CT_RNG_SPLIT, 0, 0), order,
                   count);
    for (int32_t i = 0; i < count; i++)
        dataset->photos[order[i]].split = i < validation          ? CT_SPLIT_VALIDATION
                                          : i < validation + test ? CT_SPLIT_TEST
                                                                  : CT_SPLIT_TRAIN;
    free(order);
    return CT_OK;
}

/* One line of a list. */
static ct_status assign(ct_dataset *dataset, const ct_names *names, const char *path, size_t line,
                        const char *name, ct_split split)
{
    char excerpt[CT_EXCERPT_BYTES];
    int32_t photo = ct_names_find(names, dataset->photos, name);
    ct_excerpt(name, strlen(name), excerpt);
    if (photo < 0)
        return ct_fail(CT_ERR_FORMAT, "%s:%zu: the photo \"%s\" has no captions", path, line,
                       excerpt);
    ct_split *held = &dataset->photos[photo].split;
    if (*held != CT_SPLIT_NONE && *held != split)
        return ct_fail(CT_ERR_FORMAT, "%s:%zu: the photo \"%s\" is in the %s list too", path, line,
                       excerpt, ct_split_name(*held));
    *held = split;
    return CT_OK;
}

static ct_status read_list(ct_dataset *dataset, const ct_names *names, const char *path,
                           ct_split split)
{
    static const char white[] = " \t\r\v\f";
    char *text, *name;
    size_t size, line = 0;
    if (!*path) return CT_OK;
    CT_TRY(ct_file_read(path, MAX_LIST_BYTES, &text, &size));
    ct_status status = CT_OK;
    if (!ct_is_utf8(text, size)) status = ct_fail(CT_ERR_FORMAT, "%s: expected UTF-8 text", path);
    char *rest = strncmp(text, "\xEF\xBB\xBF", 3) == 0 ? text + 3 : text;
    while (status == CT_OK && (name = strsep(&rest, "\n"))) {
        line++;
        name += strspn(name, white);
        size_t length = strlen(name);
        while (length && strchr(white, name[length - 1])) length--;
        name[length] = '\0';
        if (length) status = assign(dataset, names, path, line, name, split);
    }
    free(text);
    return status;
}

static ct_status read_lists(ct_dataset *dataset, const ct_config *config, ct_names *names)
{
    while (names->count < dataset->photo_count) CT_TRY(ct_names_add(names, dataset->photos));
    CT_TRY(read_list(dataset, names, config->data.train_list, CT_SPLIT_TRAIN));
    CT_TRY(read_list(dataset, names, config->data.validation_list, CT_SPLIT_VALIDATION));
    CT_TRY(read_list(dataset, names, config->data.test_list, CT_SPLIT_TEST));
    for (int32_t i = 0; i < dataset->photo_count; i++)
        if (dataset->photos[i].split == CT_SPLIT_TRAIN) return CT_OK;
    return ct_fail(CT_ERR_FORMAT, "%s: expected names of photos, one a line, found none",
                   config->data.train_list);
}

ct_status ct_split_assign(ct_dataset *dataset, const ct_config *config)
{
    if (!*config->data.train_list && !*config->data.validation_list && !*config->data.test_list)
        return split_by_seed(dataset, config);
    ct_names names = {0};
    ct_status status = read_lists(dataset, config, &names);
    ct_names_free(&names);
    return status;
}
