#include "support.h"

#include <string.h>

ct_config *new_config(void)
{
    ct_config *config;
    assert_ok(ct_config_create(&config));
    return config;
}

ct_config *parsed(const char *yaml)
{
    ct_config *config = new_config();
    assert_ok(ct_config_parse(config, yaml, strlen(yaml), "x.yaml"));
    return config;
}

void assert_refused(const char *yaml, const char *message)
{
    ct_config *config = new_config();
    ct_status status = ct_config_parse(config, yaml, strlen(yaml), "x.yaml");
    ct_config_destroy(config);
    assert_int_equal(status, CT_ERR_CONFIG);
    assert_string_equal(ct_error_message(), message);
}

void assert_override_refused(const char *assignment, const char *message)
{
    ct_config *config = new_config();
    ct_status status = ct_config_override(config, assignment);
    ct_config_destroy(config);
    assert_int_equal(status, CT_ERR_CONFIG);
    assert_string_equal(ct_error_message(), message);
}
