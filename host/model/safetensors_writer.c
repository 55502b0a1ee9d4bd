/* Writing. The header is a cJSON tree that declarations are added to. */
#include <assert.h>
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/safetensors_format.h"

#define DATA_ALIGNMENT 64

struct ct_safetensors_writer {
    cJSON *header;
    cJSON *metadata; /* in header; NULL while there is none */
    uint64_t *sizes; /* of each declared tensor, in bytes */
    size_t capacity;
    size_t declared, written;
    uint64_t end; /* of the data declared so far */
    ct_writer file;
};

static ct_status header_memory(void)
{
    return ct_fail(CT_ERR_MEMORY, "out of host memory: a safetensors header");
}

ct_status ct_safetensors_writer_create(ct_safetensors_writer **out)
{
    ct_safetensors_writer *writer;
    CT_TRY(ct_alloc(1, sizeof *writer, "a safetensors writer", &writer));
    writer->header = cJSON_CreateObject();
    if (!writer->header) {
        free(writer);
        return header_memory();
    }
    *out = writer;
    return CT_OK;
}

void ct_safetensors_writer_destroy(ct_safetensors_writer *writer)
{
    if (!writer) return;
    ct_writer_abandon(&writer->file);
    cJSON_Delete(writer->header);
    free(writer->sizes);
    free(writer);
}

ct_status ct_safetensors_writer_metadata(ct_safetensors_writer *writer, const char *key,
                                         const char *value)
{
    if (!ct_utf8_valid(key, strlen(key)) || !ct_utf8_valid(value, strlen(value)))
        return ct_fail(CT_ERR_ARGUMENT, "safetensors metadata \"%.100s\" is not UTF-8", key);
    if (!writer->metadata)
        writer->metadata = cJSON_AddObjectToObject(writer->header, CT_SAFETENSORS_METADATA);
    if (!writer->metadata) return header_memory();
    if (cJSON_GetObjectItemCaseSensitive(writer->metadata, key))
        return ct_fail(CT_ERR_INTERNAL, "safetensors metadata \"%s\" is set twice", key);
    if (!cJSON_AddStringToObject(writer->metadata, key, value)) return header_memory();
    return CT_OK;
}

static bool add_number(cJSON *array, uint64_t value)
{
    return cJSON_AddItemToArray(array, cJSON_CreateNumber((double)value));
}

static ct_status describe(ct_safetensors_writer *writer, const char *name, ct_file_dtype dtype,
                          int rank, const int64_t *dim, uint64_t bytes)
{
    cJSON *entry = cJSON_AddObjectToObject(writer->header, name);
    if (!cJSON_AddStringToObject(entry, "dtype", ct_file_dtype_table[dtype].name))
        return header_memory();
    cJSON *shape = cJSON_AddArrayToObject(entry, "shape");
    cJSON *offsets = cJSON_AddArrayToObject(entry, "data_offsets");
    if (!shape || !offsets) return header_memory();
    for (int i = 0; i < rank; i++)
        if (!add_number(shape, (uint64_t)dim[i])) return header_memory();
    if (!add_number(offsets, writer->end) || !add_number(offsets, writer->end + bytes))
        return header_memory();
    return CT_OK;
}

ct_status ct_safetensors_writer_declare(ct_safetensors_writer *writer, const char *name,
                                        ct_file_dtype dtype, int rank, const int64_t *dim)
{
    uint64_t bytes;
    if (rank < 0 || rank > CT_SAFETENSORS_MAX_RANK ||
        !ct_file_tensor_bytes(dtype, rank, dim, &bytes) || bytes > (1ull << 53) - writer->end)
        return ct_fail(CT_ERR_INTERNAL, "safetensors tensor \"%.100s\" has an impossible shape",
                       name);
    if (!ct_utf8_valid(name, strlen(name)) || strcmp(name, CT_SAFETENSORS_METADATA) == 0)
        return ct_fail(CT_ERR_INTERNAL, "safetensors tensor \"%.100s\": not a possible name", name);
    if (cJSON_GetObjectItemCaseSensitive(writer->header, name))
        return ct_fail(CT_ERR_INTERNAL, "safetensors tensor \"%.100s\" is declared twice", name);
    CT_TRY(ct_grow(&writer->sizes, &writer->capacity, writer->declared + 1, sizeof *writer->sizes,
                   "tensor sizes"));
    CT_TRY(describe(writer, name, dtype, rank, dim, bytes));
    writer->sizes[writer->declared++] = bytes;
    writer->end += bytes;
    return CT_OK;
}

ct_status ct_safetensors_writer_begin(ct_safetensors_writer *writer, const char *path)
{
    static const char spaces[DATA_ALIGNMENT] =
        "                                                               ";
    char *json = cJSON_PrintUnformatted(writer->header);
    if (!json) return header_memory();
    size_t used = strlen(json);
    size_t padding =
        (DATA_ALIGNMENT - (CT_SAFETENSORS_PREFIX_BYTES + used) % DATA_ALIGNMENT) % DATA_ALIGNMENT;
    uint64_t header_bytes = used + padding;
    ct_status status;
    CT_TRY_GOTO(status, ct_writer_open(&writer->file, path), done);
    CT_TRY_GOTO(status, ct_writer_put(&writer->file, &header_bytes, sizeof header_bytes), done);
    CT_TRY_GOTO(status, ct_writer_put(&writer->file, json, used), done);
    CT_TRY_GOTO(status, ct_writer_put(&writer->file, spaces, padding), done);
done:
    cJSON_free(json);
    return status;
}

ct_status ct_safetensors_writer_put(ct_safetensors_writer *writer, const void *bytes, size_t size)
{
    assert(writer->file.stream);
    if (writer->written == writer->declared)
        return ct_fail(CT_ERR_INTERNAL, "safetensors: more tensors written than the %zu declared",
                       writer->declared);
    if (size != writer->sizes[writer->written])
        return ct_fail(CT_ERR_INTERNAL, "safetensors tensor %zu has %zu bytes; %llu were declared",
                       writer->written, size, (unsigned long long)writer->sizes[writer->written]);
    if (size) CT_TRY(ct_writer_put(&writer->file, bytes, size));
    writer->written++;
    return CT_OK;
}

ct_status ct_safetensors_writer_commit(ct_safetensors_writer *writer)
{
    assert(writer->file.stream);
    if (writer->written != writer->declared)
        return ct_fail(CT_ERR_INTERNAL, "safetensors: %zu of %zu declared tensors were written",
                       writer->written, writer->declared);
    return ct_writer_commit(&writer->file);
}
