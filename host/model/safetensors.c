/* Reading. The header is parsed by cJSON and the tree is kept: names and metadata point into it. */
#include "model/safetensors.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "model/safetensors_format.h"

struct ct_safetensors {
    char *path;
    const uint8_t *bytes; /* the whole file */
    size_t size;
    const uint8_t *data; /* behind the header */
    uint64_t data_bytes;
    cJSON *header;
    const cJSON *metadata;   /* in header; NULL when absent */
    ct_file_tensor *tensors; /* sorted by name */
    int count;
    bool mapped;
};

/* *out = a count from the header. cJSON's doubles are exact up to 2^53, more than a file can hold.
 */
static bool read_count(const cJSON *item, uint64_t *out)
{
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble <= 0x1p53))
        return false;
    *out = (uint64_t)item->valuedouble;
    return (double)*out == item->valuedouble;
}

static ct_status bad_tensor(const ct_safetensors *file, const char *name, const char *problem)
{
    return ct_fail(CT_ERR_FORMAT, "%s: safetensors tensor \"%.100s\": %s", file->path, name,
                   problem);
}

static ct_status read_dtype(const ct_safetensors *file, const cJSON *item, ct_file_tensor *tensor)
{
    if (!cJSON_IsString(item)) return bad_tensor(file, tensor->name, "\"dtype\" is not a string");
    for (int i = 0; i < CT_FILE_DTYPES; i++) {
        if (strcmp(item->valuestring, ct_file_dtype_table[i].name) != 0) continue;
        tensor->dtype = (ct_file_dtype)i;
        return CT_OK;
    }
    return ct_fail(CT_ERR_FORMAT,
                   "%s: safetensors tensor \"%.100s\" has dtype \"%.20s\"; expected F32, F16, "
                   "BF16, F64, I64, I32 or U8",
                   file->path, tensor->name, item->valuestring);
}

static ct_status read_shape(const ct_safetensors *file, const cJSON *item, ct_file_tensor *tensor)
{
    const cJSON *element;
    uint64_t value;
    if (!cJSON_IsArray(item)) return bad_tensor(file, tensor->name, "\"shape\" is not an array");
    tensor->rank = 0;
    cJSON_ArrayForEach(element, item)
    {
        if (tensor->rank == CT_SAFETENSORS_MAX_RANK)
            return bad_tensor(file, tensor->name, "\"shape\" has more than 8 dimensions");
        if (!read_count(element, &value))
            return bad_tensor(file, tensor->name, "\"shape\" is not made of whole numbers");
        tensor->dim[tensor->rank++] = (int64_t)value;
    }
    for (int i = tensor->rank; i < CT_SAFETENSORS_MAX_RANK; i++) tensor->dim[i] = 1;
    return CT_OK;
}

static ct_status read_offsets(const ct_safetensors *file, const cJSON *item, ct_file_tensor *tensor)
{
    if (!cJSON_IsArray(item) || !item->child || !item->child->next || item->child->next->next ||
        !read_count(item->child, &tensor->begin) || !read_count(item->child->next, &tensor->end))
        return bad_tensor(file, tensor->name, "\"data_offsets\" is not two whole numbers");
    if (tensor->begin > tensor->end || tensor->end > file->data_bytes)
        return ct_fail(CT_ERR_FORMAT,
                       "%s: safetensors tensor \"%.100s\" is said to be at bytes %llu to %llu of "
                       "the data, but there are %llu: the file is cut off or damaged",
                       file->path, tensor->name, (unsigned long long)tensor->begin,
                       (unsigned long long)tensor->end, (unsigned long long)file->data_bytes);
    return CT_OK;
}

static ct_status read_tensor(const ct_safetensors *file, const cJSON *item, ct_file_tensor *tensor)
{
    const cJSON *dtype = NULL, *shape = NULL, *offsets = NULL, *member;
    tensor->name = item->string;
    if (!cJSON_IsObject(item)) return bad_tensor(file, tensor->name, "its entry is not an object");
    cJSON_ArrayForEach(member, item)
    {
        const cJSON **slot = strcmp(member->string, "dtype") == 0          ? &dtype
                             : strcmp(member->string, "shape") == 0        ? &shape
                             : strcmp(member->string, "data_offsets") == 0 ? &offsets
                                                                           : NULL;
        if (!slot || *slot)
            return bad_tensor(file, tensor->name,
                              "its entry must have dtype, shape and data_offsets once each and "
                              "nothing else");
        *slot = member;
    }
    CT_TRY(read_dtype(file, dtype, tensor));
    CT_TRY(read_shape(file, shape, tensor));
    CT_TRY(read_offsets(file, offsets, tensor));
    uint64_t bytes;
    if (!ct_file_tensor_bytes(tensor->dtype, tensor->rank, tensor->dim, &bytes) ||
        bytes != tensor->end - tensor->begin)
        return bad_tensor(file, tensor->name, "its shape and its data_offsets disagree");
    return CT_OK;
}

