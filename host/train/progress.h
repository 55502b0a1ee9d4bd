/* What a person sees while training, on standard error: a bar redrawn in place on a terminal,
 * plain lines (at most one every `plain_seconds`, and whenever the caller forces one, as at an
 * epoch's end) elsewhere.
 *
 * epoch  3/12  [=========>         ]   45%  step 252/560  loss  1.832  R@10  41.2    61.0 photos/s
 * data wait   2%  ETA    03:12    (one line)
 *
 * Fields keep their widths, so nothing moves while numbers grow. On a narrow terminal the least
 * missed fields go first, and the bar shrinks. Nothing is allocated. */
#ifndef CT_TRAIN_PROGRESS_H
#define CT_TRAIN_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct ct_progress {
    FILE *stream;
    bool terminal;
    double plain_seconds;
    double last_drawn; /* seconds, monotonic; -INFINITY: nothing on the line */
} ct_progress;

typedef struct ct_progress_state {
    int64_t step, total_steps, epoch, epochs; /* epoch from 1 */
    double loss;
    double recall10; /* mean of both directions, percent; negative: none yet */
    double photos_per_second, data_wait_share, eta_seconds;
} ct_progress_state;

/* Tells whether `stream` is a terminal (and TERM is not "dumb"). */
void ct_progress_init(ct_progress *progress, FILE *stream);

/* Draws at most ten times a second on a terminal (always when `force`). The line is cut to the
 * terminal's width. A loss that is NaN, or an ETA that is negative or not finite, is shown as
 * such ("nan", "--:--"). */
void ct_progress_draw(ct_progress *progress, const ct_progress_state *state, bool force);

/* Leaves the bar's line, so that other output starts on a fresh one. */
void ct_progress_finish(ct_progress *progress);

#endif
