/* What the train module's tests share. */
#ifndef CT_TESTS_TRAIN_SUPPORT_H
#define CT_TESTS_TRAIN_SUPPORT_H

#include <math.h>

#include "../support.h"

#define assert_close(value, expected, limit)                                                       \
    do {                                                                                           \
        double value_ = (value), expected_ = (expected);                                           \
        if (!(fabs(value_ - expected_) <= (limit)))                                                \
            fail_msg("%s is %.17g, expected %.17g", #value, value_, expected_);                    \
    } while (0)

#endif
