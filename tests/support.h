/* What all test programs share: assertions on statuses, memory, files in a folder of a test's own,
 * and what is written to standard error. Modules add theirs in <module>/support.h. */
#ifndef CT_TESTS_SUPPORT_H
#define CT_TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/status.h"

/* Photos of all kinds, good and bad. */
#define IMAGES_FOLDER "tests/reference/data/images"

/* ---- statuses ------------------------------------------------------------------------------- */

/* Passes, or fails the test with the thread's message. */
#define assert_ok(expression)                                                                      \
    do {                                                                                           \
        if ((expression) != CT_OK) fail_msg("%s: %s", #expression, ct_error_message());            \
    } while (0)

/* The expression fails with this status, and the thread's message contains `text`. */
#define assert_fails(expression, status, text)                                                     \
    assert_failure(expression, status, message_contains(text), text)

/* The same for a message that ends with `text`. */
#define assert_fails_ending(expression, status, text)                                              \
    assert_failure(expression, status, message_ends_with(text), text)

/* What the two above share; `holds` is evaluated after the expression. */
#define assert_failure(expression, status, holds, text)                                            \
    do {                                                                                           \
        ct_status found_ = (expression);                                                           \
        if (found_ != (status) || !(holds))                                                        \
            fail_msg("%s: expected %s, \"%s\"; found %s, \"%s\"", #expression,                     \
                     ct_status_name(status), text, ct_status_name(found_), ct_error_message());    \
    } while (0)

bool message_contains(const char *text);
bool message_ends_with(const char *text);

/* ---- memory and files ----------------------------------------------------------------------- */

/* Zeroed memory of exactly this size; free(). Never NULL: the test fails when there is none. */
void *must_alloc(size_t bytes);

/* The whole file with a NUL behind it; free(). `size` may be NULL. */
char *read_text(const char *path, size_t *size);

/* The file is these bytes. */
void write_bytes(const char *path, const void *bytes, size_t size);

/* The path of a new, empty folder for temporary files. */
char *folder_create(void);

/* Removes the folder with everything in it and frees its path. */
void folder_remove(char *folder);

/* cmocka's setup and teardown of a test whose *state is such a folder. */
int folder_setup(void **state);
int folder_teardown(void **state);

/* <folder>/<name>, valid until the next call. */
const char *in_folder(const char *folder, const char *name);

/* ---- standard error ------------------------------------------------------------------------- */

/* Standard error is kept from the first call to the second, which returns its text; free(). */
typedef struct capture {
    FILE *file;
    int standard_error;
} capture;

capture capture_begin(void);
char *capture_end(const capture *kept);

#endif
