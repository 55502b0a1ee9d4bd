/* The fixed-point arithmetic of resampling: weights have 22 binary places, which leaves 8 bits for
 * a pixel's value and 2 for the overshoot of a bicubic kernel. */
#ifndef CT_IMAGE_FIXED_H
#define CT_IMAGE_FIXED_H

#define CT_FIXED_BITS 22
#define CT_FIXED_HALF (1 << (CT_FIXED_BITS - 1))

#endif
