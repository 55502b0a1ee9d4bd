/* What the tests of the data share. */
#ifndef CT_TESTS_DATA_SUPPORT_H
#define CT_TESTS_DATA_SUPPORT_H

#include "../support.h"
#include "data/dataset.h"

/* The text, called "c", is read with any number of bad rows put up with. */
ct_dataset *parsed(const char *text, ct_captions_format format);

/* Photos and captions as "name: caption / caption; name: caption" are these. */
void assert_contents(const ct_dataset *dataset, const char *expected);

/* Parses with automatic format, checks contents and number of skipped rows. */
void assert_parses(const char *text, int32_t skipped, const char *expected);

/* `photos` photos "p0", "p1", ... with `captions` captions each. */
ct_dataset *numbered(int32_t photos, int32_t captions);

int run_parse_tests(void);
int run_csv_tests(void);
int run_split_tests(void);
int run_folder_tests(void);
int run_sampler_tests(void);

#endif
