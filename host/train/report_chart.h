/* Line charts as inline SVG. Colours and type come from the page's style sheet, so a chart follows
 * the light and the dark scheme. */
#ifndef CT_TRAIN_REPORT_CHART_H
#define CT_TRAIN_REPORT_CHART_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct ct_series {
    const char *name; /* written beside the line's end; NULL: a faint line without name or points */
    const double *x, *y; /* (count); x ascends; points whose y is not finite are left out */
    int64_t count;
} ct_series;

typedef struct ct_chart {
    const char *title, *note; /* plain text */
    const char *unit;         /* behind values in tooltips, e.g. "%" */
    int decimals;             /* of values */
    bool from_zero;           /* the y axis starts at 0 */
    double y_limit;           /* the y axis goes no further than this; 0: no limit */
    const ct_series *series;  /* at most 4 */
    int series_count;
} ct_chart;

/* A <figure>. Long series are thinned: faint ones to their range, others to their last value, of
 * as many stretches as the drawing can show. x is the step and starts at 0. */
void ct_chart_write(FILE *stream, const ct_chart *chart);

#endif
