/* The groups of tests of test_model; each returns its number of failures. */
#ifndef CT_TESTS_MODEL_TESTS_H
#define CT_TESTS_MODEL_TESTS_H

int run_safetensors_tests(void);
int run_params_tests(void);
int run_tower_tests(void);
int run_clip_tests(void);
int run_optimizer_tests(void);
int run_training_tests(void);
int run_micro_batch_tests(void);
int run_shards_tests(void);

#endif
