/* Errors: every fallible function returns a ct_status; the message is set once, where it happens.
 *
 * The message says what was expected, what was found, and where in the *user's* input (file, line,
 * key). It is kept per thread; a thread that hands its failure to another copies ct_error_message()
 * and calls ct_fail again over there.
 */
#ifndef CT_BASE_STATUS_H
#define CT_BASE_STATUS_H

typedef enum ct_status {
    CT_OK = 0,
    CT_ERR_ARGUMENT,    /* wrong command line or wrong call */
    CT_ERR_CONFIG,      /* wrong key or value in a configuration */
    CT_ERR_IO,          /* a file cannot be opened, read, written or synced */
    CT_ERR_FORMAT,      /* a file's contents are not what they should be */
    CT_ERR_MEMORY,      /* out of memory */
    CT_ERR_DEVICE,      /* a compute library or device reported a failure */
    CT_ERR_UNSUPPORTED, /* valid, but this build or device cannot do it */
    CT_ERR_NUMERIC,     /* loss or gradients are not finite */
    CT_ERR_INTERRUPTED, /* the user asked to stop */
    CT_ERR_INTERNAL     /* a fault of our own */
} ct_status;

#define CT_NODISCARD                    __attribute__((warn_unused_result))
#define CT_PRINTF(fmt_index, arg_index) __attribute__((format(printf, fmt_index, arg_index)))

/* Sets this thread's message (at most 1,023 bytes, longer ones are cut) and returns `code`. */
CT_NODISCARD ct_status ct_fail(ct_status code, const char *format, ...) CT_PRINTF(2, 3);

/* As ct_fail, with ": " and errno's text added. Reads errno before anything else. */
CT_NODISCARD ct_status ct_fail_errno(ct_status code, const char *format, ...) CT_PRINTF(2, 3);

/* Puts text in front of the present message ("step 12: ..."), and returns `code` unchanged. */
CT_NODISCARD ct_status ct_fail_context(ct_status code, const char *format, ...) CT_PRINTF(2, 3);

/* The last message of this thread; "" when there was none. Valid until its next ct_fail*. */
const char *ct_error_message(void);

/* Name of a status for logs: "I/O error", ... Never NULL. */
const char *ct_status_name(ct_status status);

/* Returns from the calling function when `expression` fails. */
#define CT_TRY(expression)                                                                         \
    do {                                                                                           \
        ct_status ct_try_status_ = (expression);                                                   \
        if (ct_try_status_ != CT_OK) return ct_try_status_;                                        \
    } while (0)

/* Stores the status in `variable` and jumps to `label` when `expression` fails. */
#define CT_TRY_GOTO(variable, expression, label)                                                   \
    do {                                                                                           \
        (variable) = (expression);                                                                 \
        if ((variable) != CT_OK) goto label;                                                       \
    } while (0)

#endif
