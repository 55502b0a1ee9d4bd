/* Whole files: read with a size limit; written aside, synced, then renamed, so that a reader (or a
 * restart after a crash or a full disk) sees the old file or the new one and nothing between. */
#ifndef CT_BASE_FILE_H
#define CT_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/status.h"

/* *out = the file's bytes with a NUL behind them (not counted in *size), freed with free().
 * CT_ERR_IO when it cannot be read, CT_ERR_FORMAT when it has more than max_bytes. */
CT_NODISCARD ct_status ct_file_read(const char *path, size_t max_bytes, char **out, size_t *size);

bool ct_file_exists(const char *path);

/* Creates the folder and those above it; fine when it is there. */
CT_NODISCARD ct_status ct_folder_create(const char *path);

/* A file being written beside its target ("<path>.tmp"). */
typedef struct ct_writer {
    FILE *stream;
    char *path;
    char *temporary;
} ct_writer;

CT_NODISCARD ct_status ct_writer_open(ct_writer *writer, const char *path);

CT_NODISCARD ct_status ct_writer_put(ct_writer *writer, const void *bytes, size_t size);

/* Flushes, syncs, renames over the target, syncs the folder. On failure the temporary file is
 * removed and the target is as it was. Ends the writer either way. */
CT_NODISCARD ct_status ct_writer_commit(ct_writer *writer);

/* Gives up: removes the temporary file. Fine after commit or on a zeroed writer. */
void ct_writer_abandon(ct_writer *writer);

#endif
