#include "support.h"

#include <stdlib.h>
#include <string.h>

ct_dataset *parsed(const char *text, ct_captions_format format)
{
    ct_dataset *dataset;
    assert_ok(ct_dataset_parse(text, strlen(text), "c", format, 1.0, &dataset));
    return dataset;
}

void assert_contents(const ct_dataset *dataset, const char *expected)
{
    char *found;
    size_t size;
    FILE *stream = open_memstream(&found, &size);
    assert_non_null(stream);
    int32_t next = 0;
    for (int32_t p = 0; p < dataset->photo_count; p++) {
        const ct_photo *photo = &dataset->photos[p];
        assert_int_equal(photo->first_caption, next);
        fprintf(stream, "%s%s:", p ? "; " : "", photo->name);
        for (int32_t c = 0; c < photo->caption_count; c++, next++) {
            assert_int_equal(dataset->captions[next].photo, p);
            fprintf(stream, "%s %s", c ? " /" : "", dataset->captions[next].text);
        }
    }
    fclose(stream);
    assert_int_equal(next, dataset->caption_count);
    assert_string_equal(found, expected);
    free(found);
}

void assert_parses(const char *text, int32_t skipped, const char *expected)
{
    ct_dataset *dataset = parsed(text, CT_CAPTIONS_AUTO);
    assert_contents(dataset, expected);
    assert_int_equal(dataset->skipped_rows, skipped);
    ct_dataset_destroy(dataset);
}

ct_dataset *numbered(int32_t photos, int32_t captions)
{
    char *text;
    size_t size;
    FILE *stream = open_memstream(&text, &size);
    assert_non_null(stream);
    for (int32_t p = 0; p < photos; p++)
        for (int32_t c = 0; c < captions; c++) fprintf(stream, "p%d#%d\tcaption %d\n", p, c, c);
    fclose(stream);
    ct_dataset *dataset = parsed(text, CT_CAPTIONS_FLICKR8K_TOKEN);
    free(text);
    return dataset;
}
