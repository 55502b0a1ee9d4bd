/* The plan cache's file: reading that trusts nothing, writing that leaves no half file. */
#include "cuda/plan_cache.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"

#define MAX_FILE_BYTES ((size_t)16 << 20)

typedef struct choice {
    char *key;
    ct_cudnn_engine engine;
} choice;

struct ct_plan_cache {
    char *path;
    choice *choices;
    size_t count, capacity;
};

/* ---- reading ----------------------------------------------------------------------------------
 */

/* A non-negative or, when `negative`, any number; false when there is none or it is too large.
 * *text moves behind it. */
static bool read_number(char **text, bool negative, int64_t *out)
{
    char *end;
    if (!(**text >= '0' && **text <= '9') && !(negative && **text == '-')) return false;
    errno = 0;
    const long long value = strtoll(*text, &end, 10);
    if (errno || end == *text) return false;
    *text = end;
    *out = value;
    return true;
}

/* "2=4,13=0", or "-". */
static bool read_knobs(char *text, ct_cudnn_engine *engine)
{
    if (strcmp(text, "-") == 0) return true;
    for (;;) {
        const int k = engine->knob_count;
        if (k == CT_CUDNN_MAX_KNOBS) return false;
        if (!read_number(&text, false, &engine->knobs[k].type)) return false;
        if (engine->knobs[k].type >= CUDNN_KNOB_TYPE_COUNTS || *text++ != '=') return false;
        if (!read_number(&text, true, &engine->knobs[k].value)) return false;
        engine->knob_count++;
        if (*text == '\0') return true;
        if (*text++ != ',') return false;
    }
}

/* Cuts `line` into its fields. */
static bool read_line(char *line, char **key, ct_cudnn_engine *engine)
{
    *engine = (ct_cudnn_engine){0};
    char *index = strchr(line, '\t');
    if (!index || index == line) return false;
    *index++ = '\0';
    char *knobs = strchr(index, '\t');
    if (!knobs) return false;
    *knobs++ = '\0';
    *key = line;
    return read_number(&index, false, &engine->index) && *index == '\0' &&
           read_knobs(knobs, engine);
}

static ct_status remember(ct_plan_cache *cache, const char *key, const ct_cudnn_engine *engine)
{
    for (size_t i = 0; i < cache->count; i++)
        if (strcmp(cache->choices[i].key, key) == 0) {
            cache->choices[i].engine = *engine;
            return CT_OK;
        }
    CT_TRY(ct_grow(&cache->choices, &cache->capacity, cache->count + 1, sizeof *cache->choices,
                   "remembered plans"));
    char *copy;
    CT_TRY(ct_strdup(key, &copy));
    cache->choices[cache->count++] = (choice){.key = copy, .engine = *engine};
    return CT_OK;
}

static ct_status read_file(ct_plan_cache *cache)
{
    char *text, *key;
    size_t size;
    if (!ct_file_exists(cache->path)) return CT_OK;
    const ct_status status = ct_file_read(cache->path, MAX_FILE_BYTES, &text, &size);
    if (status == CT_ERR_MEMORY) return status;
    if (status != CT_OK) {
        ct_log(CT_LOG_WARNING, "plan cache: %s; convolutions are timed anew", ct_error_message());
        return CT_OK;
    }
    ct_status result = CT_OK;
    int number = 0;
    for (char *line = text, *end = text + size; line < end && result == CT_OK;) {
        char *stop = memchr(line, '\n', (size_t)(end - line));
        if (!stop) stop = end;
        const bool whole = memchr(line, '\0', (size_t)(stop - line)) == NULL;
        *stop = '\0'; /* the file's text has a byte behind it */
        number++;
        ct_cudnn_engine engine;
        if (whole && (*line == '#' || *line == '\0')) {
            /* a remark */
        } else if (whole && read_line(line, &key, &engine)) {
            result = remember(cache, key, &engine);
        } else {
            ct_log(CT_LOG_WARNING,
                   "%s:%d: expected \"problem <tab> engine <tab> knobs\"; the line is ignored",
                   cache->path, number);
        }
        line = stop + 1;
    }
    free(text);
    return result;
}

