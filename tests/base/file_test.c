/* Files: read whole, written all or nothing. */
#include "base/file.h"

#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support.h"

/* Fails when a test has left something behind. */
static int remove_empty_folder(void **state)
{
    int failed = rmdir(*state);
    free(*state);
    return failed;
}

static void write_text(const char *path, const char *text)
{
    ct_writer writer;
    assert_ok(ct_writer_open(&writer, path));
    assert_ok(ct_writer_put(&writer, text, strlen(text)));
    assert_ok(ct_writer_commit(&writer));
    ct_writer_abandon(&writer); /* fine after commit */
}

static void assert_text(const char *path, const char *expected)
{
    char *text;
    size_t size;
    assert_ok(ct_file_read(path, 1 << 20, &text, &size));
    assert_int_equal(size, strlen(expected));
    assert_string_equal(text, expected);
    free(text);
}

static int entries_in(const char *folder)
{
    DIR *directory = opendir(folder);
    assert_non_null(directory);
    int count = -2; /* "." and ".." */
    while (readdir(directory)) count++;
    closedir(directory);
    return count;
}

static void writes_and_reads(void **state)
{
    const char *path = in_folder(*state, "file");
    assert_false(ct_file_exists(path));
    write_text(path, "first");
    assert_true(ct_file_exists(path));
    assert_text(path, "first");
    write_text(path, ""); /* over what is there */
    assert_text(path, "");
    assert_int_equal(entries_in(*state), 1);
    remove(path);
}

static void reading_has_a_limit(void **state)
{
    const char *path = in_folder(*state, "file");
    char *text;
    size_t size;
    write_text(path, "12345678");
    assert_ok(ct_file_read(path, 8, &text, &size));
    assert_int_equal(size, 8);
    free(text);
    assert_fails_ending(ct_file_read(path, 7, &text, &size), CT_ERR_FORMAT,
                        "/file: larger than the limit of 7 bytes");
    remove(path);
    assert_fails_ending(ct_file_read(path, 8, &text, &size), CT_ERR_IO,
                        "/file: cannot open: No such file or directory");
    assert_fails_ending(ct_file_read(*state, 8, &text, &size), CT_ERR_IO,
                        ": cannot read: Is a directory");
}

/* A device tells no size; what it gives is still limited. */
static void reads_what_tells_no_size(void **state)
{
    (void)state;
    char *text;
    size_t size;
    assert_ok(ct_file_read("/dev/null", 8, &text, &size));
    assert_int_equal(size, 0);
    free(text);
    assert_fails_ending(ct_file_read("/dev/zero", 100000, &text, &size), CT_ERR_FORMAT,
                        "/dev/zero: larger than the limit of 100000 bytes");
}

static void abandoning_keeps_the_old_file(void **state)
{
    const char *path = in_folder(*state, "file");
    ct_writer writer;
    write_text(path, "old");
    assert_ok(ct_writer_open(&writer, path));
    assert_ok(ct_writer_put(&writer, "new", 3));
    assert_text(path, "old"); /* while being written too */
    ct_writer_abandon(&writer);
    ct_writer_abandon(&writer); /* fine on a zeroed one */
    assert_text(path, "old");
    assert_int_equal(entries_in(*state), 1);
    remove(path);
}

static void opening_fails(void **state)
{
    ct_writer writer;
    assert_fails_ending(ct_writer_open(&writer, in_folder(*state, "none/file")), CT_ERR_IO,
                        "/none/file.tmp: cannot open for writing: No such file or directory");
    ct_writer_abandon(&writer);
}

/* A folder in the target's place: everything up to the rename goes well. */
static void renaming_fails(void **state)
{
    const char *path = in_folder(*state, "taken");
    ct_writer writer;
    assert_int_equal(mkdir(path, 0777), 0);
    assert_ok(ct_writer_open(&writer, path));
    assert_ok(ct_writer_put(&writer, "new", 3));
    assert_fails_ending(ct_writer_commit(&writer), CT_ERR_IO, "/taken: Is a directory");
    assert_int_equal(entries_in(*state), 1); /* the temporary file is gone */
    assert_int_equal(rmdir(path), 0);
}

/* A limit on the size of files stands for the full disk: small writes fail when they are flushed,
 * large ones at once. */
static void a_full_disk(void **state)
{
    const char *path = in_folder(*state, "file");
    static char bytes[1 << 20];
    struct rlimit old, small;
    ct_writer writer;
    write_text(path, "old");
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = (struct rlimit){.rlim_cur = 1000, .rlim_max = old.rlim_max};
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    for (int large = 0; large < 2; large++) {
        assert_ok(ct_writer_open(&writer, path));
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        ct_status put = ct_writer_put(&writer, bytes, large ? sizeof bytes : 2000);
        ct_status commit = large ? put : ct_writer_commit(&writer);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        assert_int_equal(put, large ? CT_ERR_IO : CT_OK);
        assert_fails_ending(commit, CT_ERR_IO, "/file.tmp: cannot write: File too large");
        ct_writer_abandon(&writer);
        assert_text(path, "old");
        assert_int_equal(entries_in(*state), 1);
    }
    signal(SIGXFSZ, handler);
    remove(path);
}

static void folders(void **state)
{
    assert_ok(ct_folder_create(in_folder(*state, "a/b//c/")));
    assert_ok(ct_folder_create(in_folder(*state, "a/b//c/"))); /* fine when it is there */
    assert_true(ct_file_exists(in_folder(*state, "a/b/c")));
    write_text(in_folder(*state, "a/file"), "");
    assert_fails_ending(ct_folder_create(in_folder(*state, "a/file")), CT_ERR_IO,
                        "/a/file: exists and is not a folder");
    assert_int_not_equal(ct_folder_create(in_folder(*state, "a/file/b")), CT_OK);
    remove(in_folder(*state, "a/file"));
    assert_int_equal(rmdir(in_folder(*state, "a/b/c")), 0);
    assert_int_equal(rmdir(in_folder(*state, "a/b")), 0);
    assert_int_equal(rmdir(in_folder(*state, "a")), 0);
    assert_int_not_equal(ct_folder_create(""), CT_OK);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, folder_setup, remove_empty_folder)

int run_file_tests(void)
{
    const struct CMUnitTest tests[] = {
        TEST(writes_and_reads),
        TEST(reading_has_a_limit),
        cmocka_unit_test(reads_what_tells_no_size),
        TEST(abandoning_keeps_the_old_file),
        TEST(opening_fails),
        TEST(renaming_fails),
        TEST(a_full_disk),
        TEST(folders),
    };
    return cmocka_run_group_tests_name("file", tests, NULL, NULL);
}
