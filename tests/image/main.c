#include "support.h"

int main(void)
{
    return run_decode_tests() + run_region_tests() + run_resample_tests() + run_view_tests();
}
