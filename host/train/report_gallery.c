#include "train/report_gallery.h"

#include "train/report_text.h"
#include "train/report_thumbs.h"

#define CHECK "<span class=\"check\" role=\"img\" aria-label=\"right\">✓</span>"

/* Query number k of those shown: even over the rows. */
static int32_t pick(int32_t rows, int32_t shown, int32_t k)
{
    return (int32_t)((int64_t)rows * k / shown);
}

static int32_t shown_of(const ct_report_input *input, int32_t rows)
{
    if (input->gallery < 0) return 0;
    return input->gallery < rows ? input->gallery : rows;
}

static const ct_caption *caption_of(const ct_report_input *input, int32_t row)
{
    return &input->dataset->captions[input->captions[row]];
}

static void write_quote(FILE *stream, const char *text)
{
    fputs("<q dir=\"auto\">", stream);
    ct_report_text(stream, text);
    fputs("</q>", stream);
}

static void write_rank(FILE *stream, int32_t rank)
{
    if (rank == 0) {
        fputs("<span class=\"rank\">no caption</span>", stream);
        return;
    }
    fprintf(stream, "<span class=\"rank%s\">rank ", rank <= CT_TOP ? " found" : "");
    ct_report_count(stream, rank);
    fputs("</span>", stream);
}

static void want_photos(const ct_report_input *input, ct_thumbs *thumbs)
{
    const ct_retrieval *r = input->retrieval;
    int32_t shown = shown_of(input, r->texts);
    for (int32_t k = 0; k < shown; k++) {
        int32_t t = pick(r->texts, shown, k);
        ct_thumbs_want(thumbs, caption_of(input, t)->photo);
        for (int j = 0; j < CT_TOP; j++) {
            int32_t row = r->text_top[(size_t)t * CT_TOP + j];
            if (row >= 0) ct_thumbs_want(thumbs, input->photos[row]);
        }
    }
    shown = shown_of(input, r->images);
    for (int32_t k = 0; k < shown; k++)
        ct_thumbs_want(thumbs, input->photos[pick(r->images, shown, k)]);
}

/* A caption and the photos it found. */
static void write_caption_query(FILE *stream, const ct_report_input *input, const ct_thumbs *thumbs,
                                int32_t t)
{
    const ct_retrieval *r = input->retrieval;
    const ct_caption *caption = caption_of(input, t);
    bool found = false;
    fputs("<article class=\"card query\"><header>", stream);
    write_quote(stream, caption->text);
    write_rank(stream, r->text_rank[t]);
    fputs("</header>\n<ol class=\"strip\">", stream);
    for (int j = 0; j < CT_TOP; j++) {
        int32_t row = r->text_top[(size_t)t * CT_TOP + j];
        if (row < 0) break;
        bool right = input->photos[row] == caption->photo;
        found = found || right;
        fputs(right ? "<li class=\"right\">" : "<li>", stream);
        ct_thumbs_show(thumbs, stream, input->photos[row]);
        fprintf(stream, "<span class=\"score\">%s%.3f</span></li>\n", right ? CHECK : "",
                r->text_top_score[(size_t)t * CT_TOP + j]);
    }
    fputs("</ol>\n", stream);
    if (!found) {
        fputs("<p class=\"missed\">", stream);
        ct_thumbs_show(thumbs, stream, caption->photo);
        fputs("<span>" CHECK " The right photo is not among the first five.</span></p>\n", stream);
    }
    fputs("</article>\n", stream);
}

/* A photo and the captions it found. */
static void write_photo_query(FILE *stream, const ct_report_input *input, const ct_thumbs *thumbs,
                              int32_t i)
{
    const ct_retrieval *r = input->retrieval;
    int32_t photo = input->photos[i];
    bool found = false;
    fputs("<article class=\"card query photo-query\"><div class=\"asked\">", stream);
    ct_thumbs_show(thumbs, stream, photo);
    write_rank(stream, r->image_rank[i]);
    fputs("</div>\n<ol class=\"captions\">", stream);
    for (int j = 0; j < CT_TOP; j++) {
        int32_t row = r->image_top[(size_t)i * CT_TOP + j];
        if (row < 0) break;
        const ct_caption *caption = caption_of(input, row);
        bool right = caption->photo == photo;
        found = found || right;
        fputs(right ? "<li class=\"right\">" CHECK : "<li>", stream);
        write_quote(stream, caption->text);
        fprintf(stream, "<span class=\"score\">%.3f</span></li>\n",
                r->image_top_score[(size_t)i * CT_TOP + j]);
    }
    if (!found && r->image_rank[i] > 0) {
        const ct_photo *own = &input->dataset->photos[photo];
        fputs("<li class=\"missed\">" CHECK "<span>One of its own: ", stream);
        write_quote(stream, input->dataset->captions[own->first_caption].text);
        fputs("</span></li>\n", stream);
    }
    fputs("</ol></article>\n", stream);
}

ct_status ct_gallery_write(FILE *stream, const ct_report_input *input)
{
    const ct_retrieval *r = input->retrieval;
    int32_t captions = shown_of(input, r->texts), photos = shown_of(input, r->images);
    if (captions == 0) return CT_OK;
    ct_thumbs *thumbs;
    CT_TRY(ct_thumbs_create(input->dataset, &thumbs));
    want_photos(input, thumbs);
    ct_status status = ct_thumbs_embed(thumbs, stream);
    if (status == CT_OK) {
        fputs("<section>\n<h2>Caption → photos</h2>\n"
              "<p class=\"lead\">The five photos whose embeddings are nearest to the caption's, "
              "with their cosine similarity. Photos are cut to their centre square.</p>\n"
              "<div class=\"gallery\">\n",
              stream);
        for (int32_t k = 0; k < captions; k++)
            write_caption_query(stream, input, thumbs, pick(r->texts, captions, k));
        fputs("</div>\n</section>\n<section>\n<h2>Photo → captions</h2>\n"
              "<p class=\"lead\">The five captions nearest to the photo. Any caption that was "
              "written for it is right.</p>\n<div class=\"gallery\">\n",
              stream);
        for (int32_t k = 0; k < photos; k++)
            write_photo_query(stream, input, thumbs, pick(r->images, photos, k));
        fputs("</div>\n</section>\n", stream);
    }
    ct_thumbs_destroy(thumbs);
    return status;
}
