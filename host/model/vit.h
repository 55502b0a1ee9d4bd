/* Vision Transformer image towers (Dosovitskiy et al. 2021) as timm builds vit_*_patch*: patch
 * embedding by a convolution with bias, class token, learned positions, pre-norm blocks
 *   x += proj(attention(norm1(x)));  x += fc2(GELU(fc1(norm2(x))))
 * and a last norm of the class token, which is the feature. LayerNorm eps 1e-6, exact GELU, no
 * dropout. Parameter names are timm's under "image."; no classifier. Initialisation is timm's:
 * matrices and positions N(0, 0.02), class token N(0, 1e-6), filters as torch.nn.Conv2d's.
 *
 * (N, S, S, 3) ─► conv p x p / p ─► + class token, positions ─► blocks ─► norm ─► (N, width) */
#ifndef CT_MODEL_VIT_H
#define CT_MODEL_VIT_H

#include "model/params.h"

typedef struct ct_vit_config {
    int64_t size, patch; /* pixels a side of a photo, of a patch: a multiple */
    int64_t width, depth, heads, ffn;
    int32_t batch; /* most photos a call */
} ct_vit_config;

typedef struct ct_vit ct_vit;

/* `device` holds a table of where sequences begin; borrowed. */
CT_NODISCARD ct_status ct_vit_create(ct_params *params, ct_device *device,
                                     const ct_vit_config *config, ct_vit **out);
void ct_vit_destroy(ct_vit *vit);

/* As ct_resnet_forward and ct_resnet_backward; features (N, width). */
CT_NODISCARD ct_status ct_vit_forward(ct_vit *vit, const ct_exec *exec, const ct_tensor *x,
                                      const ct_tensor *features);
CT_NODISCARD ct_status ct_vit_backward(ct_vit *vit, const ct_exec *exec,
                                       const ct_tensor *dfeatures);

#endif
