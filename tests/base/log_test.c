#include "base/log.h"

#include <unistd.h>

#include "support.h"

/* Standard error into a file, so not a terminal: no escape sequences. */
static void levels(void **state)
{
    (void)state;
    char found[256] = "";
    int saved = dup(STDERR_FILENO);
    FILE *file = tmpfile();
    assert_non_null(file);
    fflush(stderr);
    dup2(fileno(file), STDERR_FILENO);
    ct_log(CT_LOG_DEBUG, "dropped");
    ct_log(CT_LOG_INFO, "step %d", 1);
    ct_log_set_level(CT_LOG_WARNING);
    ct_log(CT_LOG_INFO, "dropped");
    ct_log(CT_LOG_WARNING, "odd");
    ct_log(CT_LOG_ERROR, "bad");
    ct_log_set_level(CT_LOG_DEBUG);
    ct_log(CT_LOG_DEBUG, "more");
    ct_log_set_level(CT_LOG_INFO);
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    rewind(file);
    size_t size = fread(found, 1, sizeof found - 1, file);
    found[size] = '\0';
    fclose(file);
    assert_string_equal(found, "step 1\nwarning: odd\nerror: bad\ndebug: more\n");
}

int run_log_tests(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(levels)};
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
