#include "train/metrics.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "train/point_locale.h"

#define MAX_FILE_BYTES  ((size_t)1 << 30)
#define MAX_LINE_BYTES  1024
#define MAX_NUMBER_SIZE 32
#define MAX_RANK_FIELDS 256
#define MAX_STEP        ((int64_t)1 << 53)

struct ct_metrics {
    FILE *stream;
    char *path;
    ct_step_record *steps;
    ct_validation_record *validations;
    size_t step_count, step_capacity, validation_count, validation_capacity;
};

/* The fewest digits that read back to the same number: nine for what is a float. JSON has no NaN
 * and no infinity; they become null. */
static const char *json_number(char text[MAX_NUMBER_SIZE], double value)
{
    if (!isfinite(value)) return "null";
    if ((double)(float)value == value) {
        snprintf(text, MAX_NUMBER_SIZE, "%.9g", value);
        return text;
    }
    snprintf(text, MAX_NUMBER_SIZE, "%.15g", value);
    if (strtod(text, NULL) != value) snprintf(text, MAX_NUMBER_SIZE, "%.17g", value);
    return text;
}

/* Only where there are several ranks: ",..." or "". */
static const char *rank_fields(char text[MAX_RANK_FIELDS], const ct_step_record *r)
{
    char n[3][MAX_NUMBER_SIZE];
    text[0] = '\0';
    if (r->ranks > 1)
        snprintf(text, MAX_RANK_FIELDS,
                 ",\"ranks\":%d,\"photos_per_second_per_rank\":%s,\"comm_exposed_share\":%s,"
                 "\"reduced_bytes\":%s",
                 r->ranks, json_number(n[0], r->photos_per_second / r->ranks),
                 json_number(n[1], r->comm_exposed_share), json_number(n[2], r->reduced_bytes));
    return text;
}

static int print_step(char line[MAX_LINE_BYTES], const ct_step_record *r)
{
    char n[6][MAX_NUMBER_SIZE], ranks[MAX_RANK_FIELDS];
    return snprintf(line, MAX_LINE_BYTES,
                    "{\"event\":\"train\",\"step\":%lld,\"epoch\":%lld,\"loss\":%s,"
                    "\"logit_scale\":%s,\"lr_factor\":%s,\"grad_norm\":%s,"
                    "\"photos_per_second\":%s,\"data_wait_share\":%s%s}\n",
                    (long long)r->step, (long long)r->epoch, json_number(n[0], r->loss),
                    json_number(n[1], r->logit_scale), json_number(n[2], r->lr_factor),
                    json_number(n[3], r->grad_norm), json_number(n[4], r->photos_per_second),
                    json_number(n[5], r->data_wait_share), rank_fields(ranks, r));
}

static int print_recall(char *text, size_t size, const ct_recall *r)
{
    char n[5][MAX_NUMBER_SIZE];
    return snprintf(text, size,
                    "{\"r1\":%s,\"r5\":%s,\"r10\":%s,\"median_rank\":%s,\"mean_rank\":%s}",
                    json_number(n[0], r->r1), json_number(n[1], r->r5), json_number(n[2], r->r10),
                    json_number(n[3], r->median_rank), json_number(n[4], r->mean_rank));
}

static int print_validation(char line[MAX_LINE_BYTES], const ct_validation_record *r)
{
    char image_to_text[MAX_LINE_BYTES / 3], text_to_image[MAX_LINE_BYTES / 3];
    print_recall(image_to_text, sizeof image_to_text, &r->image_to_text);
    print_recall(text_to_image, sizeof text_to_image, &r->text_to_image);
    return snprintf(line, MAX_LINE_BYTES,
                    "{\"event\":\"validation\",\"step\":%lld,\"epoch\":%lld,"
                    "\"image_to_text\":%s,\"text_to_image\":%s,\"photos\":%d,\"captions\":%d}\n",
                    (long long)r->step, (long long)r->epoch, image_to_text, text_to_image,
                    (int)r->photos, (int)r->captions);
}

/* The number under `key`; NaN when it is null or not there. */
static double get(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(item) ? item->valuedouble : NAN;
}

/* As get, for counts up to `most`: -1 when it is none. */
static int64_t get_count(const cJSON *object, const char *key, int64_t most)
{
    double value = get(object, key);
    return value >= 0 && value <= (double)most ? (int64_t)value : -1;
}

static ct_recall get_recall(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return (ct_recall){get(item, "r1"), get(item, "r5"), get(item, "r10"), get(item, "median_rank"),
                       get(item, "mean_rank")};
}

ct_status ct_metrics_reserve(ct_metrics *metrics, int64_t steps, int64_t validations)
{
    CT_TRY(ct_grow(&metrics->steps, &metrics->step_capacity, (size_t)steps, sizeof *metrics->steps,
                   "metrics"));
    return ct_grow(&metrics->validations, &metrics->validation_capacity, (size_t)validations,
                   sizeof *metrics->validations, "metrics");
}

static ct_status remember_step(ct_metrics *metrics, const ct_step_record *record)
{
    CT_TRY(ct_grow(&metrics->steps, &metrics->step_capacity, metrics->step_count + 1,
                   sizeof *record, "metrics"));
    metrics->steps[metrics->step_count++] = *record;
    return CT_OK;
}

static ct_status remember_validation(ct_metrics *metrics, const ct_validation_record *record)
{
    CT_TRY(ct_grow(&metrics->validations, &metrics->validation_capacity,
                   metrics->validation_count + 1, sizeof *record, "metrics"));
    metrics->validations[metrics->validation_count++] = *record;
    return CT_OK;
}

