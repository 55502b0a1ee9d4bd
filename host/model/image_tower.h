/* The image tower that the configuration names (image.encoder): a ResNet or a Vision Transformer.
 */
#ifndef CT_MODEL_IMAGE_TOWER_H
#define CT_MODEL_IMAGE_TOWER_H

#include "config/config.h"
#include "model/params.h"

typedef struct ct_image_tower ct_image_tower;

/* batch: most photos a call. config and device are borrowed. */
CT_NODISCARD ct_status ct_image_tower_create(ct_params *params, ct_device *device,
                                             const ct_config *config, int32_t batch,
                                             ct_image_tower **out);
void ct_image_tower_destroy(ct_image_tower *tower);

/* Width of the output. */
int64_t ct_image_tower_features(const ct_image_tower *tower);

/* features (N, F), pushed on the activation stack by the caller before this call; x (N, S, S, 3)
 * normalised, which stays until backward. In training, what backward needs stays on the stack
 * above; in evaluation the stack is released again to where it was. */
CT_NODISCARD ct_status ct_image_tower_forward(ct_image_tower *tower, const ct_exec *exec,
                                              const ct_tensor *x, const ct_tensor *features);

/* dfeatures (N, F), pushed before forward, may be overwritten. Accumulates the parameters'
 * gradients; releases what forward pushed. */
CT_NODISCARD ct_status ct_image_tower_backward(ct_image_tower *tower, const ct_exec *exec,
                                               const ct_tensor *dfeatures);

#endif
