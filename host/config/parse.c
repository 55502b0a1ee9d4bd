/* YAML (libyaml's events) into the config. What is read is a mapping of keys and sections, each a
 * mapping of keys; a dotted key ("train.epochs: 3") may also stand at the top. Nothing else of
 * YAML is accepted: a feature that could hide what a run was configured with is an error. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/file.h"
#include "base/memory.h"
#include "config/schema.h"
#include "config/text.h"

#define MAX_FILE_BYTES (1 << 20)

typedef struct reader {
    yaml_parser_t parser;
    yaml_event_t event; /* the present one; deleted by the next read */
    ct_config *config;
    const char *name, *text;
    size_t size;
    size_t key_line[CT_MAX_KEYS]; /* where a key or section was given; 0: not yet */
    size_t section_line[CT_MAX_SECTIONS];
} reader;

static size_t event_line(const reader *r)
{
    return r->event.start_mark.line + 1;
}

static ct_status fail_here(const reader *r, const char *problem)
{
    return ct_fail(CT_ERR_CONFIG, "%s:%zu: %s", r->name, event_line(r), problem);
}

/* libyaml gives scanner and parser errors a mark, but errors of encoding only a byte offset. */
static ct_status fail_syntax(const reader *r)
{
    const yaml_parser_t *p = &r->parser;
    if (p->error == YAML_MEMORY_ERROR)
        return ct_fail(CT_ERR_MEMORY, "%s: out of host memory", r->name);
    size_t line = p->problem_mark.line + 1;
    if (p->error == YAML_READER_ERROR) {
        line = 1;
        for (size_t i = 0; i < p->problem_offset && i < r->size; i++) line += r->text[i] == '\n';
    }
    const char *problem = p->problem ? p->problem : "cannot be read";
    if (p->context)
        return ct_fail(CT_ERR_CONFIG, "%s:%zu: not YAML: %s, %s", r->name, line, p->context,
                       problem);
    return ct_fail(CT_ERR_CONFIG, "%s:%zu: not YAML: %s", r->name, line, problem);
}

static ct_status refuse_decoration(const reader *r, const yaml_char_t *anchor,
                                   const yaml_char_t *tag)
{
    if (anchor) return fail_here(r, "anchors and aliases (&name, *name) are not supported");
    if (tag) return fail_here(r, "tags (!name) are not supported");
    return CT_OK;
}

static ct_status next_event(reader *r)
{
    yaml_event_delete(&r->event);
    if (!yaml_parser_parse(&r->parser, &r->event)) return fail_syntax(r);
    const yaml_event_t *e = &r->event;
    switch (e->type) {
    case YAML_ALIAS_EVENT:
        return refuse_decoration(r, e->data.alias.anchor, NULL);
    case YAML_MAPPING_START_EVENT:
        return refuse_decoration(r, e->data.mapping_start.anchor, e->data.mapping_start.tag);
    case YAML_SEQUENCE_START_EVENT:
        return refuse_decoration(r, e->data.sequence_start.anchor, e->data.sequence_start.tag);
    case YAML_SCALAR_EVENT:
        if (memchr(e->data.scalar.value, 0, e->data.scalar.length))
            return fail_here(r, "a NUL character in a key or value");
        return refuse_decoration(r, e->data.scalar.anchor, e->data.scalar.tag);
    default:
        return CT_OK;
    }
}

static const char *scalar_text(const reader *r)
{
    return (const char *)r->event.data.scalar.value;
}

/* An absent value, "~" or "null", unless quoted. */
static bool is_null(const reader *r)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};
    if (r->event.type != YAML_SCALAR_EVENT || r->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    for (int i = 0; i < 5; i++)
        if (strcmp(scalar_text(r), words[i]) == 0) return true;
    return false;
}

/* The present event starts a list: reads to its end and sets the key. Elements past the longest
 * list of any key are only counted. */
static ct_status read_list(reader *r, const ct_key *key, const char *where)
{
    char *texts[CT_KEY_MAX_COUNT] = {NULL};
    const char *elements[CT_KEY_MAX_COUNT];
    int count = 0;
    ct_status status = next_event(r);
    while (status == CT_OK && r->event.type == YAML_SCALAR_EVENT) {
        if (count < CT_KEY_MAX_COUNT)
            CT_TRY_GOTO(status, ct_strdup(is_null(r) ? "" : scalar_text(r), &texts[count]), done);
        count++;
        status = next_event(r);
    }
    if (status != CT_OK) goto done;
    if (r->event.type != YAML_SEQUENCE_END_EVENT) {
        status = ct_key_refuse(key, where, "something nested in it");
        goto done;
    }
    for (int i = 0; i < CT_KEY_MAX_COUNT; i++) elements[i] = texts[i];
    status = ct_key_set(r->config, key, where, elements, count, true);
done:
    for (int i = 0; i < CT_KEY_MAX_COUNT; i++) free(texts[i]);
    return status;
}

