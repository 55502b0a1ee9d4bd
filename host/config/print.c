/* The config as YAML (libyaml's emitter, so every string survives), and the reference of keys. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/memory.h"
#include "config/schema.h"

typedef struct printer {
    yaml_emitter_t emitter;
    char *text;
    size_t used, capacity;
} printer;

static int append(void *data, unsigned char *bytes, size_t size)
{
    printer *p = data;
    if (ct_grow(&p->text, &p->capacity, p->used + size + 1, 1, "a configuration's text") != CT_OK)
        return 0;
    memcpy(p->text + p->used, bytes, size);
    p->used += size;
    p->text[p->used] = '\0';
    return 1;
}

/* `made`: whether libyaml could set the event up. The emitter frees it either way. */
static ct_status emit(printer *p, int made, yaml_event_t *event)
{
    if (made && yaml_emitter_emit(&p->emitter, event)) return CT_OK;
    if (p->emitter.error == YAML_EMITTER_ERROR)
        return ct_fail(CT_ERR_INTERNAL, "cannot print the configuration: %s", p->emitter.problem);
    return ct_fail(CT_ERR_MEMORY, "out of host memory for a configuration's text");
}

static ct_status emit_scalar(printer *p, const char *text, yaml_scalar_style_t style)
{
    yaml_event_t event;
    int made = yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)text,
                                            (int)strlen(text), style == YAML_PLAIN_SCALAR_STYLE,
                                            style != YAML_PLAIN_SCALAR_STYLE, style);
    return emit(p, made, &event);
}

static ct_status emit_mapping_start(printer *p)
{
    yaml_event_t event;
    return emit(
        p, yaml_mapping_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE),
        &event);
}

static ct_status emit_mapping_end(printer *p)
{
    yaml_event_t event;
    return emit(p, yaml_mapping_end_event_initialize(&event), &event);
}

static ct_status emit_key(printer *p, const ct_config *config, const ct_key *key)
{
    yaml_event_t event;
    char text[CT_KEY_TEXT_BYTES];
    yaml_scalar_style_t style =
        key->type == CT_KEY_TEXT ? YAML_DOUBLE_QUOTED_SCALAR_STYLE : YAML_PLAIN_SCALAR_STYLE;
    size_t section = ct_key_section_length(key->name);
    CT_TRY(emit_scalar(p, key->name + section + (section > 0), YAML_PLAIN_SCALAR_STYLE));
    if (key->count > 1)
        CT_TRY(emit(
            p,
            yaml_sequence_start_event_initialize(&event, NULL, NULL, 1, YAML_FLOW_SEQUENCE_STYLE),
            &event));
    for (int i = 0; i < key->count; i++)
        CT_TRY(emit_scalar(p, ct_key_format(config, key, i, text), style));
    if (key->count > 1) CT_TRY(emit(p, yaml_sequence_end_event_initialize(&event), &event));
    return CT_OK;
}

static bool in_section(const ct_key *key, const ct_section *section)
{
    size_t length = strlen(section->name);
    return ct_key_section_length(key->name) == length &&
           strncmp(key->name, section->name, length) == 0;
}

static ct_status emit_section(printer *p, const ct_config *config, const ct_section *section)
{
    bool named = *section->name;
    if (named) {
        CT_TRY(emit_scalar(p, section->name, YAML_PLAIN_SCALAR_STYLE));
        CT_TRY(emit_mapping_start(p));
    }
    for (int i = 0; i < ct_key_count; i++)
        if (in_section(&ct_keys[i], section)) CT_TRY(emit_key(p, config, &ct_keys[i]));
    return named ? emit_mapping_end(p) : CT_OK;
}

static ct_status emit_all(printer *p, const ct_config *config)
{
    yaml_event_t event;
    CT_TRY(emit(p, yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING), &event));
    CT_TRY(emit(p, yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1), &event));
    CT_TRY(emit_mapping_start(p));
    for (int i = 0; i < ct_section_count; i++) CT_TRY(emit_section(p, config, &ct_sections[i]));
    CT_TRY(emit_mapping_end(p));
    CT_TRY(emit(p, yaml_document_end_event_initialize(&event, 1), &event));
    return emit(p, yaml_stream_end_event_initialize(&event), &event);
}

ct_status ct_config_print(const ct_config *config, char **out)
{
    printer p = {.text = NULL};
    if (!yaml_emitter_initialize(&p.emitter))
        return ct_fail(CT_ERR_MEMORY, "out of host memory for a configuration's text");
    yaml_emitter_set_output(&p.emitter, append, &p);
    yaml_emitter_set_unicode(&p.emitter, 1);
    yaml_emitter_set_width(&p.emitter, -1); /* no folding */
    ct_status status = emit_all(&p, config);
    yaml_emitter_delete(&p.emitter);
    if (status == CT_OK) *out = p.text;
    else free(p.text);
    return status;
}

static const char introduction[] =
    "# Configuration\n"
    "\n"
    "A run is described by a YAML file; `key=value` arguments of the command line come after it "
    "and win.\n"
    "\n"
    "```yaml\n"
    "seed: 1\n"
    "data:\n"
    "  captions: flickr8k/captions.txt\n"
    "  images: flickr8k/Images\n"
    "text:\n"
    "  vocab: vocab.txt\n"
    "train:\n"
    "  batch_size: 64\n"
    "```\n"
    "\n"
    "On the command line a key is written with its section: `train.batch_size=256 "
    "'image.crop_scale=[0.3, 1]'`. Keys that are not given have the defaults below. An unknown "
    "key, a key given twice, a value of another type or out of range ends the program with file, "
    "line, key and what was expected. Anchors, aliases, tags and several documents in one file "
    "are refused. Relative paths start at the current folder. Numbers are decimal, such as `64`, "
    "`0.5` or `1e-4`; `yes`, `no`, `on` and `off` stand for `true` and `false` too.\n"
    "\n"
    "This page is printed from the program's table of keys.\n";

void ct_config_reference(FILE *stream)
{
    fputs(introduction, stream);
    for (int s = 0; s < ct_section_count; s++) {
        const ct_section *section = &ct_sections[s];
        fprintf(stream, "\n## %s\n\n%s\n\n", *section->name ? section->name : "Top level",
                section->help);
        fputs("| key | value | default | meaning |\n|---|---|---|---|\n", stream);
        for (int i = 0; i < ct_key_count; i++) {
            const ct_key *key = &ct_keys[i];
            char expected[CT_KEY_TEXT_BYTES];
            if (!in_section(key, section)) continue;
            ct_key_describe(key, expected);
            fprintf(stream, "| `%s` | %s | `%s` | %s |\n", key->name, expected, key->preset,
                    key->help);
        }
    }
}
