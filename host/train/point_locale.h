/* While held, this thread reads and writes numbers with a decimal point, whatever locale the
 * process has: JSON, CSS and SVG know no other. */
#ifndef CT_TRAIN_POINT_LOCALE_H
#define CT_TRAIN_POINT_LOCALE_H

#include <locale.h>

/* Returns what ct_point_locale_leave restores. */
static inline locale_t ct_point_locale_enter(void)
{
    return uselocale(newlocale(LC_ALL_MASK, "C", (locale_t)0));
}

static inline void ct_point_locale_leave(locale_t before)
{
    freelocale(uselocale(before));
}

#endif
