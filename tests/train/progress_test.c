/* The progress display on a pseudo-terminal of any width, and on a plain file. */
#include "train/progress.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "train/support.h"
#include "train/tests.h"

typedef struct screen {
    int master;
    FILE *stream;
    ct_progress progress;
} screen;

static void set_columns(screen *s, int columns)
{
    struct winsize window = {.ws_row = 24, .ws_col = (unsigned short)columns};
    assert_int_equal(ioctl(s->master, TIOCSWINSZ, &window), 0);
}

static screen open_screen(void)
{
    screen s = {.master = posix_openpt(O_RDWR | O_NOCTTY)};
    assert_true(s.master >= 0);
    assert_int_equal(grantpt(s.master), 0);
    assert_int_equal(unlockpt(s.master), 0);
    int terminal = open(ptsname(s.master), O_RDWR | O_NOCTTY);
    assert_true(terminal >= 0);
    s.stream = fdopen(terminal, "w");
    assert_non_null(s.stream);
    assert_int_equal(fcntl(s.master, F_SETFL, O_NONBLOCK), 0);
    setenv("TERM", "xterm", 1);
    ct_progress_init(&s.progress, s.stream);
    return s;
}

static void close_screen(screen *s)
{
    fclose(s->stream);
    close(s->master);
}

/* What came out since the last call. */
static const char *output(screen *s)
{
    static char text[4096];
    ssize_t got = read(s->master, text, sizeof text - 1);
    text[got > 0 ? got : 0] = '\0';
    return text;
}

static ct_progress_state state_at(int64_t step)
{
    return (ct_progress_state){.step = step,
                               .total_steps = 6720,
                               .epoch = 1 + step / 560,
                               .epochs = 12,
                               .loss = 5 - (double)step / 1400,
                               .recall10 = step < 560 ? -1 : (double)step / 80,
                               .photos_per_second = 61.4,
                               .data_wait_share = 0.02,
                               .eta_seconds = (6720 - (double)step) * 2};
}

/* The drawn line without its control sequences, which are checked. */
static const char *draw(screen *s, const ct_progress_state *state)
{
    static char line[4096];
    ct_progress_draw(&s->progress, state, true);
    snprintf(line, sizeof line, "%s", output(s));
    size_t size = strlen(line);
    assert_true(size >= 4 && line[0] == '\r');
    assert_string_equal(line + size - 3, "\x1b[K");
    line[size - 3] = '\0';
    assert_null(strpbrk(line + 1, "\r\n\x1b"));
    return line + 1;
}

static void test_line(void **state)
{
    (void)state;
    screen s = open_screen();
    set_columns(&s, 140);
    ct_progress_state at = state_at(3360);
    assert_string_equal(draw(&s, &at),
                        "epoch  7/12  [===============>              ]   50%  step 3360/6720  "
                        "loss  2.600  R@10  42.0    61.4 photos/s  data wait   2%  ETA  1:52:00");
    at = (ct_progress_state){.step = 6720,
                             .total_steps = 6720,
                             .epoch = 12,
                             .epochs = 12,
                             .loss = NAN,
                             .recall10 = 100,
                             .photos_per_second = 1234,
                             .data_wait_share = 1};
    assert_string_equal(draw(&s, &at),
                        "epoch 12/12  [==============================]  100%  step 6720/6720  "
                        "loss    nan  R@10 100.0    1234 photos/s  data wait 100%  ETA    00:00");
    close_screen(&s);
}

/* Every width: the line leaves the last column free, and what stays of it is whole fields. */
static void test_widths(void **state)
{
    (void)state;
    screen s = open_screen();
    size_t before = 0;
    for (int columns = 1; columns <= 300; columns++) {
        set_columns(&s, columns);
        ct_progress_state at = state_at(100);
        const char *line = draw(&s, &at);
        size_t width = strlen(line);
        assert_true((int)width < columns);
        if (columns > 75) assert_non_null(strchr(line, ']'));
        if (columns > 12) assert_non_null(strstr(line, "ETA"));
        if (columns > 150) assert_int_equal(width, before);
        before = width;
    }
    set_columns(&s, 0); /* unknown: 80 */
    ct_progress_state at = state_at(100);
    assert_in_range(strlen(draw(&s, &at)), 60, 79);
    close_screen(&s);
}

/* Nothing moves while numbers grow: labels and brackets keep their columns. */
static void test_no_jitter(void **state)
{
    (void)state;
    static const char *const marks[] = {"epoch", "[",    "]",        "%",         "step",
                                        "loss",  "R@10", "photos/s", "data wait", "ETA"};
    screen s = open_screen();
    for (int columns = 50; columns <= 200; columns += 25) {
        long place[10] = {0};
        set_columns(&s, columns);
        for (int64_t step = 0; step <= 6720; step += 96) {
            ct_progress_state at = state_at(step);
            const char *line = draw(&s, &at);
            for (int m = 0; m < 10; m++) {
                const char *found = strstr(line, marks[m]);
                long now = found ? found - line : -1;
                if (step > 0) assert_int_equal(now, place[m]);
                place[m] = now;
            }
        }
    }
    close_screen(&s);
}

