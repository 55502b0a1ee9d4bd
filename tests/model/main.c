#include "model/tests.h"

int main(void)
{
    return run_safetensors_tests() + run_shards_tests() + run_params_tests() + run_tower_tests() +
           run_clip_tests() + run_micro_batch_tests() + run_optimizer_tests() +
           run_training_tests();
}
