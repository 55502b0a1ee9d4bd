/* Any bytes: either rejected with a message, or every tensor can be found and read in bounds. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ct_safetensors *file;
    if (ct_safetensors_parse(data, size, "fuzz", &file) != CT_OK) {
        require(ct_error_message()[0] != '\0');
        return 0;
    }
    for (int i = 0; i < ct_safetensors_count(file); i++) {
        const ct_file_tensor *tensor = ct_safetensors_at(file, i);
        require(ct_safetensors_find(file, tensor->name) == tensor);
        size_t bytes = (size_t)(tensor->end - tensor->begin);
        void *copy = malloc(bytes + 1);
        float *values = malloc(bytes * 2 + sizeof *values); /* two bytes make at most one f32 */
        require(copy && values);
        if (bytes) memcpy(copy, ct_safetensors_data(file, tensor), bytes);
        if (ct_safetensors_read_f32(file, tensor, values) != CT_OK)
            require(ct_error_message()[0] != '\0');
        free(values);
        free(copy);
    }
    const char *value = ct_safetensors_metadata(file, "format");
    if (value) require(strlen(value) <= size);
    ct_safetensors_close(file);
    return 0;
}
