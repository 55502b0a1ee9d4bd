/* Any bytes as a configuration file, and their first line as an assignment: refused with a message,
 * or printed to text that reads back and prints the same. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition) abort();
}

static void check_printing(const ct_config *config)
{
    ct_config *back;
    char *text, *again;
    require(ct_config_print(config, &text) == CT_OK);
    require(ct_config_create(&back) == CT_OK);
    require(ct_config_parse(back, text, strlen(text), "printed") == CT_OK);
    require(ct_config_print(back, &again) == CT_OK);
    require(strcmp(text, again) == 0);
    require((ct_config_validate(config) == CT_OK) == (ct_config_validate(back) == CT_OK));
    ct_config_destroy(back);
    free(text);
    free(again);
}

static void check_message(ct_status status)
{
    require(status == CT_OK || ct_error_message()[0] != '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ct_config *config;
    require(ct_config_create(&config) == CT_OK);
    check_message(ct_config_parse(config, (const char *)data, size, "fuzz"));
    char *line = strndup((const char *)data, size);
    require(line != NULL);
    line[strcspn(line, "\n")] = '\0';
    check_message(ct_config_override(config, line));
    free(line);
    check_printing(config); /* what was set before a failure must be sound too */
    ct_config_destroy(config);
    return 0;
}