/* Takes an old record into memory; other events than ours are kept in the file alone. */
static ct_status remember(ct_metrics *metrics, const cJSON *object)
{
    const char *event = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, "event"));
    int64_t step = get_count(object, "step", MAX_STEP),
            epoch = get_count(object, "epoch", MAX_STEP);
    if (event && strcmp(event, "train") == 0)
        return remember_step(metrics, &(ct_step_record){
                                          .step = step,
                                          .epoch = epoch,
                                          .loss = get(object, "loss"),
                                          .logit_scale = get(object, "logit_scale"),
                                          .lr_factor = get(object, "lr_factor"),
                                          .grad_norm = get(object, "grad_norm"),
                                          .photos_per_second = get(object, "photos_per_second"),
                                          .data_wait_share = get(object, "data_wait_share"),
                                      });
    if (event && strcmp(event, "validation") == 0)
        return remember_validation(
            metrics, &(ct_validation_record){
                         .step = step,
                         .epoch = epoch,
                         .image_to_text = get_recall(object, "image_to_text"),
                         .text_to_image = get_recall(object, "text_to_image"),
                         .photos = (int32_t)get_count(object, "photos", INT32_MAX),
                         .captions = (int32_t)get_count(object, "captions", INT32_MAX),
                     });
    return CT_OK;
}

/* One line of the old file (size bytes and a NUL): kept byte for byte if its step is not past
 * keep_step. */
static ct_status keep_line(ct_metrics *metrics, char *line, size_t size, int64_t line_number,
                           int64_t keep_step, ct_writer *writer)
{
    cJSON *object =
        strlen(line) == size ? cJSON_ParseWithLengthOpts(line, size + 1, NULL, true) : NULL;
    int64_t step = get_count(object, "step", MAX_STEP);
    ct_status status = CT_OK;
    if (step < 0) {
        ct_log(CT_LOG_WARNING, "%s:%lld: not a whole record, dropped", metrics->path,
               (long long)line_number);
    } else if (step <= keep_step) {
        status = remember(metrics, object);
        line[size] = '\n';
        if (status == CT_OK) status = ct_writer_put(writer, line, size + 1);
    }
    cJSON_Delete(object);
    return status;
}

static ct_status keep_lines(ct_metrics *metrics, int64_t keep_step, ct_writer *writer)
{
    if (keep_step < 0 || !ct_file_exists(metrics->path)) return CT_OK;
    char *text;
    size_t size;
    CT_TRY(ct_file_read(metrics->path, MAX_FILE_BYTES, &text, &size));
    ct_status status = CT_OK;
    int64_t line_number = 0;
    for (size_t at = 0, length; at < size && status == CT_OK; at += length + 1) {
        const char *end = memchr(text + at, '\n', size - at);
        length = end ? (size_t)(end - text) - at : size - at;
        text[at + length] = '\0';
        line_number++;
        if (length > 0)
            status = keep_line(metrics, text + at, length, line_number, keep_step, writer);
    }
    free(text);
    return status;
}

static ct_status rewrite(ct_metrics *metrics, int64_t keep_step)
{
    ct_writer writer = {0};
    CT_TRY(ct_writer_open(&writer, metrics->path));
    ct_status status = keep_lines(metrics, keep_step, &writer);
    if (status == CT_OK) return ct_writer_commit(&writer);
    ct_writer_abandon(&writer);
    return status;
}

ct_status ct_metrics_open(const char *path, int64_t keep_step, ct_metrics **out)
{
    *out = NULL;
    ct_metrics *metrics;
    ct_status status;
    CT_TRY(ct_alloc(1, sizeof *metrics, "metrics", &metrics));
    CT_TRY_GOTO(status, ct_strdup(path, &metrics->path), fail);
    locale_t before = ct_point_locale_enter();
    status = rewrite(metrics, keep_step);
    ct_point_locale_leave(before);
    if (status != CT_OK) goto fail;
    metrics->stream = fopen(path, "ab");
    if (metrics->stream) {
        *out = metrics;
        return CT_OK;
    }
    status = ct_fail_errno(CT_ERR_IO, "%s: cannot open for appending", path);
fail:
    ct_metrics_close(metrics);
    return status;
}

void ct_metrics_close(ct_metrics *metrics)
{
    if (!metrics) return;
    if (metrics->stream) fclose(metrics->stream);
    free(metrics->path);
    free(metrics->steps);
    free(metrics->validations);
    free(metrics);
}

static ct_status append(ct_metrics *metrics, const char *line, int size)
{
    if (fwrite(line, 1, (size_t)size, metrics->stream) != (size_t)size ||
        fflush(metrics->stream) != 0)
        return ct_fail_errno(CT_ERR_IO, "%s: cannot write", metrics->path);
    return CT_OK;
}

ct_status ct_metrics_step(ct_metrics *metrics, const ct_step_record *record)
{
    char line[MAX_LINE_BYTES];
    locale_t before = ct_point_locale_enter();
    int size = print_step(line, record);
    ct_point_locale_leave(before);
    CT_TRY(append(metrics, line, size));
    return remember_step(metrics, record);
}

ct_status ct_metrics_validation(ct_metrics *metrics, const ct_validation_record *record)
{
    char line[MAX_LINE_BYTES];
    locale_t before = ct_point_locale_enter();
    int size = print_validation(line, record);
    ct_point_locale_leave(before);
    CT_TRY(append(metrics, line, size));
    return remember_validation(metrics, record);
}

int64_t ct_metrics_steps(const ct_metrics *metrics, const ct_step_record **records)
{
    *records = metrics->steps;
    return (int64_t)metrics->step_count;
}

int64_t ct_metrics_validations(const ct_metrics *metrics, const ct_validation_record **records)
{
    *records = metrics->validations;
    return (int64_t)metrics->validation_count;
}
