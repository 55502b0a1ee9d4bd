#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"

static ct_status read_stream(FILE *stream, const char *path, size_t max_bytes, char **out,
                             size_t *size)
{
    char *bytes = NULL;
    size_t capacity = 0, used = 0, got;
    struct stat info;
    size_t expected =
        fstat(fileno(stream), &info) == 0 && info.st_size > 0 ? (size_t)info.st_size : 0;
    if (expected > max_bytes) expected = max_bytes;
    ct_status status = ct_grow(&bytes, &capacity, expected + 2, 1, path);
    while (status == CT_OK && (got = fread(bytes + used, 1, capacity - used - 1, stream)) > 0) {
        used += got;
        if (used > max_bytes)
            status =
                ct_fail(CT_ERR_FORMAT, "%s: larger than the limit of %zu bytes", path, max_bytes);
        else status = ct_grow(&bytes, &capacity, used + 2, 1, path);
    }
    if (status == CT_OK && ferror(stream))
        status = ct_fail_errno(CT_ERR_IO, "%s: cannot read", path);
    if (status != CT_OK) {
        free(bytes);
        return status;
    }
    bytes[used] = '\0';
    *out = bytes;
    *size = used;
    return CT_OK;
}

ct_status ct_file_read(const char *path, size_t max_bytes, char **out, size_t *size)
{
    FILE *stream = fopen(path, "rb");
    if (!stream) return ct_fail_errno(CT_ERR_IO, "%s: cannot open", path);
    ct_status status = read_stream(stream, path, max_bytes, out, size);
    fclose(stream);
    return status;
}

bool ct_file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

ct_status ct_folder_create(const char *path)
{
    char *partial;
    CT_TRY(ct_strdup(path, &partial));
    ct_status status = CT_OK;
    for (char *end = partial + 1; status == CT_OK && *partial; end++) {
        char kept = *end;
        if (kept != '/' && kept != '\0') continue;
        *end = '\0';
        if (mkdir(partial, 0777) != 0 && errno != EEXIST)
            status = ct_fail_errno(CT_ERR_IO, "%s: cannot create the folder", partial);
        *end = kept;
        if (kept == '\0') break;
    }
    struct stat info;
    if (status == CT_OK && (stat(path, &info) != 0 || !S_ISDIR(info.st_mode)))
        status = ct_fail(CT_ERR_IO, "%s: exists and is not a folder", path);
    free(partial);
    return status;
}

static void writer_free(ct_writer *writer)
{
    free(writer->path);
    free(writer->temporary);
    *writer = (ct_writer){0};
}

ct_status ct_writer_open(ct_writer *writer, const char *path)
{
    static const char suffix[] = ".tmp";
    *writer = (ct_writer){0};
    CT_TRY(ct_strdup(path, &writer->path));
    ct_status status = ct_alloc(strlen(path) + sizeof suffix, 1, "a file name", &writer->temporary);
    if (status == CT_OK) {
        sprintf(writer->temporary, "%s%s", path, suffix);
        writer->stream = fopen(writer->temporary, "wb");
        if (!writer->stream)
            status = ct_fail_errno(CT_ERR_IO, "%s: cannot open for writing", writer->temporary);
    }
    if (status != CT_OK) writer_free(writer);
    return status;
}

ct_status ct_writer_put(ct_writer *writer, const void *bytes, size_t size)
{
    if (fwrite(bytes, 1, size, writer->stream) != size)
        return ct_fail_errno(CT_ERR_IO, "%s: cannot write", writer->temporary);
    return CT_OK;
}

/* A rename is only durable once the folder that holds the name is synced. */
static ct_status sync_folder_of(const char *path)
{
    char *copy;
    CT_TRY(ct_strdup(path, &copy));
    int folder = open(dirname(copy), O_RDONLY | O_DIRECTORY);
    ct_status status = CT_OK;
    if (folder < 0 || fsync(folder) != 0)
        status = ct_fail_errno(CT_ERR_IO, "%s: cannot sync its folder", path);
    if (folder >= 0) close(folder);
    free(copy);
    return status;
}

ct_status ct_writer_commit(ct_writer *writer)
{
    ct_status status = CT_OK;
    if (fflush(writer->stream) != 0 || fsync(fileno(writer->stream)) != 0)
        status = ct_fail_errno(CT_ERR_IO, "%s: cannot write", writer->temporary);
    if (fclose(writer->stream) != 0 && status == CT_OK)
        status = ct_fail_errno(CT_ERR_IO, "%s: cannot close", writer->temporary);
    writer->stream = NULL;
    if (status == CT_OK && rename(writer->temporary, writer->path) != 0)
        status =
            ct_fail_errno(CT_ERR_IO, "%s: cannot rename to %s", writer->temporary, writer->path);
    if (status == CT_OK) {
        status = sync_folder_of(writer->path);
        writer_free(writer);
        return status;
    }
    ct_writer_abandon(writer);
    return status;
}

void ct_writer_abandon(ct_writer *writer)
{
    if (writer->stream) fclose(writer->stream);
    if (writer->temporary) remove(writer->temporary);
    writer_free(writer);
}
