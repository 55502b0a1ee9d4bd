#include "world/self.h"

#include <stdio.h>
#include <unistd.h>

void ct_self_path(char *to)
{
    static const char self[] = "/proc/self/exe";
    ssize_t length = readlink(self, to, CT_SELF_BYTES - 1);
    if (length > 0) to[length] = '\0';
    if (length <= 0 || access(to, X_OK) != 0) snprintf(to, CT_SELF_BYTES, "%s", self);
}
