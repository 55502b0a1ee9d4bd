/* Every convolution of the models that are trained with this engine, at 224 pixels. */
#ifndef CT_TESTS_CUDNN_PLANS_MODELS_H
#define CT_TESTS_CUDNN_PLANS_MODELS_H

#include <stdint.h>

typedef struct convolution {
    int64_t pixels, inputs, outputs; /* square images of `pixels` a side */
    int kernel, stride, pad;
} convolution;

/* list[0 .. result): the distinct convolutions of ResNet-18, 34, 50, 101 (He et al. 2015, the
 * strides where torchvision has them) and of the patch embeddings of ViT-B/32, B/16 and L/14
 * (Dosovitskiy et al. 2020). */
enum { MAX_CONVOLUTIONS = 64 };
int list_convolutions(convolution list[MAX_CONVOLUTIONS]);
int list_resnet_convolutions(convolution list[MAX_CONVOLUTIONS]); /* the ResNets' alone */

#endif
