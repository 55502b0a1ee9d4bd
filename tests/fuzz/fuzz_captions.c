/* Any bytes as a captions file, in every format: refused with a message, or a sound data set. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "config/text.h"
#include "data/dataset.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition) abort();
}

/* A trimmed, non-empty piece of the pool that is UTF-8. */
static void check_text(const char *text, const ct_dataset *dataset, size_t size)
{
    const char *pool = dataset->pool;
    size_t length = strlen(text);
    require(text >= pool && text + length <= pool + size);
    require(length > 0 && text[0] != ' ' && text[length - 1] != ' ');
    require(ct_is_utf8(text, length));
}

static void check(const ct_dataset *dataset, size_t size)
{
    int32_t next = 0;
    require(dataset->caption_count > 0);
    for (int32_t p = 0; p < dataset->photo_count; p++) {
        const ct_photo *photo = &dataset->photos[p];
        check_text(photo->name, dataset, size);
        require(photo->name[0] != '/' && strncmp(photo->name, "../", 3) != 0);
        require(!strstr(photo->name, "/../"));
        require(photo->first_caption == next && photo->caption_count > 0);
        require(photo->split == CT_SPLIT_NONE);
        for (int32_t c = 0; c < photo->caption_count; c++, next++) {
            check_text(dataset->captions[next].text, dataset, size);
            require(dataset->captions[next].photo == p);
        }
    }
    require(next == dataset->caption_count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ct_log_set_level(CT_LOG_ERROR);
    for (int format = CT_CAPTIONS_AUTO; format <= CT_CAPTIONS_FLICKR30K_KAGGLE; format++) {
        ct_dataset *dataset;
        ct_status status = ct_dataset_parse((const char *)data, size, "fuzz",
                                            (ct_captions_format)format, 0.9, &dataset);
        if (status != CT_OK) {
            require(ct_error_message()[0] != '\0');
            continue;
        }
        check(dataset, size);
        ct_dataset_destroy(dataset);
    }
    return 0;
}
