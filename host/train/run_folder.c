#include "train/run_folder.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "train/checkpoint.h"

#define PREFIX "checkpoint-"
#define SUFFIX ".safetensors"

ct_status ct_run_path(const char *folder, const char *name, char path[CT_PATH_BYTES])
{
    if (snprintf(path, CT_PATH_BYTES, "%s/%s", folder, name) >= CT_PATH_BYTES)
        return ct_fail(CT_ERR_ARGUMENT, "%s/%s: path too long", folder, name);
    return CT_OK;
}

ct_status ct_run_checkpoint_path(const char *folder, int64_t step, char path[CT_PATH_BYTES])
{
    char name[64];
    snprintf(name, sizeof name, PREFIX "%09" PRId64 SUFFIX, step);
    return ct_run_path(folder, name, path);
}

/* The step in a checkpoint's file name; -1: not a checkpoint's name. */
static int64_t step_of_name(const char *name)
{
    char *end;
    if (strncmp(name, PREFIX, strlen(PREFIX)) != 0) return -1;
    const char *digits = name + strlen(PREFIX);
    if (*digits < '0' || *digits > '9') return -1;
    long long step = strtoll(digits, &end, 10);
    return strcmp(end, SUFFIX) == 0 ? step : -1;
}

static int descending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

ct_status ct_run_list_checkpoints(const char *folder, int64_t **steps, size_t *count)
{
    size_t capacity = 0;
    ct_status status = CT_OK;
    *steps = NULL;
    *count = 0;
    DIR *directory = opendir(folder);
    if (!directory && errno == ENOENT) return CT_OK;
    if (!directory) return ct_fail_errno(CT_ERR_IO, "%s: cannot open", folder);
    for (struct dirent *entry; status == CT_OK && (entry = readdir(directory));) {
        int64_t step = step_of_name(entry->d_name);
        if (step < 0) continue;
        status = ct_grow(steps, &capacity, *count + 1, sizeof **steps, "checkpoints");
        if (status == CT_OK) (*steps)[(*count)++] = step;
    }
    closedir(directory);
    if (*count) qsort(*steps, *count, sizeof **steps, descending);
    return status;
}

ct_status ct_run_newest_checkpoint(const char *folder, char path[CT_PATH_BYTES])
{
    int64_t *steps;
    size_t count;
    ct_status status = ct_run_list_checkpoints(folder, &steps, &count);
    bool found = false;
    for (size_t i = 0; status == CT_OK && i < count && !found; i++) {
        ct_checkpoint *checkpoint;
        status = ct_run_checkpoint_path(folder, steps[i], path);
        if (status != CT_OK) break;
        if (ct_checkpoint_open(path, &checkpoint) == CT_OK) {
            ct_checkpoint_close(checkpoint);
            found = true;
        } else {
            ct_log(CT_LOG_WARNING, "%s; trying the one before", ct_error_message());
        }
    }
    if (!found) path[0] = '\0';
    free(steps);
    return status;
}

static ct_status remove_file(const char *path)
{
    if (unlink(path) != 0 && errno != ENOENT)
        return ct_fail_errno(CT_ERR_IO, "%s: cannot remove", path);
    return CT_OK;
}

ct_status ct_run_prune_checkpoints(const char *folder, int64_t keep)
{
    int64_t *steps;
    size_t count;
    char path[CT_PATH_BYTES];
    ct_status status = ct_run_list_checkpoints(folder, &steps, &count);
    for (size_t i = (size_t)keep; keep > 0 && status == CT_OK && i < count; i++) {
        status = ct_run_checkpoint_path(folder, steps[i], path);
        if (status == CT_OK) status = remove_file(path);
    }
    free(steps);
    return status;
}

bool ct_run_exists(const char *folder)
{
    int64_t *steps;
    size_t count;
    char path[CT_PATH_BYTES];
    if (ct_run_path(folder, "metrics.jsonl", path) == CT_OK && ct_file_exists(path)) return true;
    bool found = ct_run_list_checkpoints(folder, &steps, &count) == CT_OK && count > 0;
    free(steps);
    return found;
}

ct_status ct_run_clear(const char *folder)
{
    static const char *const files[] = {"metrics.jsonl", "report.html", "config.yaml"};
    int64_t *steps;
    size_t count;
    char path[CT_PATH_BYTES];
    ct_status status = ct_run_list_checkpoints(folder, &steps, &count);
    for (size_t i = 0; status == CT_OK && i < count; i++) {
        status = ct_run_checkpoint_path(folder, steps[i], path);
        if (status == CT_OK) status = remove_file(path);
    }
    free(steps);
    for (size_t i = 0; status == CT_OK && i < sizeof files / sizeof files[0]; i++) {
        status = ct_run_path(folder, files[i], path);
        if (status == CT_OK) status = remove_file(path);
    }
    return status;
}
