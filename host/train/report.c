#include "train/report.h"

#include <math.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/memory.h"
#include "train/point_locale.h"
#include "train/report_chart.h"
#include "train/report_gallery.h"
#include "train/report_style.h"
#include "train/report_text.h"

/* ---- head ---- */

static void write_head(FILE *stream, const ct_report_input *input)
{
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
          "<meta http-equiv=\"Content-Security-Policy\" "
          "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n<title>",
          stream);
    ct_report_text(stream, input->title);
    fputs(" · clip-train</title>\n<style>\n", stream);
    fputs(ct_report_style, stream);
    fputs("</style>\n</head>\n<body>\n<main>\n<p class=\"eyebrow\">clip-train report</p>\n<h1>",
          stream);
    ct_report_text(stream, input->title);
    fputs("</h1>\n<p class=\"lead\">", stream);
    if (input->retrieval) {
        ct_report_count(stream, input->retrieval->images);
        fputs(input->retrieval->images == 1 ? " photo and " : " photos and ", stream);
        ct_report_count(stream, input->retrieval->texts);
        fputs(input->retrieval->texts == 1 ? " caption of the " : " captions of the ", stream);
        ct_report_text(stream, input->split);
        fputs(" split, each photo against all captions and each caption against all photos.",
              stream);
    } else {
        fputs("No retrieval has been measured yet.", stream);
    }
    fputs("</p>\n", stream);
}

/* ---- recall ---- */

static void write_share_tile(FILE *stream, const char *direction, double share, double by_chance)
{
    fprintf(stream,
            "<div class=\"card tile\"><span class=\"name\">Recall@10</span>"
            "<b>%.1f<small>%%</small></b><span>%s</span><span>chance %.1f %%</span></div>\n",
            share, direction, by_chance);
}

static void write_rank_tile(FILE *stream, const char *direction, double rank, double by_chance)
{
    fputs("<div class=\"card tile\"><span class=\"name\">Median rank</span><b>", stream);
    ct_report_rank(stream, rank);
    fprintf(stream, "</b><span>%s</span><span>chance ", direction);
    ct_report_rank(stream, by_chance);
    fputs("</span></div>\n", stream);
}

static void write_recall_row(FILE *stream, const char *direction, const char *meaning,
                             const ct_recall *recall, const ct_recall *by_chance)
{
    const double share[] = {recall->r1, recall->r5, recall->r10};
    const double share_chance[] = {by_chance->r1, by_chance->r5, by_chance->r10};
    const double rank[] = {recall->median_rank, recall->mean_rank};
    const double rank_chance[] = {by_chance->median_rank, by_chance->mean_rank};
    fprintf(stream, "<tr><th scope=\"row\">%s<small><span>%s</span></small></th>", direction,
            meaning);
    for (int i = 0; i < 3; i++)
        fprintf(stream, "<td><b>%.1f</b><small><span>chance </span>%.1f</small></td>", share[i],
                share_chance[i]);
    for (int i = 0; i < 2; i++) {
        fputs("<td><b>", stream);
        ct_report_rank(stream, rank[i]);
        fputs("</b><small><span>chance </span>", stream);
        ct_report_rank(stream, rank_chance[i]);
        fputs("</small></td>", stream);
    }
    fputs("</tr>\n", stream);
}

static void write_recall_table(FILE *stream, const ct_retrieval *r)
{
    fputs("<div class=\"card scroll\"><table>\n<thead><tr><th scope=\"col\">Retrieval<small>below: "
          "chance</small></th>"
          "<th scope=\"col\">R@1, %</th><th scope=\"col\">R@5, %</th><th scope=\"col\">R@10, %</th>"
          "<th scope=\"col\">Median rank</th><th scope=\"col\">Mean rank</th></tr></thead>\n"
          "<tbody>\n",
          stream);
    write_recall_row(stream, "Photo → caption", "its best-placed caption", &r->image_to_text,
                     &r->chance_image_to_text);
    write_recall_row(stream, "Caption → photo", "the photo it was written for", &r->text_to_image,
                     &r->chance_text_to_image);
    fputs("</tbody></table></div>\n", stream);
}

static void write_recall(FILE *stream, const ct_report_input *input)
{
    const ct_retrieval *r = input->retrieval;
    fputs("<div class=\"tiles\">\n", stream);
    write_share_tile(stream, "photo → caption", r->image_to_text.r10, r->chance_image_to_text.r10);
    write_share_tile(stream, "caption → photo", r->text_to_image.r10, r->chance_text_to_image.r10);
    write_rank_tile(stream, "photo → caption", r->image_to_text.median_rank,
                    r->chance_image_to_text.median_rank);
    write_rank_tile(stream, "caption → photo", r->text_to_image.median_rank,
                    r->chance_text_to_image.median_rank);
    fputs("</div>\n", stream);
    write_recall_table(stream, r);
}

/* ---- charts ---- */

/* Mean with weights that halve every `half` records on both sides, so that the curve does not lag
 * behind; NaN does not count. weight: scratch of `count`. */
