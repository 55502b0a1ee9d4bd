#include "train/report_chart.h"

#include <math.h>

#include "train/report_text.h"

/* The drawing's size and the margins of the plot, in its own units. */
#define WIDTH      480
#define HEIGHT     270
#define LEFT       44
#define RIGHT      92
#define TOP        12
#define BOTTOM     30
#define STRETCHES  240 /* a line has at most this many points */
#define DOTS       40  /* with a tooltip, a line */
#define LABEL_GAP  16  /* between names at the lines' ends */
#define MAX_SERIES 4

typedef struct axis {
    double low, high, tick; /* ends are multiples of tick */
} axis;

typedef struct plot {
    axis x, y;
} plot;

/* Beyond this a number is no use in a drawing. */
static bool drawable(double y)
{
    return fabs(y) < 1e15;
}

/* Ticks at multiples of the least of 1, 2, 2.5, 5 times a power of ten that needs at most `most`
 * of them. */
static axis nice_axis(double low, double high, int most)
{
    static const double factors[] = {1, 2, 2.5, 5, 10};
    double least = 1e-6 * fmax(1, fabs(low)); /* labels have no more digits than that */
    if (high == low) high = low + (low == 0 ? 1 : 0.1 * fabs(low));
    high = fmax(high, low + least);
    double power = pow(10, floor(log10((high - low) / most))), tick = power;
    for (int i = 0; i < 5; i++) {
        tick = power * factors[i];
        if ((high - low) / tick <= most) break;
    }
    return (axis){floor(low / tick + 1e-9) * tick, ceil(high / tick - 1e-9) * tick, tick};
}

static double x_of(const plot *p, double x)
{
    return LEFT + (x - p->x.low) / (p->x.high - p->x.low) * (WIDTH - LEFT - RIGHT);
}

static double y_of(const plot *p, double y)
{
    return HEIGHT - BOTTOM - (y - p->y.low) / (p->y.high - p->y.low) * (HEIGHT - TOP - BOTTOM);
}

/* False when there is no finite point. */
static bool plan(const ct_chart *chart, plot *p)
{
    double low = INFINITY, high = -INFINITY, last = 0;
    for (int s = 0; s < chart->series_count; s++) {
        const ct_series *series = &chart->series[s];
        for (int64_t i = 0; i < series->count; i++) {
            if (!drawable(series->y[i])) continue;
            low = fmin(low, series->y[i]);
            high = fmax(high, series->y[i]);
            last = fmax(last, series->x[i]);
        }
    }
    if (!(low <= high)) return false;
    p->x = nice_axis(0, last, 6);
    p->x.high = fmax(last, 1); /* no empty room behind the last step */
    p->x.tick = fmax(p->x.tick, 1);
    p->y = nice_axis(chart->from_zero ? fmin(low, 0) : low, high, 5);
    if (chart->y_limit > 0 && p->y.high > chart->y_limit && high <= chart->y_limit)
        p->y.high = chart->y_limit;
    return true;
}

/* A tick's label: no more decimals than the ticks need; steps from 10,000 on as "10k". */
static void write_tick(FILE *stream, double value, double tick)
{
    if (tick >= 1000 && fmod(tick, 100) == 0) {
        fprintf(stream, value == 0 ? "0" : "%.6gk", value / 1000);
        return;
    }
    int decimals = 0;
    while (decimals < 6 && fabs(tick * pow(10, decimals) - round(tick * pow(10, decimals))) > 1e-6)
        decimals++;
    fprintf(stream, "%.*f", decimals, value);
}

static void write_axes(FILE *stream, const plot *p)
{
    int x_ticks = (int)floor((p->x.high - p->x.low) / p->x.tick + 1e-9);
    int y_ticks = (int)floor((p->y.high - p->y.low) / p->y.tick + 1e-9);
    fputs("<path class=\"grid\" d=\"", stream);
    for (int i = 0; i <= y_ticks; i++)
        fprintf(stream, "M%d %.1fH%d", LEFT, y_of(p, p->y.low + i * p->y.tick), WIDTH - RIGHT);
    fputs("\"/>\n<g class=\"ticks\" text-anchor=\"end\">", stream);
    for (int i = 0; i <= y_ticks; i++) {
        double y = p->y.low + i * p->y.tick;
        fprintf(stream, "<text x=\"%d\" y=\"%.1f\">", LEFT - 8, y_of(p, y) + 4);
        write_tick(stream, y, p->y.tick);
        fputs("</text>", stream);
    }
    fputs("</g>\n<g class=\"ticks\" text-anchor=\"middle\">", stream);
    for (int i = 0; i <= x_ticks; i++) {
        double x = p->x.low + i * p->x.tick;
        fprintf(stream, "<text x=\"%.1f\" y=\"%d\">", x_of(p, x), HEIGHT - BOTTOM + 19);
        write_tick(stream, x, p->x.tick);
        fputs("</text>", stream);
    }
    fprintf(stream, "</g><text class=\"axis\" x=\"%d\" y=\"%d\">step</text>\n", WIDTH - RIGHT + 26,
            HEIGHT - BOTTOM + 19);
}

