/* The contrastive loss of a batch's embeddings and what is learned with it: "logit_scale", the log
 * of the factor on cosines, and with the sigmoid loss "logit_bias". Formulas: see op.h. */
#ifndef CT_MODEL_CONTRASTIVE_H
#define CT_MODEL_CONTRASTIVE_H

#include "config/config.h"
#include "model/params.h"

/* A plain struct inside the model; the registry owns the parameters. */
typedef struct ct_contrastive {
    const ct_param *logit_scale;
    const ct_param *logit_bias; /* NULL: the softmax loss, which a bias would not change */
    ct_same_image same_image;
    float label_smoothing;
} ct_contrastive;

CT_NODISCARD ct_status ct_contrastive_create(ct_params *params, const ct_config *config,
                                             ct_contrastive *out);

typedef struct ct_contrastive_batch {
    ct_tensor loss;          /* (1) = of the batch of all ranks */
    ct_tensor dimage, dtext; /* (M, D) = gradients of that loss */
    ct_tensor image, text;   /* (M, D) this rank's, rows of length 1 */
    ct_tensor photo_ids;     /* (M) i32 */
    ct_tensor loss_scale;    /* (2) optional: the gradients, not the loss, are scaled by it */
} ct_contrastive_batch;

/* The loss, its gradients with respect to the embeddings, and this rank's share of the parameters'
 * (+=). Every rank sees all pairs: embeddings and photo ids are gathered once, each rank computes
 * its own rows, the columns' statistics are exchanged. The stack is as it was afterwards. */
CT_NODISCARD ct_status ct_contrastive_forward_backward(const ct_contrastive *loss,
                                                       const ct_exec *exec,
                                                       const ct_contrastive_batch *batch);

#endif
