#include "train/tests.h"

int main(void)
{
    return run_retrieval_tests() + run_metrics_tests() + run_progress_tests() +
           run_report_text_tests() + run_report_tests() + run_checkpoint_tests();
}
