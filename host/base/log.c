#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static ct_log_level threshold = CT_LOG_INFO;

void ct_log_set_level(ct_log_level level)
{
    threshold = level;
}

void ct_log(ct_log_level level, const char *format, ...)
{
    static const char *const prefix[] = {"error: ", "warning: ", "", "debug: "};
    if (level > threshold) return;
    va_list args;
    va_start(args, format);
    flockfile(stderr);
    if (isatty(STDERR_FILENO)) fputs("\r\033[K", stderr);
    fputs(prefix[level], stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    funlockfile(stderr);
    va_end(args);
}
