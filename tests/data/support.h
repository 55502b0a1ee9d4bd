/* What the tests of the data share. */
#ifndef CT_TESTS_DATA_SUPPORT_H
#define CT_TESTS_DATA_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "data/dataset.h"

/* Passes, or fails the test with the thread's message. */
#define assert_ok(expression)                                                                      \
    do {                                                                                           \
        if ((expression) != CT_OK) fail_msg("%s: %s", #expression, ct_error_message());            \
    } while (0)

/* The text, called "c", is read with any number of bad rows put up with. */
ct_dataset *parsed(const char *text, ct_captions_format format);

/* Photos and captions as "name: caption / caption; name: caption" are these. */
void assert_contents(const ct_dataset *dataset, const char *expected);

/* Parses with automatic format, checks contents and number of skipped rows. */
void assert_parses(const char *text, int32_t skipped, const char *expected);

/* `photos` photos "p0", "p1", ... with `captions` captions each. */
ct_dataset *numbered(int32_t photos, int32_t captions);

/* A new folder for a test's files; path_in and remove_folder take it. */
typedef struct test_folder {
    char path[256];
} test_folder;
test_folder make_folder(void);
void remove_folder(const test_folder *folder);
/* Writes folder/name; out = its path. */
void write_file(const test_folder *folder, const char *name, const char *text, char out[512]);

int run_parse_tests(void);
int run_csv_tests(void);
int run_split_tests(void);
int run_folder_tests(void);
int run_sampler_tests(void);

#endif