static void smooth(const double *y, int64_t count, double half, double *weight, double *out)
{
    double keep = exp2(-1 / half), sum = 0, total = 0;
    for (int64_t i = 0; i < count; i++) { /* this record and those before it */
        bool finite = isfinite(y[i]);
        sum = keep * sum + (finite ? y[i] : 0);
        total = keep * total + finite;
        out[i] = sum;
        weight[i] = total;
    }
    sum = total = 0;
    for (int64_t i = count - 1; i >= 0; i--) { /* those behind it */
        bool finite = isfinite(y[i]);
        double mean = (out[i] + sum) / (weight[i] + total);
        sum = keep * (sum + (finite ? y[i] : 0));
        total = keep * (total + finite);
        out[i] = mean;
    }
}

static ct_status write_step_charts(FILE *stream, const ct_report_input *input)
{
    int64_t n = input->step_count;
    double *column; /* five columns of n */
    CT_TRY(ct_alloc((size_t)n * 5, sizeof *column, "charts", &column));
    double *x = column, *loss = column + n, *smoothed = loss + n, *scale = smoothed + n;
    double *weight = scale + n;
    for (int64_t i = 0; i < n; i++) {
        x[i] = (double)input->steps[i].step;
        loss[i] = input->steps[i].loss;
        scale[i] = input->steps[i].logit_scale;
    }
    smooth(loss, n, fmax(1, (double)n / 100), weight, smoothed);
    ct_series losses[] = {{NULL, x, loss, n}, {"loss", x, smoothed, n}};
    ct_series scales[] = {{"scale", x, scale, n}};
    ct_chart_write(stream, &(ct_chart){.title = "Training loss",
                                       .note = "smoothed; raw behind it",
                                       .unit = "",
                                       .decimals = 3,
                                       .series = losses,
                                       .series_count = 2});
    ct_chart_write(stream, &(ct_chart){.title = "Logit scale",
                                       .note = "1 / temperature",
                                       .unit = "",
                                       .decimals = 2,
                                       .series = scales,
                                       .series_count = 1});
    free(column);
    return CT_OK;
}

static ct_status write_recall_charts(FILE *stream, const ct_report_input *input)
{
    int64_t n = input->validation_count;
    double *column; /* seven columns of n */
    CT_TRY(ct_alloc((size_t)n * 7, sizeof *column, "charts", &column));
    for (int64_t i = 0; i < n; i++) {
        const ct_validation_record *record = &input->validations[i];
        const ct_recall *direction[] = {&record->image_to_text, &record->text_to_image};
        column[i] = (double)record->step;
        for (int d = 0; d < 2; d++) {
            double *y = column + n * (1 + 3 * d) + i;
            y[0] = direction[d]->r1;
            y[n] = direction[d]->r5;
            y[2 * n] = direction[d]->r10;
        }
    }
    for (int d = 0; d < 2; d++) {
        const double *y = column + n * (1 + 3 * d);
        ct_series series[] = {
            {"R@1", column, y, n}, {"R@5", column, y + n, n}, {"R@10", column, y + 2 * n, n}};
        ct_chart_write(stream, &(ct_chart){.title = d ? "Caption → photo" : "Photo → caption",
                                           .note = "recall, %",
                                           .unit = " %",
                                           .decimals = 1,
                                           .from_zero = true,
                                           .y_limit = 100,
                                           .series = series,
                                           .series_count = 3});
    }
    free(column);
    return CT_OK;
}

/* ---- the page ---- */

static void write_facts(FILE *stream, const ct_report_input *input)
{
    if (input->fact_count <= 0) return;
    fputs("<section>\n<h2>The run</h2>\n<dl class=\"card facts\">\n", stream);
    for (int i = 0; i < input->fact_count; i++) {
        fputs("<div><dt>", stream);
        ct_report_text(stream, input->fact_names[i]);
        fputs("</dt><dd>", stream);
        ct_report_text(stream, input->fact_values[i]);
        fputs("</dd></div>\n", stream);
    }
    fputs("</dl>\n</section>\n", stream);
}

static ct_status write_page(FILE *stream, const ct_report_input *input)
{
    write_head(stream, input);
    if (input->retrieval) write_recall(stream, input);
    fputs("<section>\n<h2>Training</h2>\n<div class=\"charts\">\n", stream);
    CT_TRY(write_recall_charts(stream, input));
    CT_TRY(write_step_charts(stream, input));
    fputs("</div>\n</section>\n", stream);
    write_facts(stream, input);
    if (input->retrieval) CT_TRY(ct_gallery_write(stream, input));
    fputs(
        "<footer>Made by clip-train. Recall@K is the share of queries whose right answer is among "
        "the first K; equal scores count against it.</footer>\n</main>\n</body>\n</html>\n",
        stream);
    return CT_OK;
}

ct_status ct_report_write(const char *path, const ct_report_input *input)
{
    ct_writer writer = {0};
    CT_TRY(ct_writer_open(&writer, path));
    locale_t before = ct_point_locale_enter();
    ct_status status = write_page(writer.stream, input);
    ct_point_locale_leave(before);
    if (status == CT_OK && ferror(writer.stream))
        status = ct_fail(CT_ERR_IO, "%s: cannot write", path);
    if (status == CT_OK) return ct_writer_commit(&writer);
    ct_writer_abandon(&writer);
    return status;
}
