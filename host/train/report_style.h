/* The report's style sheet: light and dark by the reader's preference, from phone to desktop width,
 * and on paper. */
#ifndef CT_TRAIN_REPORT_STYLE_H
#define CT_TRAIN_REPORT_STYLE_H

extern const char ct_report_style[];

#endif