static void test_eta(void **state)
{
    (void)state;
    static const struct {
        double seconds;
        const char *text;
    } cases[] = {
        {0, "ETA    00:00"},           {59.4, "ETA    00:59"},    {59.6, "ETA    01:00"},
        {192, "ETA    03:12"},         {3599, "ETA    59:59"},    {3600, "ETA  1:00:00"},
        {86399, "ETA 23:59:59"},       {90061, "ETA 1d 01:01"},   {86400 * 99.5, "ETA 99d 12:00"},
        {86400 * 365, "ETA     365d"}, {1e12, "ETA    --:--"},    {-1, "ETA    --:--"},
        {NAN, "ETA    --:--"},         {INFINITY, "ETA    --:--"}};
    screen s = open_screen();
    set_columns(&s, 160);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ct_progress_state at = state_at(1);
        at.eta_seconds = cases[i].seconds;
        const char *line = draw(&s, &at);
        assert_string_equal(strstr(line, "ETA"), cases[i].text);
    }
    close_screen(&s);
}

static void test_strange_states(void **state)
{
    (void)state;
    screen s = open_screen();
    set_columns(&s, 160);
    static const ct_progress_state strange[] = {
        {0},
        {.step = 20, .total_steps = 10, .epochs = 1, .loss = 1e300},
        {.step = -5, .total_steps = 10, .loss = -INFINITY, .photos_per_second = NAN},
        {.step = INT64_MAX, .total_steps = INT64_MAX, .epoch = INT64_MIN, .epochs = INT64_MAX}};
    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++)
        assert_true(strlen(draw(&s, &strange[i])) < 160);
    close_screen(&s);
}

static void test_redraw_is_throttled(void **state)
{
    (void)state;
    screen s = open_screen();
    ct_progress_state at = state_at(1);
    ct_progress_finish(&s.progress); /* nothing was drawn: no empty line */
    assert_string_equal(output(&s), "");
    ct_progress_draw(&s.progress, &at, false);
    assert_true(strlen(output(&s)) > 0);
    ct_progress_draw(&s.progress, &at, false);
    assert_string_equal(output(&s), "");
    s.progress.last_drawn -= 0.2;
    ct_progress_draw(&s.progress, &at, false);
    assert_true(strlen(output(&s)) > 0);
    ct_progress_finish(&s.progress);
    assert_string_equal(output(&s), "\r\n");
    ct_progress_finish(&s.progress);
    assert_string_equal(output(&s), "");
    ct_progress_draw(&s.progress, &at, false); /* a fresh line is drawn at once */
    assert_true(strlen(output(&s)) > 0);
    close_screen(&s);
}

static void test_plain_file(void **state)
{
    (void)state;
    char *text;
    size_t size;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    FILE *stream = fdopen(ends[1], "w");
    assert_non_null(stream);
    ct_progress progress;
    ct_progress_init(&progress, stream);
    assert_false(progress.terminal);
    ct_progress_state at = state_at(560);
    ct_progress_draw(&progress, &at, false);
    ct_progress_draw(&progress, &at, false); /* too soon */
    ct_progress_draw(&progress, &at, true);
    progress.last_drawn -= progress.plain_seconds;
    ct_progress_draw(&progress, &at, false);
    ct_progress_finish(&progress);
    fclose(stream);
    FILE *reader = fdopen(ends[0], "r");
    text = must_alloc(4096);
    size = fread(text, 1, 4096, reader);
    fclose(reader);
    static const char line[] = "epoch  2/12    8%  step  560/6720  loss  4.600  R@10   7.0    61.4 "
                               "photos/s  data wait   2%  ETA  3:25:20\n";
    assert_int_equal(size, 3 * (sizeof line - 1));
    for (int i = 0; i < 3; i++)
        assert_memory_equal(text + (size_t)i * (sizeof line - 1), line, sizeof line - 1);
    free(text);
}

static void test_dumb_terminal(void **state)
{
    (void)state;
    screen s = open_screen();
    setenv("TERM", "dumb", 1);
    ct_progress_init(&s.progress, s.stream);
    assert_false(s.progress.terminal);
    close_screen(&s);
}

int run_progress_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_line),           cmocka_unit_test(test_widths),
        cmocka_unit_test(test_no_jitter),      cmocka_unit_test(test_eta),
        cmocka_unit_test(test_strange_states), cmocka_unit_test(test_redraw_is_throttled),
        cmocka_unit_test(test_plain_file),     cmocka_unit_test(test_dumb_terminal),
    };
    return cmocka_run_group_tests_name("progress", tests, NULL, NULL);
}
