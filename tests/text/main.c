#include "text_tests.h"

int main(void)
{
    return run_tokenizer_tests() + run_golden_tests() + run_token_store_tests() +
           run_vocab_trainer_tests();
}
