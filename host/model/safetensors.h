/* The safetensors file format (Hugging Face): 8 bytes of header length (little endian), a JSON
 * header { "name": {"dtype", "shape", "data_offsets"}, "__metadata__": {string: string} }, then the
 * tensors' bytes. Everything read is checked (length, bounds, overlaps, shape against size) before
 * it is used; a truncated or foreign file is CT_ERR_FORMAT with the file's name and what was
 * expected. */
#ifndef CT_MODEL_SAFETENSORS_H
#define CT_MODEL_SAFETENSORS_H

#include <stdint.h>

#include "base/file.h"
#include "base/status.h"

typedef enum ct_file_dtype {
    CT_FILE_F32,
    CT_FILE_F16,
    CT_FILE_BF16,
    CT_FILE_F64,
    CT_FILE_I64,
    CT_FILE_I32,
    CT_FILE_U8
} ct_file_dtype;

typedef struct ct_file_tensor {
    const char *name;
    ct_file_dtype dtype;
    int rank;
    int64_t dim[8];
    uint64_t begin, end; /* bytes, from the end of the header */
} ct_file_tensor;

/* ---- reading (the file is memory-mapped) ---- */
typedef struct ct_safetensors ct_safetensors;

CT_NODISCARD ct_status ct_safetensors_open(const char *path, ct_safetensors **out);
/* The same over bytes in memory (borrowed), for tests and the fuzzer. */
CT_NODISCARD ct_status ct_safetensors_parse(const uint8_t *bytes, size_t size, const char *name,
                                            ct_safetensors **out);
void ct_safetensors_close(ct_safetensors *file);

int ct_safetensors_count(const ct_safetensors *file);
const ct_file_tensor *ct_safetensors_at(const ct_safetensors *file, int index);
const ct_file_tensor *ct_safetensors_find(const ct_safetensors *file, const char *name);
const void *ct_safetensors_data(const ct_safetensors *file, const ct_file_tensor *tensor);
/* Value of a __metadata__ key; NULL when absent. */
const char *ct_safetensors_metadata(const ct_safetensors *file, const char *key);
const char *ct_safetensors_path(const ct_safetensors *file);

/* Converts count = product of dims elements of a floating tensor to f32; out has room for them. */
CT_NODISCARD ct_status ct_safetensors_read_f32(const ct_safetensors *file,
                                               const ct_file_tensor *tensor, float *out);

/* ---- writing ---- */
/* Tensors are declared first (that makes the header), then written in the same order. */
typedef struct ct_safetensors_writer ct_safetensors_writer;

CT_NODISCARD ct_status ct_safetensors_writer_create(ct_safetensors_writer **out);
CT_NODISCARD ct_status ct_safetensors_writer_metadata(ct_safetensors_writer *writer,
                                                      const char *key, const char *value);
CT_NODISCARD ct_status ct_safetensors_writer_declare(ct_safetensors_writer *writer,
                                                     const char *name, ct_file_dtype dtype,
                                                     int rank, const int64_t *dim);
/* Opens "<path>.tmp" and writes the header (padded so that data starts at a multiple of 64). */
CT_NODISCARD ct_status ct_safetensors_writer_begin(ct_safetensors_writer *writer, const char *path);
/* The next declared tensor's bytes. */
CT_NODISCARD ct_status ct_safetensors_writer_put(ct_safetensors_writer *writer, const void *bytes,
                                                 size_t size);
/* Syncs and renames into place (see base/file.h); CT_ERR_INTERNAL if tensors are missing. */
CT_NODISCARD ct_status ct_safetensors_writer_commit(ct_safetensors_writer *writer);
/* Frees the writer; an uncommitted file is removed. destroy(NULL) is fine. */
void ct_safetensors_writer_destroy(ct_safetensors_writer *writer);

#endif
