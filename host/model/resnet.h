/* ResNet image towers (He et al. 2016) as torchvision builds them: v1.5 bottlenecks (the stride is
 * on the 3x3 convolution), parameter names of torchvision under "image.", no classifier.
 * Initialisation: Kaiming normal, fan out, for filters; ones and zeros for norms.
 *
 * (N, S, S, 3) ─► conv7x7/2 bn relu ─► maxpool3/2 ─► layer1..4 ─► mean ─► (N, features) */
#ifndef CT_MODEL_RESNET_H
#define CT_MODEL_RESNET_H

#include "config/config.h"
#include "model/params.h"

typedef struct ct_resnet ct_resnet;

CT_NODISCARD ct_status ct_resnet_create(ct_params *params, ct_image_encoder encoder,
                                        ct_resnet **out);
void ct_resnet_destroy(ct_resnet *resnet);

/* Width of the output: 512 (18, 34) or 2048 (50, 101). */
int64_t ct_resnet_features(const ct_resnet *resnet);

/* features (N, F), pushed on the activation stack by the caller before this call; x (N, S, S, 3)
 * normalised. In training, what backward needs stays on the stack above; in evaluation the stack
 * is released again to where it was. */
CT_NODISCARD ct_status ct_resnet_forward(ct_resnet *resnet, const ct_exec *exec, const ct_tensor *x,
                                         const ct_tensor *features);

/* dfeatures (N, F), pushed before forward. Accumulates the parameters' gradients; releases what
 * forward pushed. */
CT_NODISCARD ct_status ct_resnet_backward(ct_resnet *resnet, const ct_exec *exec,
                                          const ct_tensor *dfeatures);

#endif
