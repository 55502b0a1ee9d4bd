#include "train/support.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

void *must_alloc(size_t count, size_t size)
{
    void *block = calloc(count + 1, size);
    if (!block) abort();
    return block;
}

char *read_text(const char *path, size_t *size)
{
    char *text = NULL;
    size_t bytes = 0;
    assert_ok(ct_file_read(path, (size_t)1 << 30, &text, &bytes));
    if (size) *size = bytes;
    return text;
}

void write_bytes(const char *path, const char *bytes, size_t size)
{
    FILE *stream = fopen(path, "wb");
    assert_non_null(stream);
    assert_int_equal(fwrite(bytes, 1, size, stream), size);
    assert_int_equal(fclose(stream), 0);
}

int folder_setup(void **state)
{
    const char *where = getenv("TMPDIR");
    char *name = must_alloc(4096, 1);
    snprintf(name, 4096, "%s/ct_train_XXXXXX", where ? where : P_tmpdir);
    *state = mkdtemp(name);
    if (!*state) free(name);
    return *state ? 0 : -1;
}

int folder_teardown(void **state)
{
    DIR *folder = opendir(*state);
    if (!folder) return -1;
    for (struct dirent *entry; (entry = readdir(folder));)
        if (entry->d_name[0] != '.') unlinkat(dirfd(folder), entry->d_name, 0);
    closedir(folder);
    int result = rmdir(*state);
    free(*state);
    return result;
}

const char *in_folder(void **state, const char *name)
{
    static char path[8192];
    snprintf(path, sizeof path, "%s/%s", (const char *)*state, name);
    return path;
}
