/* The table of keys, and what the parts of this module share. Everything that knows a key by name
 * (parser, command line, printer, reference) walks this table. */
#ifndef CT_CONFIG_SCHEMA_H
#define CT_CONFIG_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "config/config.h"

typedef enum ct_key_type {
    CT_KEY_WHOLE, /* int64_t */
    CT_KEY_REAL,  /* double */
    CT_KEY_BOOL,  /* bool */
    CT_KEY_TEXT,  /* char *, owned by the config */
    CT_KEY_CHOICE /* an enum from 0 on; names[value] */
} ct_key_type;

/* Longest list, dotted name and description of any key (a test checks). */
#define CT_KEY_MAX_COUNT  3
#define CT_KEY_NAME_BYTES 48
#define CT_KEY_TEXT_BYTES 192

typedef struct ct_key {
    const char *name; /* "train.batch_size"; "seed" stands in no section */
    ct_key_type type;
    int count;                    /* elements: 1, or the length of the list */
    size_t offset;                /* of the field in ct_config */
    int64_t whole_min, whole_max; /* inclusive; INT64_MAX: no limit */
    double real_min, real_max;    /* inclusive, unless ... */
    bool above_min, below_max;    /* ... the end itself is left out */
    const char *const *names;     /* of the choices, NULL-terminated */
    const char *preset;           /* the default, as text of a YAML file */
    const char *help;             /* Markdown */
} ct_key;

typedef struct ct_section {
    const char *name; /* "train"; "" for the keys at the top */
    const char *help;
} ct_section;

extern const ct_key ct_keys[];
extern const int ct_key_count;
extern const ct_section ct_sections[];
extern const int ct_section_count;

/* A limit on ct_key_count and ct_section_count for arrays over them. */
#define CT_MAX_KEYS     128
#define CT_MAX_SECTIONS 16

/* Index of the key, or -1. */
int ct_key_find(const char *name);

/* Index of the section, or -1. */
int ct_section_find(const char *name);

/* Length of the section's part of a dotted name: 5 for "train.epochs", 0 for "seed". */
size_t ct_key_section_length(const char *name);

/* The known key that `name` was probably meant to be, or NULL. */
const ct_key *ct_key_nearest(const char *name);

/* "a whole number from 2 to 64", "a list of 3 numbers from 0 to 1", "one of cpu, cuda". */
void ct_key_describe(const ct_key *key, char out[CT_KEY_TEXT_BYTES]);

/* Sets the field from the elements' texts; `is_list` tells whether they stood in a list. The
 * message starts with `where` and says what was expected and found; the field then is as it was. */
CT_NODISCARD ct_status ct_key_set(ct_config *config, const ct_key *key, const char *where,
                                  const char *const *texts, int count, bool is_list);

/* ct_key_set's failure, for a value that is no scalar or list of scalars. */
CT_NODISCARD ct_status ct_key_refuse(const ct_key *key, const char *where, const char *found);

/* Element `index` of the field as text that ct_key_set reads back to the same value; `out` is used
 * for numbers. Text fields are returned as they are. */
const char *ct_key_format(const ct_config *config, const ct_key *key, int index,
                          char out[CT_KEY_TEXT_BYTES]);

#endif
