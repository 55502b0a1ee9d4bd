#include "support.h"

#include <stdlib.h>
#include <string.h>

uint32_t crc32_of(const void *bytes, size_t size)
{
    const uint8_t *at = bytes;
    uint32_t crc = ~0u;
    for (size_t i = 0; i < size; i++) {
        crc ^= at[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

uint8_t *pattern(int32_t width, int32_t height)
{
    size_t size = (size_t)width * (size_t)height * 3;
    uint8_t *bytes = must_alloc(size);
    uint32_t state = 12345;
    for (size_t i = 0; i < size; i++) {
        state = state * 1103515245u + 12345u;
        uint32_t noise = state >> 24;
        bytes[i] = (uint8_t)(noise & 3 ? i * 5 / 3 + (noise & 31) : noise);
    }
    return bytes;
}

int for_each_golden(const char *kind, void (*check)(ct_decoder *decoder, const char *line))
{
    char line[512];
    size_t length = strlen(kind);
    int count = 0;
    ct_decoder *decoder;
    FILE *file = fopen(IMAGES_FOLDER "/golden.txt", "r");
    assert_non_null(file);
    assert_ok(ct_decoder_create(&decoder));
    while (fgets(line, sizeof line, file)) {
        if (strncmp(line, kind, length) != 0 || line[length] != ' ') continue;
        line[strcspn(line, "\n")] = '\0';
        check(decoder, line + length + 1);
        count++;
    }
    ct_decoder_destroy(decoder);
    fclose(file);
    return count;
}
