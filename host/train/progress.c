#include "train/progress.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"

#define REDRAW_SECONDS 0.1
#define PLAIN_SECONDS  10.0
#define FIELD_BYTES    48
#define MAX_COLUMNS    256
#define MIN_BAR        10
#define MAX_BAR        30

/* In the order they are shown. Each has a width that does not change during a run, so nothing moves
 * while numbers grow. */
enum { EPOCH, BAR, PERCENT, STEP, LOSS, RECALL, SPEED, WAIT, ETA, FIELDS };

void ct_progress_init(ct_progress *progress, FILE *stream)
{
    const char *term = getenv("TERM");
    bool dumb = term && strcmp(term, "dumb") == 0;
    *progress = (ct_progress){
        .stream = stream,
        .terminal = isatty(fileno(stream)) && !dumb,
        .plain_seconds = PLAIN_SECONDS,
        .last_drawn = -INFINITY,
    };
}

static int digits(int64_t n)
{
    char text[24];
    return snprintf(text, sizeof text, "%lld", (long long)n);
}

/* At most 8 columns: "03:12", "1:05:00", "2d 07:15", "123d". */
static void print_eta(char *text, double seconds)
{
    if (!(seconds >= 0 && seconds < 1000 * 86400.0)) {
        snprintf(text, FIELD_BYTES, "ETA %8s", "--:--");
        return;
    }
    char time[16];
    int s = (int)(seconds + 0.5), m = s / 60, h = m / 60, d = h / 24;
    if (h == 0) snprintf(time, sizeof time, "%02d:%02d", m, s % 60);
    else if (d == 0) snprintf(time, sizeof time, "%d:%02d:%02d", h, m % 60, s % 60);
    else if (d < 100) snprintf(time, sizeof time, "%dd %02d:%02d", d, h % 24, m % 60);
    else snprintf(time, sizeof time, "%dd", d);
    snprintf(text, FIELD_BYTES, "ETA %8s", time);
}

/* Share of the steps done, in [0, 1]. */
static double share_done(const ct_progress_state *s)
{
    if (s->total_steps <= 0) return 0;
    double share = (double)s->step / (double)s->total_steps;
    return share < 0 ? 0 : share > 1 ? 1 : share;
}

/* Rounded down, so that 100 means done. */
static int percent(double share)
{
    return share > 0 ? (int)(100 * share) : 0;
}

static void print_fields(char field[FIELDS][FIELD_BYTES], const ct_progress_state *s)
{
    snprintf(field[EPOCH], FIELD_BYTES, "epoch %*lld/%lld", digits(s->epochs), (long long)s->epoch,
             (long long)s->epochs);
    snprintf(field[PERCENT], FIELD_BYTES, "%3d%%", percent(share_done(s)));
    snprintf(field[STEP], FIELD_BYTES, "step %*lld/%lld", digits(s->total_steps),
             (long long)s->step, (long long)s->total_steps);
    snprintf(field[LOSS], FIELD_BYTES, "loss %6.3f", s->loss);
    if (s->recall10 >= 0) snprintf(field[RECALL], FIELD_BYTES, "R@10 %5.1f", s->recall10);
    else snprintf(field[RECALL], FIELD_BYTES, "R@10 %5s", "-");
    snprintf(field[SPEED], FIELD_BYTES, "%6.*f photos/s", s->photos_per_second < 100,
             s->photos_per_second);
    snprintf(field[WAIT], FIELD_BYTES, "data wait %3.0f%%", 100 * s->data_wait_share);
    print_eta(field[ETA], s->eta_seconds);
}

/* [=====>    ], `width` columns between the brackets. */
static void print_bar(char *text, int width, double share)
{
    int full = (int)(share * width);
    text[0] = '[';
    memset(text + 1, ' ', (size_t)width);
    memset(text + 1, '=', (size_t)full);
    if (full < width) text[1 + full] = '>';
    memcpy(text + 1 + width, "]", 2);
}

static int line_width(char field[FIELDS][FIELD_BYTES])
{
    int width = -2;
    for (int f = 0; f < FIELDS; f++)
        if (field[f][0]) width += (int)strlen(field[f]) + 2;
    return width;
}

/* Makes the fields fit: the least missed leave first; the bar takes what room is left over. */
static void fit(char field[FIELDS][FIELD_BYTES], int columns, double share)
{
    static const int leaving[] = {WAIT, RECALL, SPEED, BAR, STEP, EPOCH, PERCENT, LOSS};
    print_bar(field[BAR], MIN_BAR, share);
    for (size_t i = 0; i < sizeof leaving / sizeof *leaving && line_width(field) > columns; i++)
        field[leaving[i]][0] = '\0';
    if (!field[BAR][0]) return;
    int room = MIN_BAR + columns - line_width(field);
    print_bar(field[BAR], room < MAX_BAR ? room : MAX_BAR, share);
}

static void join(char *line, size_t size, char field[FIELDS][FIELD_BYTES])
{
    size_t used = 0;
    line[0] = '\0';
    for (int f = 0; f < FIELDS; f++) {
        if (!field[f][0]) continue;
        used += (size_t)snprintf(line + used, size - used, "%s%s", used ? "  " : "", field[f]);
        if (used >= size) return;
    }
}

/* One column stays free: after writing into the last one, terminals differ in where they are. */
static int usable_columns(FILE *stream)
{
    struct winsize window;
    int columns = 80;
    if (ioctl(fileno(stream), TIOCGWINSZ, &window) == 0 && window.ws_col > 0)
        columns = window.ws_col;
    return (columns < MAX_COLUMNS ? columns : MAX_COLUMNS) - 1;
}

void ct_progress_draw(ct_progress *progress, const ct_progress_state *state, bool force)
{
    double now = ct_clock_seconds();
    double pause = progress->terminal ? REDRAW_SECONDS : progress->plain_seconds;
    if (!force && now - progress->last_drawn < pause) return;
    progress->last_drawn = now;

    char field[FIELDS][FIELD_BYTES], line[MAX_COLUMNS];
    print_fields(field, state);
    if (progress->terminal) {
        int columns = usable_columns(progress->stream);
        fit(field, columns, share_done(state));
        join(line, (size_t)columns + 1, field);
        fprintf(progress->stream, "\r%s\x1b[K", line); /* erases what a longer line left */
    } else {
        field[BAR][0] = '\0';
        join(line, sizeof line, field);
        fprintf(progress->stream, "%s\n", line);
    }
    fflush(progress->stream);
}

void ct_progress_finish(ct_progress *progress)
{
    if (progress->terminal && progress->last_drawn > -INFINITY) {
        fputc('\n', progress->stream);
        fflush(progress->stream);
    }
    progress->last_drawn = -INFINITY;
}
