/* Projection heads into the shared space, one a tower ("image_projection.", "text_projection."):
 *   linear: y = x w^T                                   <prefix>weight
 *   mlp:    p = fc1(x); y = norm(p + dropout(fc2(GELU(p))))   <prefix>fc1.*, fc2.*, norm.*
 * The mlp is the head of Keras' and Shariatnia's Flickr tutorials. LayerNorm eps 1e-5.
 * Initialisation: linear N(0, features^-1/2) (OpenAI's CLIP); mlp as torch.nn.Linear. */
#ifndef CT_MODEL_PROJECTION_H
#define CT_MODEL_PROJECTION_H

#include "config/config.h"
#include "model/params.h"

typedef struct ct_projection ct_projection;

/* prefix: "image_projection." or "text_projection."; dropout_layer keeps their masks apart. */
CT_NODISCARD ct_status ct_projection_create(ct_params *params, const char *prefix,
                                            ct_projection_kind kind, int64_t features, int64_t dim,
                                            float dropout, int dropout_layer, ct_projection **out);
void ct_projection_destroy(ct_projection *projection);

/* x (N, features) stays valid until backward; y (N, dim), both pushed by the caller. */
CT_NODISCARD ct_status ct_projection_forward(ct_projection *projection, const ct_exec *exec,
                                             const ct_tensor *x, const ct_tensor *y);

/* dx (N, features) =, dy (N, dim), both pushed before forward; dy may be overwritten. Releases what
 * forward pushed. */
CT_NODISCARD ct_status ct_projection_backward(ct_projection *projection, const ct_exec *exec,
                                              const ct_tensor *dx, const ct_tensor *dy);

#endif
