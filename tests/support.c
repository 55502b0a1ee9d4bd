#include "support.h"

#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

bool message_contains(const char *text)
{
    return strstr(ct_error_message(), text);
}

bool message_ends_with(const char *text)
{
    const char *message = ct_error_message();
    size_t length = strlen(message), tail = strlen(text);
    return length >= tail && strcmp(message + length - tail, text) == 0;
}

void *must_alloc(size_t bytes)
{
    void *memory = calloc(1, bytes ? bytes : 1);
    assert_non_null(memory);
    return memory;
}

char *read_text(const char *path, size_t *size)
{
    char *text = NULL;
    size_t bytes = 0;
    assert_ok(ct_file_read(path, (size_t)1 << 30, &text, &bytes));
    if (size) *size = bytes;
    return text;
}

void write_bytes(const char *path, const void *bytes, size_t size)
{
    FILE *stream = fopen(path, "wb");
    assert_non_null(stream);
    assert_int_equal(fwrite(bytes, 1, size, stream), size);
    assert_int_equal(fclose(stream), 0);
}

char *folder_create(void)
{
    const char *where = getenv("TMPDIR");
    char *path;
    assert_true(asprintf(&path, "%s/clip-train-test-XXXXXX", where ? where : P_tmpdir) > 0);
    assert_non_null(mkdtemp(path));
    return path;
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *at)
{
    (void)status;
    (void)type;
    (void)at;
    return remove(path);
}

void folder_remove(char *folder)
{
    assert_int_equal(nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS), 0);
    free(folder);
}

int folder_setup(void **state)
{
    *state = folder_create();
    return 0;
}

int folder_teardown(void **state)
{
    folder_remove(*state);
    return 0;
}

const char *in_folder(const char *folder, const char *name)
{
    static char path[8192];
    int length = snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_in_range(length, 1, sizeof path - 1);
    return path;
}

capture capture_begin(void)
{
    capture kept = {.file = tmpfile()};
    assert_non_null(kept.file);
    fflush(stderr);
    kept.standard_error = dup(STDERR_FILENO);
    dup2(fileno(kept.file), STDERR_FILENO);
    return kept;
}

char *capture_end(const capture *kept)
{
    fflush(stderr);
    dup2(kept->standard_error, STDERR_FILENO);
    close(kept->standard_error);
    fseek(kept->file, 0, SEEK_END);
    size_t size = (size_t)ftell(kept->file);
    rewind(kept->file);
    char *text = must_alloc(size + 1);
    assert_int_equal(fread(text, 1, size, kept->file), size);
    fclose(kept->file);
    return text;
}