/* First index of stretch k of n. */
static int64_t stretch(int64_t count, int64_t n, int64_t k)
{
    return (int64_t)((double)count * (double)k / (double)n);
}

static void write_point(FILE *stream, const plot *p, bool *first, double x, double y)
{
    fprintf(stream, "%c%.1f %.1f", *first ? 'M' : 'L', x_of(p, x), y_of(p, y));
    *first = false;
}

static void write_line(FILE *stream, const plot *p, const ct_series *series, int number)
{
    int64_t n = series->count < STRETCHES ? series->count : STRETCHES;
    bool first = true;
    if (series->name) fprintf(stream, "<path class=\"line c%d\" d=\"", number);
    else fputs("<path class=\"line faint\" d=\"", stream);
    for (int64_t k = 0; k < n; k++) {
        int64_t begin = stretch(series->count, n, k), end = stretch(series->count, n, k + 1);
        double low = INFINITY, high = -INFINITY, last = NAN;
        for (int64_t i = begin; i < end; i++) {
            if (!drawable(series->y[i])) continue;
            low = fmin(low, series->y[i]);
            high = fmax(high, series->y[i]);
            last = series->y[i];
        }
        if (!(low <= high)) continue;
        if (series->name || low == high) {
            write_point(stream, p, &first, series->x[end - 1], last);
        } else {
            write_point(stream, p, &first, series->x[begin], low);
            write_point(stream, p, &first, series->x[end - 1], high);
        }
    }
    fputs("\"/>\n", stream);
}

static void write_dots(FILE *stream, const plot *p, const ct_chart *chart, int number)
{
    const ct_series *series = &chart->series[number];
    int64_t n = series->count < DOTS ? series->count : DOTS;
    fprintf(stream, "<g class=\"%s c%d\">", series->count <= DOTS ? "dots" : "dots hidden", number);
    for (int64_t k = 0; k < n; k++) {
        int64_t i = stretch(series->count, n, k + 1) - 1;
        if (!drawable(series->y[i])) continue;
        fprintf(stream, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\"><title>step ",
                x_of(p, series->x[i]), y_of(p, series->y[i]));
        ct_report_count(stream, (int64_t)series->x[i]);
        fprintf(stream, " · %s %.*f%s</title></circle>", series->name, chart->decimals,
                series->y[i], chart->unit);
    }
    fputs("</g>\n", stream);
}

typedef struct end_label {
    int series;
    double y, value;
} end_label;

/* Names at the lines' ends, moved apart where they would overlap. */
static void write_labels(FILE *stream, const plot *p, const ct_chart *chart)
{
    end_label label[MAX_SERIES];
    int count = 0;
    for (int s = 0; s < chart->series_count; s++) {
        const ct_series *series = &chart->series[s];
        int64_t i = series->count - 1;
        while (i >= 0 && !drawable(series->y[i])) i--;
        if (!series->name || i < 0) continue;
        end_label new = {s, y_of(p, series->y[i]), series->y[i]};
        int place = count++;
        for (; place > 0 && label[place - 1].y > new.y; place--) label[place] = label[place - 1];
        label[place] = new;
    }
    for (int k = 1; k < count; k++) label[k].y = fmax(label[k].y, label[k - 1].y + LABEL_GAP);
    double lowest = HEIGHT - BOTTOM;
    for (int k = count - 1; k >= 0; k--, lowest -= LABEL_GAP) label[k].y = fmin(label[k].y, lowest);
    for (int k = 0; k < count; k++)
        fprintf(stream,
                "<text class=\"end c%d\" x=\"%d\" y=\"%.1f\">%s <tspan>%.*f</tspan></text>\n",
                label[k].series, WIDTH - RIGHT + 8, label[k].y + 4,
                chart->series[label[k].series].name, chart->decimals, label[k].value);
}

void ct_chart_write(FILE *stream, const ct_chart *chart)
{
    plot p;
    fprintf(stream, "<figure class=\"card chart\"><figcaption>%s <small>%s</small></figcaption>\n",
            chart->title, chart->note);
    if (!plan(chart, &p)) {
        fputs("<p class=\"empty\">Nothing recorded yet</p></figure>\n", stream);
        return;
    }
    fprintf(stream, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">\n", WIDTH, HEIGHT,
            chart->title);
    write_axes(stream, &p);
    for (int s = 0; s < chart->series_count; s++) write_line(stream, &p, &chart->series[s], s);
    for (int s = 0; s < chart->series_count; s++)
        if (chart->series[s].name) write_dots(stream, &p, chart, s);
    write_labels(stream, &p, chart);
    fputs("</svg></figure>\n", stream);
}
