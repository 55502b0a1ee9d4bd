/* The groups of tests of test_train; each returns its number of failures. */
#ifndef CT_TESTS_TRAIN_TESTS_H
#define CT_TESTS_TRAIN_TESTS_H

int run_retrieval_tests(void);
int run_metrics_tests(void);
int run_progress_tests(void);
int run_report_text_tests(void);
int run_report_tests(void);
int run_checkpoint_tests(void);

#endif