static ct_status fail_unknown(const reader *r, const char *name)
{
    char excerpt[CT_EXCERPT_BYTES];
    ct_excerpt(name, strlen(name), excerpt);
    const ct_key *nearest = ct_key_nearest(name);
    if (!nearest)
        return ct_fail(CT_ERR_CONFIG, "%s:%zu: %s: unknown key", r->name, event_line(r), excerpt);
    return ct_fail(CT_ERR_CONFIG, "%s:%zu: %s: unknown key (did you mean %s?)", r->name,
                   event_line(r), excerpt, nearest->name);
}

/* Notes where a key or section stands; it may stand there only once. */
static ct_status claim(const reader *r, size_t *line, const char *name)
{
    if (*line)
        return ct_fail(CT_ERR_CONFIG, "%s:%zu: %s: given twice, first on line %zu", r->name,
                       event_line(r), name, *line);
    *line = event_line(r);
    return CT_OK;
}

/* The present event is the key's name, the next its value. */
static ct_status read_value(reader *r, const char *name)
{
    int index = ct_key_find(name);
    if (index < 0) return fail_unknown(r, name);
    const ct_key *key = &ct_keys[index];
    CT_TRY(claim(r, &r->key_line[index], name));
    CT_TRY(next_event(r));
    char where[1024];
    snprintf(where, sizeof where, "%s:%zu: %s", r->name, event_line(r), name);
    switch (r->event.type) {
    case YAML_SEQUENCE_START_EVENT:
        return read_list(r, key, where);
    case YAML_SCALAR_EVENT: {
        const char *text = is_null(r) ? "" : scalar_text(r);
        return ct_key_set(r->config, key, where, &text, 1, false);
    }
    default:
        return ct_key_refuse(key, where, "keys below it");
    }
}

static ct_status read_section(reader *r, int section);

/* The present event is a key of the mapping of `section` (0: the top). */
static ct_status read_entry(reader *r, int section)
{
    char name[512];
    if (r->event.type != YAML_SCALAR_EVENT) return fail_here(r, "expected a key");
    const char *prefix = ct_sections[section].name;
    snprintf(name, sizeof name, "%s%s%s", prefix, *prefix ? "." : "", scalar_text(r));
    int below = section == 0 ? ct_section_find(name) : -1;
    if (below < 0) return read_value(r, name);
    CT_TRY(claim(r, &r->section_line[below], name));
    CT_TRY(next_event(r));
    if (is_null(r)) return CT_OK; /* all its keys commented out */
    if (r->event.type != YAML_MAPPING_START_EVENT)
        return ct_fail(CT_ERR_CONFIG, "%s:%zu: %s: expected keys below it", r->name, event_line(r),
                       name);
    return read_section(r, below);
}

/* The present event starts the section's mapping: reads to its end. */
static ct_status read_section(reader *r, int section)
{
    for (;;) {
        CT_TRY(next_event(r));
        if (r->event.type == YAML_MAPPING_END_EVENT) return CT_OK;
        CT_TRY(read_entry(r, section));
    }
}

static ct_status read_stream(reader *r)
{
    CT_TRY(next_event(r)); /* the stream's start */
    CT_TRY(next_event(r));
    if (r->event.type == YAML_STREAM_END_EVENT) return CT_OK; /* empty: nothing to set */
    CT_TRY(next_event(r));
    if (r->event.type == YAML_MAPPING_START_EVENT) CT_TRY(read_section(r, 0));
    else if (!is_null(r)) return fail_here(r, "expected keys, one a line, as in \"seed: 1\"");
    CT_TRY(next_event(r)); /* the document's end */
    CT_TRY(next_event(r));
    if (r->event.type != YAML_STREAM_END_EVENT)
        return fail_here(r, "a second document starts here; expected one");
    return CT_OK;
}

ct_status ct_config_parse(ct_config *config, const char *text, size_t size, const char *name)
{
    reader r = {.config = config, .name = name, .text = text, .size = size};
    if (!yaml_parser_initialize(&r.parser))
        return ct_fail(CT_ERR_MEMORY, "%s: out of host memory", name);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, size);
    ct_status status = read_stream(&r);
    yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    return status;
}

ct_status ct_config_load(ct_config *config, const char *path)
{
    char *text;
    size_t size;
    CT_TRY(ct_file_read(path, MAX_FILE_BYTES, &text, &size));
    ct_status status = ct_config_parse(config, text, size, path);
    free(text);
    return status;
}
