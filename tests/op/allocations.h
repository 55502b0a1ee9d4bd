/* Counts the heap allocations that the project's own code makes (statically linked into this
 * executable), and not those of the libraries it calls. */
#ifndef CT_TESTS_OP_ALLOCATIONS_H
#define CT_TESTS_OP_ALLOCATIONS_H

/* Allocations so far; -1 where they cannot be counted (under a sanitizer). Weak: an executable that
 * does not link allocations.c does not count. */
long ct_own_allocations(void) __attribute__((weak));

#endif
