#include "base/log.h"

#include <stdlib.h>

#include "support.h"

/* Standard error into a file, so not a terminal: no escape sequences. */
static void levels(void **state)
{
    (void)state;
    const capture kept = capture_begin();
    ct_log(CT_LOG_DEBUG, "dropped");
    ct_log(CT_LOG_INFO, "step %d", 1);
    ct_log_set_level(CT_LOG_WARNING);
    ct_log(CT_LOG_INFO, "dropped");
    ct_log(CT_LOG_WARNING, "odd");
    ct_log(CT_LOG_ERROR, "bad");
    ct_log_set_level(CT_LOG_DEBUG);
    ct_log(CT_LOG_DEBUG, "more");
    ct_log_set_level(CT_LOG_INFO);
    char *found = capture_end(&kept);
    assert_string_equal(found, "step 1\nwarning: odd\nerror: bad\ndebug: more\n");
    free(found);
}

int run_log_tests(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(levels)};
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
