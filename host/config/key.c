/* One key at a time: found by name, described, set from text, turned back into text. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/memory.h"
#include "config/schema.h"
#include "config/text.h"

int ct_key_find(const char *name)
{
    for (int i = 0; i < ct_key_count; i++)
        if (strcmp(ct_keys[i].name, name) == 0) return i;
    return -1;
}

int ct_section_find(const char *name)
{
    for (int i = 0; i < ct_section_count; i++)
        if (*name && strcmp(ct_sections[i].name, name) == 0) return i;
    return -1;
}

size_t ct_key_section_length(const char *name)
{
    const char *dot = strchr(name, '.');
    return dot ? (size_t)(dot - name) : 0;
}

/* Edit distance (Levenshtein 1966): insertions, deletions and replacements, row by row. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t row[CT_KEY_NAME_BYTES];
    size_t length = strlen(b);
    for (size_t j = 0; j <= length; j++) row[j] = j;
    for (size_t i = 0; a[i]; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < length; j++) {
            size_t best = diagonal + (a[i] != b[j]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j + 1] + 1 < best) best = row[j + 1] + 1;
            diagonal = row[j + 1];
            row[j + 1] = best;
        }
    }
    return row[length];
}

static const char *leaf(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

/* A wrong section counts as two typing errors, so "batch_size" finds train.batch_size. */
const ct_key *ct_key_nearest(const char *name)
{
    const ct_key *nearest = NULL;
    size_t length = strlen(name), best = length / 4 + 2;
    if (length >= CT_KEY_NAME_BYTES) return NULL;
    for (int i = 0; i < ct_key_count; i++) {
        size_t whole = edit_distance(name, ct_keys[i].name);
        size_t moved = edit_distance(leaf(name), leaf(ct_keys[i].name)) + 2;
        size_t distance = whole < moved ? whole : moved;
        if (distance > best || (nearest && distance == best)) continue;
        best = distance;
        nearest = &ct_keys[i];
    }
    return nearest;
}

static void describe_whole(const ct_key *key, char *out, size_t size)
{
    if (key->whole_max == INT64_MAX)
        snprintf(out, size, "a whole number from %" PRId64 " on", key->whole_min);
    else
        snprintf(out, size, "a whole number from %" PRId64 " to %" PRId64, key->whole_min,
                 key->whole_max);
}

static void describe_real(const ct_key *key, char *out, size_t size)
{
    char list[32] = "a number";
    if (key->count > 1) snprintf(list, sizeof list, "a list of %d numbers", key->count);
    snprintf(out, size, "%s %s %.10g %s %.10g", list, key->above_min ? "above" : "from",
             key->real_min, key->below_max ? "to below" : "to", key->real_max);
}

