/* What the tests of the configuration share. */
#ifndef CT_TESTS_CONFIG_SUPPORT_H
#define CT_TESTS_CONFIG_SUPPORT_H

#include "../support.h"
#include "config/config.h"

/* All defaults. */
ct_config *new_config(void);

/* The text parses; returns the config. */
ct_config *parsed(const char *yaml);

/* The text, called "x.yaml", is refused with exactly this message. */
void assert_refused(const char *yaml, const char *message);

/* The assignment is refused with exactly this message. */
void assert_override_refused(const char *assignment, const char *message);

int run_parse_tests(void);
int run_value_tests(void);
int run_validate_tests(void);
int run_print_tests(void);
int run_schema_tests(void);

/* docs/CONFIG.md, from the repository's root. */
int write_reference(void);

#endif
