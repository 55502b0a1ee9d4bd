/* What the reader and the writer of safetensors files share. Private to them. */
#ifndef CT_MODEL_SAFETENSORS_FORMAT_H
#define CT_MODEL_SAFETENSORS_FORMAT_H

#include <stdbool.h>

#include "model/safetensors.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "safetensors files are little endian and are used in place");

#define CT_SAFETENSORS_PREFIX_BYTES 8
/* The reference implementation's limit, against files that only ask for memory. */
#define CT_SAFETENSORS_MAX_HEADER_BYTES 100000000
#define CT_SAFETENSORS_MAX_RANK         8
#define CT_SAFETENSORS_METADATA         "__metadata__"

/* Indexed by ct_file_dtype. */
typedef struct ct_file_dtype_info {
    const char *name;
    uint64_t bytes;
} ct_file_dtype_info;

#define CT_FILE_DTYPES 7
extern const ct_file_dtype_info ct_file_dtype_table[CT_FILE_DTYPES];

/* *bytes = the bytes of a tensor of this shape; false when a dimension is negative or the product
 * does not fit. */
bool ct_file_tensor_bytes(ct_file_dtype dtype, int rank, const int64_t *dim, uint64_t *bytes);

/* Whether text is UTF-8 (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF). */
bool ct_utf8_valid(const char *text, size_t size);

#endif
