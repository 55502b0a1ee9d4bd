#include "base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MESSAGE_BYTES 1024

static _Thread_local char message[MESSAGE_BYTES];

/* Formats into `message` through a second buffer: an argument may be the old message itself. */
static void set_message(const char *format, va_list args, const char *separator, const char *tail)
{
    char text[MESSAGE_BYTES], kept[MESSAGE_BYTES];
    snprintf(kept, sizeof kept, "%s", tail);
    vsnprintf(text, sizeof text, format, args);
    size_t used = strlen(text);
    snprintf(text + used, sizeof text - used, "%s%s", separator, kept);
    memcpy(message, text, sizeof message);
}

ct_status ct_fail(ct_status code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    set_message(format, args, "", "");
    va_end(args);
    return code;
}

ct_status ct_fail_errno(ct_status code, const char *format, ...)
{
    int error = errno;
    va_list args;
    va_start(args, format);
    set_message(format, args, ": ", strerror(error));
    va_end(args);
    return code;
}

ct_status ct_fail_context(ct_status code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    set_message(format, args, ": ", message);
    va_end(args);
    return code;
}

const char *ct_error_message(void)
{
    return message;
}

const char *ct_status_name(ct_status status)
{
    switch (status) {
    case CT_OK:
        return "no error";
    case CT_ERR_ARGUMENT:
        return "wrong argument";
    case CT_ERR_CONFIG:
        return "wrong configuration";
    case CT_ERR_IO:
        return "input/output error";
    case CT_ERR_FORMAT:
        return "malformed file";
    case CT_ERR_MEMORY:
        return "out of memory";
    case CT_ERR_DEVICE:
        return "device error";
    case CT_ERR_UNSUPPORTED:
        return "not supported";
    case CT_ERR_NUMERIC:
        return "not finite";
    case CT_ERR_INTERRUPTED:
        return "interrupted";
    case CT_ERR_INTERNAL:
        return "internal error";
    }
    return "unknown error";
}
