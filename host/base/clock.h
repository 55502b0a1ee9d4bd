/* Elapsed time. */
#ifndef CT_BASE_CLOCK_H
#define CT_BASE_CLOCK_H

/* Seconds since some fixed moment; never goes back. */
double ct_clock_seconds(void);

#endif