static ct_status read_metadata(ct_safetensors *file, const cJSON *item)
{
    const cJSON *member;
    if (file->metadata || !cJSON_IsObject(item))
        return ct_fail(CT_ERR_FORMAT, "%s: " CT_SAFETENSORS_METADATA " is not one object",
                       file->path);
    cJSON_ArrayForEach(member, item)
    {
        if (!cJSON_IsString(member))
            return ct_fail(CT_ERR_FORMAT,
                           "%s: " CT_SAFETENSORS_METADATA " key \"%.100s\" is not a string",
                           file->path, member->string);
    }
    file->metadata = item;
    return CT_OK;
}

static int by_place(const void *a, const void *b)
{
    const ct_file_tensor *left = a, *right = b;
    if (left->begin != right->begin) return left->begin < right->begin ? -1 : 1;
    if (left->end != right->end) return left->end < right->end ? -1 : 1;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    const ct_file_tensor *left = a, *right = b;
    return strcmp(left->name, right->name);
}

/* The format wants the tensors to cover the data exactly: no overlap, no hole, no rest. */
static ct_status check_cover(ct_safetensors *file)
{
    uint64_t at = 0;
    if (file->count) qsort(file->tensors, (size_t)file->count, sizeof *file->tensors, by_place);
    for (int i = 0; i < file->count; i++) {
        const ct_file_tensor *tensor = &file->tensors[i];
        if (tensor->begin != at)
            return bad_tensor(file, tensor->name,
                              tensor->begin < at ? "it overlaps another tensor"
                                                 : "there is a hole in the data before it");
        at = tensor->end;
    }
    if (at != file->data_bytes)
        return ct_fail(CT_ERR_FORMAT,
                       "%s: the safetensors header describes %llu bytes of data, found %llu",
                       file->path, (unsigned long long)at, (unsigned long long)file->data_bytes);
    return CT_OK;
}

static ct_status read_tensors(ct_safetensors *file)
{
    const cJSON *item;
    size_t capacity = 0;
    cJSON_ArrayForEach(item, file->header)
    {
        if (strcmp(item->string, CT_SAFETENSORS_METADATA) == 0) {
            CT_TRY(read_metadata(file, item));
            continue;
        }
        CT_TRY(ct_grow(&file->tensors, &capacity, (size_t)file->count + 1, sizeof *file->tensors,
                       "tensor descriptions"));
        CT_TRY(read_tensor(file, item, &file->tensors[file->count]));
        file->count++;
    }
    CT_TRY(check_cover(file));
    if (!file->count) return CT_OK;
    qsort(file->tensors, (size_t)file->count, sizeof *file->tensors, by_name);
    for (int i = 1; i < file->count; i++)
        if (strcmp(file->tensors[i - 1].name, file->tensors[i].name) == 0)
            return bad_tensor(file, file->tensors[i].name, "it is there twice");
    return CT_OK;
}

/* Parses `size` bytes of JSON. They are copied to get a NUL behind them, which keeps cJSON's
 * "nothing but white space may follow" check. */
static ct_status parse_header(ct_safetensors *file, const uint8_t *json, size_t size)
{
    char *text;
    if (!ct_utf8_valid((const char *)json, size) || memchr(json, '\0', size))
        return ct_fail(CT_ERR_FORMAT, "%s: the safetensors header is not UTF-8 text", file->path);
    CT_TRY(ct_alloc(size + 1, 1, "a safetensors header", &text));
    memcpy(text, json, size);
    file->header = cJSON_ParseWithLengthOpts(text, size + 1, NULL, true);
    free(text);
    if (!cJSON_IsObject(file->header))
        return ct_fail(CT_ERR_FORMAT, "%s: the safetensors header is not a JSON object",
                       file->path);
    return read_tensors(file);
}

static ct_status parse(ct_safetensors *file)
{
    uint64_t header_bytes = 0;
    if (file->size < CT_SAFETENSORS_PREFIX_BYTES)
        return ct_fail(CT_ERR_FORMAT,
                       "%s: not a safetensors file: %zu bytes, at least 8 were expected",
                       file->path, file->size);
    memcpy(&header_bytes, file->bytes, CT_SAFETENSORS_PREFIX_BYTES);
    size_t behind_prefix = file->size - CT_SAFETENSORS_PREFIX_BYTES;
    if (header_bytes > CT_SAFETENSORS_MAX_HEADER_BYTES || header_bytes > behind_prefix)
        return ct_fail(CT_ERR_FORMAT,
                       "%s: not a safetensors file, or cut off: it starts with a header length of "
                       "%llu bytes, and %zu bytes follow",
                       file->path, (unsigned long long)header_bytes, behind_prefix);
    file->data = file->bytes + CT_SAFETENSORS_PREFIX_BYTES + header_bytes;
    file->data_bytes = behind_prefix - header_bytes;
    return parse_header(file, file->bytes + CT_SAFETENSORS_PREFIX_BYTES, (size_t)header_bytes);
}

