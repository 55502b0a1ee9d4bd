#include "base/interrupt.h"

#include <signal.h>
#include <stddef.h>
#include <sys/signalfd.h>
#include <unistd.h>

static sigset_t watched_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1);
    return set;
}

ct_status ct_interrupt_open(ct_interrupt *interrupt)
{
    sigset_t set = watched_signals();
    *interrupt = (ct_interrupt){.descriptor = -1};
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
        return ct_fail_errno(CT_ERR_INTERNAL, "cannot block signals");
    interrupt->descriptor = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (interrupt->descriptor < 0) return ct_fail_errno(CT_ERR_INTERNAL, "cannot watch signals");
    return CT_OK;
}

void ct_interrupt_close(ct_interrupt *interrupt)
{
    if (interrupt->descriptor < 0) return;
    sigset_t set = watched_signals();
    close(interrupt->descriptor);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    *interrupt = (ct_interrupt){.descriptor = -1};
}

bool ct_interrupt_pending(ct_interrupt *interrupt)
{
    struct signalfd_siginfo info;
    if (!interrupt) return false;
    if (interrupt->signal) return true;
    if (interrupt->descriptor < 0 ||
        read(interrupt->descriptor, &info, sizeof info) != (ssize_t)sizeof info)
        return false;
    ct_interrupt_close(interrupt);
    interrupt->signal = (int)info.ssi_signo;
    return true;
}
