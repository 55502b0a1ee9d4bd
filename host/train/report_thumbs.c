#include "train/report_thumbs.h"

#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>

#include "base/memory.h"
#include "image/image.h"
#include "train/report_text.h"

#define SIDE    160
#define QUALITY 82

enum { UNUSED, WANTED, EMBEDDED };

struct ct_thumbs {
    const ct_dataset *dataset;
    uint8_t *state; /* (dataset->photo_count) */
};

/* What embedding needs, once for all photos. */
typedef struct workshop {
    ct_decoder *decoder;
    tjhandle encoder;
    unsigned char *jpeg; /* room for the largest thumbnail */
    char *path;
    size_t path_capacity;
    uint8_t pixels[SIDE * SIDE * 3];
} workshop;

ct_status ct_thumbs_create(const ct_dataset *dataset, ct_thumbs **out)
{
    *out = NULL;
    ct_thumbs *thumbs;
    CT_TRY(ct_alloc(1, sizeof *thumbs, "thumbnails", &thumbs));
    thumbs->dataset = dataset;
    ct_status status = ct_alloc((size_t)dataset->photo_count, 1, "thumbnails", &thumbs->state);
    if (status == CT_OK) *out = thumbs;
    else ct_thumbs_destroy(thumbs);
    return status;
}

void ct_thumbs_destroy(ct_thumbs *thumbs)
{
    if (!thumbs) return;
    free(thumbs->state);
    free(thumbs);
}

void ct_thumbs_want(ct_thumbs *thumbs, int32_t photo)
{
    thumbs->state[photo] = WANTED;
}

static void workshop_destroy(workshop *shop)
{
    if (!shop) return;
    ct_decoder_destroy(shop->decoder);
    if (shop->encoder) tjDestroy(shop->encoder);
    tjFree(shop->jpeg);
    free(shop->path);
    free(shop);
}

static ct_status workshop_create(workshop **out)
{
    workshop *shop;
    CT_TRY(ct_alloc(1, sizeof *shop, "thumbnails", &shop));
    ct_status status = ct_decoder_create(&shop->decoder);
    if (status == CT_OK) {
        shop->encoder = tjInitCompress();
        shop->jpeg = tjAlloc((int)tjBufSize(SIDE, SIDE, TJSAMP_420));
        if (!shop->encoder || !shop->jpeg)
            status = ct_fail(CT_ERR_MEMORY, "out of host memory: a JPEG encoder for thumbnails");
    }
    if (status == CT_OK) *out = shop;
    else workshop_destroy(shop);
    return status;
}

/* Reads a photo and scales its centre square to shop->pixels (*side, *side, 3). */
static ct_status make_square(workshop *shop, const char *folder, const char *name, int32_t *side)
{
    size_t size = strlen(folder) + strlen(name) + 2;
    CT_TRY(ct_grow(&shop->path, &shop->path_capacity, size, 1, "a file name"));
    snprintf(shop->path, size, "%s/%s", folder, name);
    ct_pixels photo;
    CT_TRY(ct_decoder_read(shop->decoder, shop->path, &photo));
    int32_t shorter = photo.width < photo.height ? photo.width : photo.height;
    ct_box box = {(photo.width - shorter) / 2, (photo.height - shorter) / 2, shorter, shorter};
    *side = shorter < SIDE ? shorter : SIDE;
    return ct_image_resample(shop->decoder, photo, box, CT_BICUBIC, false, *side, *side,
                             shop->pixels);
}

static ct_status embed(workshop *shop, const ct_dataset *dataset, int32_t photo, FILE *stream)
{
    int32_t side;
    unsigned long size = tjBufSize(SIDE, SIDE, TJSAMP_420);
    CT_TRY(make_square(shop, dataset->images, dataset->photos[photo].name, &side));
    if (tjCompress2(shop->encoder, shop->pixels, side, 0, side, TJPF_RGB, &shop->jpeg, &size,
                    TJSAMP_420, QUALITY, TJFLAG_NOREALLOC) != 0)
        return ct_fail(CT_ERR_INTERNAL, "cannot encode a thumbnail: %s",
                       tjGetErrorStr2(shop->encoder));
    fprintf(stream,
            "<symbol id=\"p%d\" viewBox=\"0 0 1 1\"><image width=\"1\" height=\"1\" "
            "href=\"data:image/jpeg;base64,",
            (int)photo);
    ct_report_base64(stream, shop->jpeg, size);
    fputs("\"/></symbol>\n", stream);
    return CT_OK;
}

ct_status ct_thumbs_embed(ct_thumbs *thumbs, FILE *stream)
{
    workshop *shop;
    CT_TRY(workshop_create(&shop));
    ct_status status = CT_OK;
    fputs("<svg width=\"0\" height=\"0\" class=\"store\" aria-hidden=\"true\">\n", stream);
    for (int32_t p = 0; p < thumbs->dataset->photo_count && status == CT_OK; p++) {
        if (thumbs->state[p] != WANTED) continue;
        status = embed(shop, thumbs->dataset, p, stream);
        if (status == CT_OK) thumbs->state[p] = EMBEDDED;
        else if (status == CT_ERR_IO || status == CT_ERR_FORMAT) status = CT_OK; /* a grey tile */
    }
    fputs("</svg>\n", stream);
    workshop_destroy(shop);
    return status;
}

void ct_thumbs_show(const ct_thumbs *thumbs, FILE *stream, int32_t photo)
{
    const char *name = thumbs->dataset->photos[photo].name;
    if (thumbs->state[photo] == EMBEDDED) {
        fputs("<svg class=\"photo\" viewBox=\"0 0 1 1\" role=\"img\"><title>", stream);
        ct_report_text(stream, name);
        fprintf(stream, "</title><use href=\"#p%d\"/></svg>", (int)photo);
    } else {
        fputs("<span class=\"photo missing\">", stream);
        ct_report_text(stream, name);
        fputs("</span>", stream);
    }
}
