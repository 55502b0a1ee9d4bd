/* The rows of a captions file, one after the other, parsed in place: the strings handed out are
 * NUL-terminated pieces of the buffer. */
#ifndef CT_DATA_ROWS_H
#define CT_DATA_ROWS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "config/config.h"

typedef struct ct_row_reader {
    char *at, *end; /* what is left; *end is the NUL behind the buffer */
    size_t line;    /* of `at`, from 1 */
    ct_captions_format format;
} ct_row_reader;

typedef struct ct_row {
    size_t line; /* where it starts */
    const char *photo, *caption;
    const char *problem; /* what is wrong with it, or NULL; then photo and caption are not set */
} ct_row;

/* Starts at the first row of the buffer (size bytes and a NUL): skips a byte-order mark, tells the
 * format when `format` is CT_CAPTIONS_AUTO, checks and skips the header. `name` stands for the file
 * in the message of CT_ERR_FORMAT. */
CT_NODISCARD ct_status ct_rows_start(ct_row_reader *reader, char *buffer, size_t size,
                                     const char *name, ct_captions_format format);

/* false at the end. Lines of white space are no rows. */
bool ct_rows_next(ct_row_reader *reader, ct_row *row);

#endif
