#include "support.h"

int main(void)
{
    return run_training_tests() + run_evaluation_tests() + run_bad_photo_tests() +
           run_thread_tests();
}
