#include "data/rows.h"

#include <ctype.h>
#include <stdint.h>
#include <string.h>

#include "config/text.h"

/* A quote that is never closed must neither swallow the file nor make reading it quadratic. */
#define MAX_QUOTED_BYTES 16384

#define KAGGLE8K_HEADER  "image,caption"
#define KAGGLE30K_HEADER "image_name| comment_number| comment"

typedef struct span {
    char *start, *end;
} span;

/* Only ASCII white space: isspace() would depend on the locale. */
static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static span trim(span s)
{
    while (s.start < s.end && is_space(*s.start)) s.start++;
    while (s.end > s.start && is_space(s.end[-1])) s.end--;
    return s;
}

static char *find(span s, char c)
{
    return memchr(s.start, c, (size_t)(s.end - s.start));
}

static bool all_digits(span s)
{
    for (char *at = s.start; at < s.end; at++)
        if (!isdigit((unsigned char)*at)) return false;
    return s.start < s.end;
}

/* From `start` to its line's '\n', or to the end of the buffer. */
static span line_from(const ct_row_reader *r, char *start)
{
    span rest = {start, r->end};
    char *newline = find(rest, '\n');
    return (span){start, newline ? newline : r->end};
}

/* Moves behind the line that ends at `end`. */
static void leave_line(ct_row_reader *r, char *end)
{
    r->line++;
    r->at = end < r->end ? end + 1 : r->end;
}

/* A name that would leave the folder of photos. */
static bool leads_out(const char *name)
{
    if (*name == '/') return true;
    for (const char *part = name;; part++) {
        size_t length = strcspn(part, "/");
        if (length == 2 && part[0] == '.' && part[1] == '.') return true;
        part += length;
        if (!*part) return false;
    }
}

/* Checks the two fields and hands them out as strings. */
static void finish(ct_row *row, span photo, span caption)
{
    photo = trim(photo);
    caption = trim(caption);
    if (photo.start == photo.end) row->problem = "the name is empty";
    else if (caption.start == caption.end) row->problem = "the caption is empty";
    else if (!ct_is_utf8(photo.start, (size_t)(photo.end - photo.start)) ||
             !ct_is_utf8(caption.start, (size_t)(caption.end - caption.start)))
        row->problem = "expected UTF-8";
    if (row->problem) return;
    *photo.end = *caption.end = '\0';
    if (leads_out(photo.start)) {
        row->problem = "the name leads out of the folder of photos";
        return;
    }
    row->photo = photo.start;
    row->caption = caption.start;
}

/* Whether the line is name#number<TAB>caption; if so its fields. */
static bool split_token(span line, span *photo, span *caption)
{
    char *tab = find(line, '\t');
    if (!tab) return false;
    char *mark = memrchr(line.start, '#', (size_t)(tab - line.start));
    if (!mark || !all_digits((span){mark + 1, tab})) return false;
    *photo = (span){line.start, mark};
    *caption = (span){tab + 1, line.end};
    return true;
}

/* Whether the line is name | number | caption; if so its fields. */
static bool split_bars(span line, span *photo, span *caption)
{
    char *first = find(line, '|');
    if (!first) return false;
    char *second = find((span){first + 1, line.end}, '|');
    if (!second || !all_digits(trim((span){first + 1, second}))) return false;
    *photo = (span){line.start, first};
    *caption = (span){second + 1, line.end};
    return true;
}

/* A field of a row of RFC 4180, not yet unquoted. */
typedef struct field {
    span text; /* between the quotes, if any */
    bool quoted;
    char *behind; /* the comma or end of line after it */
} field;

/* The quoted field that opens at `open`. Returns what is wrong with it, or NULL. */
static const char *find_quoted(const ct_row_reader *r, char *open, field *out)
{
    char *limit = r->end - open > MAX_QUOTED_BYTES ? open + MAX_QUOTED_BYTES : r->end;
    char *quote = find((span){open + 1, limit}, '"');
    while (quote && quote[1] == '"') /* a doubled one stands for itself */
        quote = quote + 2 < limit ? find((span){quote + 2, limit}, '"') : NULL;
    if (!quote) return "a quote is not closed";
    char *behind = quote + 1;
    while (*behind == ' ' || *behind == '\t' || *behind == '\r') behind++;
    if (behind < r->end && *behind != ',' && *behind != '\n')
        return "there is text behind a closing quote";
    *out = (field){{open + 1, quote}, true, behind};
    return NULL;
}

/* Undoes doubled quotes in place. */
static span unquote(field f)
{
    if (!f.quoted) return f.text;
    char *out = f.text.start;
    for (char *in = f.text.start; in < f.text.end; in++) {
        *out++ = *in;
        in += *in == '"';
    }
    return (span){f.text.start, out};
}