static void describe_choice(const ct_key *key, char *out, size_t size)
{
    size_t used = (size_t)snprintf(out, size, "one of ");
    if (!key->names[1]) used = 0;
    for (int i = 0; key->names[i] && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%s", i ? ", " : "", key->names[i]);
}

void ct_key_describe(const ct_key *key, char out[CT_KEY_TEXT_BYTES])
{
    switch (key->type) {
    case CT_KEY_WHOLE:
        describe_whole(key, out, CT_KEY_TEXT_BYTES);
        break;
    case CT_KEY_REAL:
        describe_real(key, out, CT_KEY_TEXT_BYTES);
        break;
    case CT_KEY_BOOL:
        snprintf(out, CT_KEY_TEXT_BYTES, "true or false");
        break;
    case CT_KEY_TEXT:
        snprintf(out, CT_KEY_TEXT_BYTES, "text");
        break;
    case CT_KEY_CHOICE:
        describe_choice(key, out, CT_KEY_TEXT_BYTES);
        break;
    }
}

/* Decimal digits with a sign, no leading zero (in YAML 1.1 that means octal). */
static bool read_whole(const char *text, const ct_key *key, int64_t *out)
{
    const char *digits = text + (*text == '-' || *text == '+');
    if (!isdigit((unsigned char)*digits) || (*digits == '0' && digits[1])) return false;
    char *end;
    errno = 0;
    *out = strtoll(text, &end, 10);
    return *end == '\0' && errno == 0 && *out >= key->whole_min && *out <= key->whole_max;
}

static const char *skip_digits(const char *at)
{
    while (isdigit((unsigned char)*at)) at++;
    return at;
}

/* YAML 1.2's core schema: [-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?
 * without .inf and .nan. 1.1 wants a dot in "1e-4", which trips everyone. */
static bool is_decimal(const char *text)
{
    const char *at = text + (*text == '-' || *text == '+');
    const char *whole_end = skip_digits(at);
    bool any = whole_end > at;
    at = whole_end;
    if (*at == '.') {
        const char *end = skip_digits(at + 1);
        any = any || end > at + 1;
        at = end;
    }
    if (!any) return false;
    if (*at == 'e' || *at == 'E') {
        at += 1 + (at[1] == '-' || at[1] == '+');
        if (skip_digits(at) == at) return false;
        at = skip_digits(at);
    }
    return *at == '\0';
}

static bool read_real(const char *text, const ct_key *key, double *out)
{
    if (!is_decimal(text)) return false;
    double value = strtod(text, NULL);
    *out = value;
    bool low = key->above_min ? value > key->real_min : value >= key->real_min;
    bool high = key->below_max ? value < key->real_max : value <= key->real_max;
    return low && high;
}

static bool read_bool(const char *text, bool *out)
{
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on"};
    for (int i = 0; i < 6; i++) {
        if (strcasecmp(text, words[i]) != 0) continue;
        *out = i % 2;
        return true;
    }
    return false;
}

static bool read_choice(const char *text, const ct_key *key, unsigned *out)
{
    for (unsigned i = 0; key->names[i]; i++) {
        if (strcmp(text, key->names[i]) != 0) continue;
        *out = i;
        return true;
    }
    return false;
}

ct_status ct_key_refuse(const ct_key *key, const char *where, const char *found)
{
    char expected[CT_KEY_TEXT_BYTES];
    ct_key_describe(key, expected);
    return ct_fail(CT_ERR_CONFIG, "%s: expected %s, found %s", where, expected, found);
}

static ct_status refuse_text(const ct_key *key, const char *where, const char *text)
{
    char excerpt[CT_EXCERPT_BYTES], found[CT_EXCERPT_BYTES + 2] = "nothing";
    if (*text) snprintf(found, sizeof found, "\"%s\"", ct_excerpt(text, strlen(text), excerpt));
    return ct_key_refuse(key, where, found);
}

static ct_status set_text(char **field, const char *text)
{
    char *copy;
    CT_TRY(ct_strdup(text, &copy));
    free(*field);
    *field = copy;
    return CT_OK;
}

static ct_status set_reals(double *field, const ct_key *key, const char *where,
                           const char *const *texts)
{
    double values[CT_KEY_MAX_COUNT];
    for (int i = 0; i < key->count; i++)
        if (!read_real(texts[i], key, &values[i])) return refuse_text(key, where, texts[i]);
    memcpy(field, values, (size_t)key->count * sizeof *values);
    return CT_OK;
}

ct_status ct_key_set(ct_config *config, const ct_key *key, const char *where,
                     const char *const *texts, int count, bool is_list)
{
    if (is_list != (key->count > 1) || count != key->count) {
        char found[32];
        snprintf(found, sizeof found, "a list of %d", count);
        return is_list ? ct_key_refuse(key, where, found) : refuse_text(key, where, texts[0]);
    }
    void *field = (char *)config + key->offset;
    union {
        int64_t whole;
        bool truth;
        unsigned choice;
    } value;
    switch (key->type) {
    case CT_KEY_TEXT:
        return set_text(field, texts[0]);
    case CT_KEY_REAL:
        return set_reals(field, key, where, texts);
    case CT_KEY_WHOLE:
        if (!read_whole(texts[0], key, &value.whole)) break;
        memcpy(field, &value.whole, sizeof value.whole);
        return CT_OK;
    case CT_KEY_BOOL:
        if (!read_bool(texts[0], &value.truth)) break;
        memcpy(field, &value.truth, sizeof value.truth);
        return CT_OK;
    case CT_KEY_CHOICE:
        if (!read_choice(texts[0], key, &value.choice)) break;
        memcpy(field, &value.choice, sizeof value.choice);
        return CT_OK;
    }
    return refuse_text(key, where, texts[0]);
}

/* The shortest of 15, 16 and 17 digits that reads back to the same double. */
static void format_real(double value, char out[CT_KEY_TEXT_BYTES])
{
    char text[32];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    strcpy(out, text);
}

const char *ct_key_format(const ct_config *config, const ct_key *key, int index,
                          char out[CT_KEY_TEXT_BYTES])
{
    const void *field = (const char *)config + key->offset;
    switch (key->type) {
    case CT_KEY_TEXT:
        return *(char *const *)field;
    case CT_KEY_BOOL:
        return *(const bool *)field ? "true" : "false";
    case CT_KEY_CHOICE:
        return key->names[*(const unsigned *)field];
    case CT_KEY_WHOLE:
        snprintf(out, CT_KEY_TEXT_BYTES, "%" PRId64, *(const int64_t *)field);
        break;
    case CT_KEY_REAL:
        format_real(((const double *)field)[index], out);
        break;
    }
    return out;
}
