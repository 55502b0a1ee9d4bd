/* Signals as questions, and the clock. */
#include "base/interrupt.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "support.h"

static void a_signal_is_pending_for_good(void **state)
{
    (void)state;
    static const int signals[] = {SIGINT, SIGTERM};
    for (int i = 0; i < 2; i++) {
        ct_interrupt interrupt;
        assert_ok(ct_interrupt_open(&interrupt));
        assert_false(ct_interrupt_pending(&interrupt));
        assert_int_equal(raise(signals[i]), 0);
        assert_true(ct_interrupt_pending(&interrupt));
        assert_true(ct_interrupt_pending(&interrupt));
        assert_int_equal(interrupt.signal, signals[i]);
        ct_interrupt_close(&interrupt);
    }
    assert_false(ct_interrupt_pending(NULL));
}

/* In a child: the first signal is noticed, the second ends it. */
static void the_second_signal_ends_the_program(void **state)
{
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        ct_interrupt interrupt;
        if (ct_interrupt_open(&interrupt) != CT_OK) _exit(1);
        raise(SIGTERM);
        if (!ct_interrupt_pending(&interrupt)) _exit(2);
        raise(SIGTERM);
        _exit(3);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGTERM);
}

static void the_clock_goes_on(void **state)
{
    (void)state;
    double before = ct_clock_seconds();
    usleep(20000);
    double passed = ct_clock_seconds() - before;
    assert_true(passed >= 0.02 && passed < 60);
}

int run_interrupt_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_signal_is_pending_for_good),
        cmocka_unit_test(the_second_signal_ends_the_program),
        cmocka_unit_test(the_clock_goes_on),
    };
    return cmocka_run_group_tests_name("interrupt", tests, NULL, NULL);
}
