/* This program's own file, to start it again. */
#ifndef CT_WORLD_SELF_H
#define CT_WORLD_SELF_H

#define CT_SELF_BYTES 4096

/* to[CT_SELF_BYTES] = its path; "/proc/self/exe" itself when the file is not there any more under
 * its name (replaced by a new build), which also would name the process "exe". */
void ct_self_path(char *to);

#endif
