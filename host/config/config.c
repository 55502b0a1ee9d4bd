#include "config/config.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "config/schema.h"
#include "config/text.h"

/* Cuts white space off both ends of `text`, in place, and returns its new start. */
static char *trim(char *text)
{
    while (isspace((unsigned char)*text)) text++;
    size_t length = strlen(text);
    while (length && isspace((unsigned char)text[length - 1])) length--;
    text[length] = '\0';
    return text;
}

/* Splits "[a, b]" at its commas, in place. Elements past the longest list are only counted. */
static int split_list(char *text, const char *elements[CT_KEY_MAX_COUNT])
{
    text[strlen(text) - 1] = '\0';
    char *rest = text + 1;
    int count = 0;
    for (char *element; (element = strsep(&rest, ",")); count++)
        if (count < CT_KEY_MAX_COUNT) elements[count] = trim(element);
    return count;
}

/* The value of a command line: text is taken as it stands, numbers and words may have white space
 * around them, a list is "[a, b]". `text` is changed. */
static ct_status set_from_line(ct_config *config, const ct_key *key, const char *where, char *text)
{
    const char *elements[CT_KEY_MAX_COUNT] = {text};
    if (key->type == CT_KEY_TEXT) return ct_key_set(config, key, where, elements, 1, false);
    text = trim(text);
    size_t length = strlen(text);
    bool is_list = length >= 2 && text[0] == '[' && text[length - 1] == ']';
    elements[0] = text;
    int count = is_list ? split_list(text, elements) : 1;
    return ct_key_set(config, key, where, elements, count, is_list);
}

ct_status ct_config_create(ct_config **out)
{
    ct_config *config;
    CT_TRY(ct_alloc(1, sizeof *config, "the configuration", &config));
    for (int i = 0; i < ct_key_count; i++) {
        const char *preset = ct_keys[i].preset;
        char *text;
        ct_status status = ct_strdup(strcmp(preset, "\"\"") == 0 ? "" : preset, &text);
        if (status == CT_OK) {
            status = set_from_line(config, &ct_keys[i], ct_keys[i].name, text);
            free(text);
        }
        if (status != CT_OK) {
            ct_config_destroy(config);
            return status;
        }
    }
    *out = config;
    return CT_OK;
}

void ct_config_destroy(ct_config *config)
{
    if (!config) return;
    for (int i = 0; i < ct_key_count; i++)
        if (ct_keys[i].type == CT_KEY_TEXT) free(*(char **)((char *)config + ct_keys[i].offset));
    free(config);
}

static ct_status override(ct_config *config, char *name, const char *where)
{
    char *equals = strchr(name, '=');
    if (!equals) return ct_fail(CT_ERR_CONFIG, "%s: expected key=value", where);
    *equals = '\0';
    int index = ct_key_find(name);
    const ct_key *nearest = index < 0 ? ct_key_nearest(name) : NULL;
    if (nearest)
        return ct_fail(CT_ERR_CONFIG, "%s: unknown key (did you mean %s?)", where, nearest->name);
    if (index < 0) return ct_fail(CT_ERR_CONFIG, "%s: unknown key", where);
    return set_from_line(config, &ct_keys[index], where, equals + 1);
}

ct_status ct_config_override(ct_config *config, const char *assignment)
{
    char excerpt[CT_EXCERPT_BYTES], *text;
    const char *where = ct_excerpt(assignment, strlen(assignment), excerpt);
    if (!ct_is_utf8(assignment, strlen(assignment)))
        return ct_fail(CT_ERR_CONFIG, "%s: expected UTF-8", where);
    CT_TRY(ct_strdup(assignment, &text));
    ct_status status = override(config, text, where);
    free(text);
    return status;
}