static ct_status map_file(ct_safetensors *file)
{
    struct stat info;
    int descriptor = open(file->path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return ct_fail_errno(CT_ERR_IO, "%s: cannot open", file->path);
    ct_status status = CT_OK;
    if (fstat(descriptor, &info) != 0)
        status = ct_fail_errno(CT_ERR_IO, "%s: cannot read", file->path);
    else if (!S_ISREG(info.st_mode))
        status = ct_fail(CT_ERR_IO, "%s: not a regular file", file->path);
    else if (info.st_size > 0) { /* an empty file cannot be mapped; parse() rejects it */
        void *bytes = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
        if (bytes == MAP_FAILED) {
            status = ct_fail_errno(CT_ERR_IO, "%s: cannot map", file->path);
        } else {
            file->bytes = bytes;
            file->size = (size_t)info.st_size;
            file->mapped = true;
        }
    }
    close(descriptor);
    return status;
}

ct_status ct_safetensors_open(const char *path, ct_safetensors **out)
{
    ct_safetensors *file;
    CT_TRY(ct_alloc(1, sizeof *file, "a safetensors file", &file));
    ct_status status = ct_strdup(path, &file->path);
    if (status == CT_OK) status = map_file(file);
    if (status == CT_OK) status = parse(file);
    if (status != CT_OK) {
        ct_safetensors_close(file);
        return status;
    }
    *out = file;
    return CT_OK;
}

ct_status ct_safetensors_parse(const uint8_t *bytes, size_t size, const char *name,
                               ct_safetensors **out)
{
    ct_safetensors *file;
    CT_TRY(ct_alloc(1, sizeof *file, "a safetensors file", &file));
    file->bytes = bytes;
    file->size = size;
    ct_status status = ct_strdup(name, &file->path);
    if (status == CT_OK) status = parse(file);
    if (status != CT_OK) {
        ct_safetensors_close(file);
        return status;
    }
    *out = file;
    return CT_OK;
}

void ct_safetensors_close(ct_safetensors *file)
{
    if (!file) return;
    cJSON_Delete(file->header);
    free(file->tensors);
    free(file->path);
    if (file->mapped) munmap((void *)file->bytes, file->size);
    free(file);
}

int ct_safetensors_count(const ct_safetensors *file)
{
    return file->count;
}

const ct_file_tensor *ct_safetensors_at(const ct_safetensors *file, int index)
{
    return &file->tensors[index];
}

const ct_file_tensor *ct_safetensors_find(const ct_safetensors *file, const char *name)
{
    ct_file_tensor wanted = {.name = name};
    if (!file->count) return NULL;
    return bsearch(&wanted, file->tensors, (size_t)file->count, sizeof wanted, by_name);
}

const void *ct_safetensors_data(const ct_safetensors *file, const ct_file_tensor *tensor)
{
    return file->data + tensor->begin;
}

const char *ct_safetensors_metadata(const ct_safetensors *file, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(file->metadata, key);
    return item ? item->valuestring : NULL;
}

const char *ct_safetensors_path(const ct_safetensors *file)
{
    return file->path;
}

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* IEEE 754 binary16 to binary32, exact. NaN keeps its payload. */
static float half_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t exponent = half >> 10 & 0x1F, fraction = half & 0x3FF;
    if (exponent == 0x1F) return from_bits(sign | 0x7F800000 | fraction << 13);
    if (exponent) return from_bits(sign | (exponent + 127 - 15) << 23 | fraction << 13);
    float magnitude = (float)fraction * 0x1p-24f;
    return sign ? -magnitude : magnitude;
}

ct_status ct_safetensors_read_f32(const ct_safetensors *file, const ct_file_tensor *tensor,
                                  float *out)
{
    const uint8_t *data = file->data + tensor->begin;
    uint64_t bytes = tensor->end - tensor->begin;
    uint64_t count = bytes / ct_file_dtype_table[tensor->dtype].bytes;
    uint16_t word;
    double wide;
    switch (tensor->dtype) {
    case CT_FILE_F32:
        memcpy(out, data, (size_t)bytes);
        return CT_OK;
    case CT_FILE_F16:
        for (uint64_t i = 0; i < count; i++) {
            memcpy(&word, data + i * sizeof word, sizeof word);
            out[i] = half_to_float(word);
        }
        return CT_OK;
    case CT_FILE_BF16:
        for (uint64_t i = 0; i < count; i++) {
            memcpy(&word, data + i * sizeof word, sizeof word);
            out[i] = from_bits((uint32_t)word << 16);
        }
        return CT_OK;
    case CT_FILE_F64:
        for (uint64_t i = 0; i < count; i++) {
            memcpy(&wide, data + i * sizeof wide, sizeof wide);
            out[i] = (float)wide;
        }
        return CT_OK;
    case CT_FILE_I64:
    case CT_FILE_I32:
    case CT_FILE_U8:
        break;
    }
    return ct_fail(CT_ERR_FORMAT,
                   "%s: tensor \"%.100s\" has dtype %s; expected F32, F16, BF16 or F64", file->path,
                   tensor->name, ct_file_dtype_table[tensor->dtype].name);
}