ct_status ct_plan_cache_open(const char *path, ct_plan_cache **out)
{
    ct_plan_cache *cache;
    *out = NULL;
    CT_TRY(ct_alloc(1, sizeof *cache, "plan cache", &cache));
    ct_status status = ct_strdup(path, &cache->path);
    if (status == CT_OK) status = read_file(cache);
    if (status != CT_OK) {
        ct_plan_cache_close(cache);
        return status;
    }
    *out = cache;
    return CT_OK;
}

void ct_plan_cache_close(ct_plan_cache *cache)
{
    if (!cache) return;
    for (size_t i = 0; i < cache->count; i++) free(cache->choices[i].key);
    free(cache->choices);
    free(cache->path);
    free(cache);
}

bool ct_plan_cache_find(const ct_plan_cache *cache, const char *key, ct_cudnn_engine *out)
{
    for (size_t i = 0; i < cache->count; i++)
        if (strcmp(cache->choices[i].key, key) == 0) {
            *out = cache->choices[i].engine;
            return true;
        }
    return false;
}

/* ---- writing ----------------------------------------------------------------------------------
 */

/* Into `text`, which has room for a key of any length and every knob. */
static size_t print_choice(const choice *c, char *text, size_t room)
{
    const ct_cudnn_engine *engine = &c->engine;
    size_t used = (size_t)snprintf(text, room, "%s\t%" PRId64 "\t%s", c->key, engine->index,
                                   engine->knob_count ? "" : "-");
    for (int k = 0; k < engine->knob_count; k++)
        used += (size_t)snprintf(text + used, room - used, "%s%" PRId64 "=%" PRId64, k ? "," : "",
                                 engine->knobs[k].type, engine->knobs[k].value);
    return used + (size_t)snprintf(text + used, room - used, "\n");
}

static ct_status write_choices(const ct_plan_cache *cache, ct_writer *writer)
{
    static const char header[] = "# clip-train: the fastest cuDNN engine of each convolution\n";
    CT_TRY(ct_writer_put(writer, header, sizeof header - 1));
    for (size_t i = 0; i < cache->count; i++) {
        const size_t room = strlen(cache->choices[i].key) + 32 + 48 * CT_CUDNN_MAX_KNOBS;
        char *line;
        CT_TRY(ct_alloc(room, 1, "plan cache line", &line));
        const size_t size = print_choice(&cache->choices[i], line, room);
        const ct_status status = ct_writer_put(writer, line, size);
        free(line);
        CT_TRY(status);
    }
    return CT_OK;
}

static ct_status write_file(const ct_plan_cache *cache)
{
    const size_t room = strlen(cache->path) + 24;
    char *aside;
    CT_TRY(ct_alloc(room, 1, "plan cache path", &aside));
    snprintf(aside, room, "%s.%ld", cache->path, (long)getpid());
    ct_writer writer = {0};
    ct_status status = ct_writer_open(&writer, aside);
    if (status == CT_OK) {
        status = write_choices(cache, &writer);
        if (status == CT_OK) status = ct_writer_commit(&writer);
        else ct_writer_abandon(&writer);
        if (status == CT_OK && rename(aside, cache->path) != 0) {
            status = ct_fail_errno(CT_ERR_IO, "%s: cannot be renamed to %s", aside, cache->path);
            (void)unlink(aside);
        }
    }
    free(aside);
    return status;
}

ct_status ct_plan_cache_put(ct_plan_cache *cache, const char *key, const ct_cudnn_engine *engine)
{
    CT_TRY(remember(cache, key, engine));
    const ct_status status = write_file(cache);
    if (status == CT_ERR_MEMORY) return status;
    if (status != CT_OK)
        ct_log(CT_LOG_WARNING, "plan cache: %s; this choice is not remembered", ct_error_message());
    return CT_OK;
}
