/* Messages to people, on standard error, one line each: "warning: ...". On a terminal a line first
 * clears the progress bar, which is drawn again by its owner. Thread-safe. */
#ifndef CT_BASE_LOG_H
#define CT_BASE_LOG_H

#include "base/status.h"

typedef enum ct_log_level { CT_LOG_ERROR, CT_LOG_WARNING, CT_LOG_INFO, CT_LOG_DEBUG } ct_log_level;

/* Messages above `level` are dropped. Initially CT_LOG_INFO. Call before starting threads. */
void ct_log_set_level(ct_log_level level);

void ct_log(ct_log_level level, const char *format, ...) CT_PRINTF(2, 3);

#endif
