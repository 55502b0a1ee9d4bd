/* Ctrl-C, SIGTERM, and SIGUSR1 (which batch systems send before time is up, and mpirun hands on) as
 * a question the program asks when it is safe to stop, without globals: the
 * signals are blocked and read through a descriptor (signalfd(2)). After the first one they have
 * their usual effect again, so a second Ctrl-C ends the program at once. */
#ifndef CT_BASE_INTERRUPT_H
#define CT_BASE_INTERRUPT_H

#include <stdbool.h>

#include "base/status.h"

typedef struct ct_interrupt {
    int descriptor; /* -1: not watching */
    int signal;     /* the one that came; 0: none yet */
} ct_interrupt;

/* Call before any thread is started: threads inherit the blocked signals. */
CT_NODISCARD ct_status ct_interrupt_open(ct_interrupt *interrupt);
void ct_interrupt_close(ct_interrupt *interrupt);

/* Never waits. NULL is never pending. */
bool ct_interrupt_pending(ct_interrupt *interrupt);

#endif
