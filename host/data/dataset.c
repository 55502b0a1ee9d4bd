#include "data/dataset.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "data/names.h"
#include "data/rows.h"
#include "data/split.h"

/* So that counts and offsets fit in 32 bits. */
#define MAX_CAPTIONS_BYTES INT32_MAX

/* More malformed rows than this are only counted. */
#define MAX_REPORTED_ROWS 20

/* A dataset in the making; captions are in file order until the end. */
typedef struct builder {
    ct_dataset *dataset;
    const char *name; /* of the file */
    size_t photo_capacity, caption_capacity;
    ct_names names;
    size_t first_bad_line;
    const char *first_problem;
} builder;

static void report_bad_row(builder *b, const ct_row *row)
{
    int32_t count = ++b->dataset->skipped_rows;
    if (count == 1) {
        b->first_bad_line = row->line;
        b->first_problem = row->problem;
    }
    if (count <= MAX_REPORTED_ROWS)
        ct_log(CT_LOG_WARNING, "%s:%zu: %s; the row is left out", b->name, row->line, row->problem);
    else if (count == MAX_REPORTED_ROWS + 1)
        ct_log(CT_LOG_WARNING, "%s: further malformed rows are left out without a word", b->name);
}

/* Index of the row's photo, made if it is new. Captions of a photo mostly follow each other, so the
 * last photo is tried first. */
static ct_status photo_of(builder *b, const ct_row *row, int32_t *out)
{
    ct_dataset *d = b->dataset;
    int32_t last = d->caption_count ? d->captions[d->caption_count - 1].photo : -1;
    if (last >= 0 && strcmp(d->photos[last].name, row->photo) == 0) {
        *out = last;
        return CT_OK;
    }
    *out = ct_names_find(&b->names, d->photos, row->photo);
    if (*out >= 0) return CT_OK;
    CT_TRY(ct_grow(&d->photos, &b->photo_capacity, (size_t)d->photo_count + 1, sizeof *d->photos,
                   "the photos"));
    d->photos[d->photo_count] = (ct_photo){.name = row->photo, .split = CT_SPLIT_NONE};
    *out = d->photo_count++;
    return ct_names_add(&b->names, d->photos);
}

static ct_status add_row(builder *b, const ct_row *row)
{
    ct_dataset *d = b->dataset;
    int32_t photo;
    CT_TRY(photo_of(b, row, &photo));
    CT_TRY(ct_grow(&d->captions, &b->caption_capacity, (size_t)d->caption_count + 1,
                   sizeof *d->captions, "the captions"));
    d->captions[d->caption_count++] = (ct_caption){row->caption, photo};
    d->photos[photo].caption_count++;
    return CT_OK;
}

/* Brings the captions of each photo together: a counting sort, so file order is kept within. */
static ct_status group_captions(ct_dataset *d)
{
    ct_caption *grouped;
    CT_TRY(ct_alloc((size_t)d->caption_count, sizeof *grouped, "the captions", &grouped));
    int32_t first = 0;
    for (int32_t p = 0; p < d->photo_count; p++) {
        d->photos[p].first_caption = first;
        first += d->photos[p].caption_count;
        d->photos[p].caption_count = 0;
    }
    for (int32_t c = 0; c < d->caption_count; c++) {
        ct_photo *photo = &d->photos[d->captions[c].photo];
        grouped[photo->first_caption + photo->caption_count++] = d->captions[c];
    }
    free(d->captions);
    d->captions = grouped;
    return CT_OK;
}

static ct_status check_share(const builder *b, double max_bad_share)
{
    int32_t bad = b->dataset->skipped_rows, rows = b->dataset->caption_count + bad;
    if (bad > max_bad_share * rows)
        return ct_fail(CT_ERR_FORMAT,
                       "%s: %d of %d rows are malformed, more than data.max_bad_share (%g) allows; "
                       "the first on line %zu: %s",
                       b->name, bad, rows, max_bad_share, b->first_bad_line, b->first_problem);
    if (!b->dataset->caption_count)
        return ct_fail(CT_ERR_FORMAT, "%s: expected captions, found none", b->name);
    return CT_OK;
}

static ct_status read_rows(builder *b, size_t size, ct_captions_format format, double max_bad_share)
{
    ct_row_reader reader;
    ct_row row;
    CT_TRY(ct_rows_start(&reader, b->dataset->pool, size, b->name, format));
    while (ct_rows_next(&reader, &row)) {
        if (row.problem) report_bad_row(b, &row);
        else CT_TRY(add_row(b, &row));
    }
    CT_TRY(check_share(b, max_bad_share));
    return group_captions(b->dataset);
}

/* Takes over `text` (size bytes and a NUL), which becomes the pool of strings. */
static ct_status build(char *text, size_t size, const char *name, ct_captions_format format,
                       double max_bad_share, const char *images, ct_dataset **out)
{
    builder b = {.name = name};
    ct_status status = ct_alloc(1, sizeof *b.dataset, "the data set", &b.dataset);
    if (status != CT_OK) {
        free(text);
        return status;
    }
    b.dataset->pool = text;
    status = ct_strdup(images, &b.dataset->images);
    if (status == CT_OK) status = read_rows(&b, size, format, max_bad_share);
    ct_names_free(&b.names);
    if (status == CT_OK) *out = b.dataset;
    else ct_dataset_destroy(b.dataset);
    return status;
}

ct_status ct_dataset_parse(const char *text, size_t size, const char *name,
                           ct_captions_format format, double max_bad_share, ct_dataset **out)
{
    char *copy;
    if (size > MAX_CAPTIONS_BYTES)
        return ct_fail(CT_ERR_FORMAT, "%s: larger than the limit of %d bytes", name,
                       MAX_CAPTIONS_BYTES);
    CT_TRY(ct_alloc(size + 1, 1, "the captions", &copy));
    memcpy(copy, text, size);
    return build(copy, size, name, format, max_bad_share, "", out);
}

ct_status ct_dataset_open(const ct_config *config, ct_dataset **out)
{
    char *text;
    size_t size;
    ct_dataset *dataset;
    CT_TRY(ct_file_read(config->data.captions, MAX_CAPTIONS_BYTES, &text, &size));
    CT_TRY(build(text, size, config->data.captions, config->data.format, config->data.max_bad_share,
                 config->data.images, &dataset));
    ct_status status = ct_split_assign(dataset, config);
    if (status == CT_OK) *out = dataset;
    else ct_dataset_destroy(dataset);
    return status;
}

void ct_dataset_destroy(ct_dataset *dataset)
{
    if (!dataset) return;
    free(dataset->photos);
    free(dataset->captions);
    free(dataset->images);
    free(dataset->pool);
    free(dataset);
}

ct_status ct_dataset_photos(const ct_dataset *dataset, ct_split split, int32_t **photos,
                            int32_t *count)
{
    *count = 0;
    for (int32_t p = 0; p < dataset->photo_count; p++) *count += dataset->photos[p].split == split;
    CT_TRY(ct_alloc((size_t)*count, sizeof **photos, "a split's photos", photos));
    int32_t *next = *photos;
    for (int32_t p = 0; p < dataset->photo_count; p++)
        if (dataset->photos[p].split == split) *next++ = p;
    return CT_OK;
}

const char *ct_split_name(ct_split split)
{
    static const char *const names[] = {"train", "validation", "test", "none"};
    return names[split];
}