/* Finds both fields of the row that starts with `line`. An unquoted caption takes the rest of its
 * line: with two columns a further comma can only be the caption's. */
static const char *find_fields(const ct_row_reader *r, span line, field *photo, field *caption)
{
    if (*line.start == '"') {
        const char *problem = find_quoted(r, line.start, photo);
        if (problem) return problem;
        if (photo->behind >= line.end) return "expected name,caption";
    } else {
        char *comma = find(line, ',');
        if (!comma) return "expected name,caption";
        *photo = (field){{line.start, comma}, false, comma};
    }
    char *start = photo->behind + 1;
    if (start < line.end && *start == '"') {
        const char *problem = find_quoted(r, start, caption);
        if (problem) return problem;
        return *caption->behind == ',' ? "expected two columns" : NULL;
    }
    *caption = (field){{start, line.end}, false, line.end};
    return NULL;
}

/* After a row whose quotes are wrong, reading goes on with the next line: nothing has been changed
 * before both fields were found. */
static void read_csv(ct_row_reader *r, span line, ct_row *row)
{
    field photo, caption;
    row->problem = find_fields(r, line, &photo, &caption);
    if (row->problem) {
        leave_line(r, line.end);
        return;
    }
    while (line.end < caption.behind) { /* line breaks inside the quotes */
        r->line++;
        line = line_from(r, line.end + 1);
    }
    finish(row, unquote(photo), unquote(caption));
    leave_line(r, line.end);
}

bool ct_rows_next(ct_row_reader *r, ct_row *row)
{
    span line, photo, caption, content;
    do {
        if (r->at == r->end) return false;
        line = line_from(r, r->at);
        content = trim(line);
        if (content.start == content.end) leave_line(r, line.end);
    } while (content.start == content.end);
    *row = (ct_row){.line = r->line};
    if (r->format == CT_CAPTIONS_FLICKR8K_KAGGLE) {
        read_csv(r, line, row);
        return true;
    }
    bool token = r->format == CT_CAPTIONS_FLICKR8K_TOKEN;
    bool split = token ? split_token(line, &photo, &caption) : split_bars(line, &photo, &caption);
    if (split) finish(row, photo, caption);
    else
        row->problem =
            token ? "expected name#number, a tab, a caption" : "expected name | number | caption";
    leave_line(r, line.end);
    return true;
}

/* Compares without regard to case, white space and quotes. */
static bool is_header(span line, const char *header)
{
    for (char *at = line.start; at < line.end; at++) {
        while (*header == ' ') header++;
        if (is_space(*at) || *at == '"') continue;
        if (!*header || tolower((unsigned char)*at) != *header) return false;
        header++;
    }
    return *header == '\0';
}

static ct_captions_format detect(span line)
{
    span photo, caption;
    if (is_header(line, KAGGLE8K_HEADER)) return CT_CAPTIONS_FLICKR8K_KAGGLE;
    if (is_header(line, KAGGLE30K_HEADER)) return CT_CAPTIONS_FLICKR30K_KAGGLE;
    return split_token(line, &photo, &caption) ? CT_CAPTIONS_FLICKR8K_TOKEN : CT_CAPTIONS_AUTO;
}

static ct_status skip_header(ct_row_reader *r, span line, const char *name)
{
    char excerpt[CT_EXCERPT_BYTES];
    const char *header =
        r->format == CT_CAPTIONS_FLICKR8K_KAGGLE ? KAGGLE8K_HEADER : KAGGLE30K_HEADER;
    if (r->format == CT_CAPTIONS_FLICKR8K_TOKEN) return CT_OK;
    if (!is_header(line, header))
        return ct_fail(CT_ERR_FORMAT, "%s:%zu: expected the header \"%s\", found \"%s\"", name,
                       r->line, header,
                       ct_excerpt(line.start, (size_t)(line.end - line.start), excerpt));
    leave_line(r, line.end);
    return CT_OK;
}

ct_status ct_rows_start(ct_row_reader *r, char *buffer, size_t size, const char *name,
                        ct_captions_format format)
{
    *r = (ct_row_reader){.at = buffer, .end = buffer + size, .line = 1, .format = format};
    if (size >= 3 && memcmp(buffer, "\xEF\xBB\xBF", 3) == 0) r->at += 3;
    span line = line_from(r, r->at);
    if (format == CT_CAPTIONS_AUTO) r->format = detect(line);
    if (r->format != CT_CAPTIONS_AUTO) return skip_header(r, line, name);
    char excerpt[CT_EXCERPT_BYTES];
    return ct_fail(CT_ERR_FORMAT,
                   "%s:1: expected the header \"" KAGGLE8K_HEADER "\" or \"" KAGGLE30K_HEADER
                   "\", or name#number, a tab and a caption; found \"%s\"",
                   name, ct_excerpt(line.start, (size_t)(line.end - line.start), excerpt));
}
