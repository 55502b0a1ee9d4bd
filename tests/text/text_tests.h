/* What the files of this test program share. */
#ifndef CT_TESTS_TEXT_H
#define CT_TESTS_TEXT_H

#include "../support.h"

int run_tokenizer_tests(void);
int run_golden_tests(void);
int run_token_store_tests(void);
int run_vocab_trainer_tests(void);

#endif
