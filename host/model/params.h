/* The parameters of a model: every tensor once, by the name PyTorch's models give it, with its
 * gradient and the optimiser's moments.
 *
 * Modules add parameters while the model is built (shapes only); ct_params_allocate then lays all
 * trained values out in one block, all gradients in a second and the moments in a third and fourth,
 * all four alike, in the order they were added. A fifth holds the buffers, a sixth the operands'
 * weights where the device does not compute in f32. Parameters added one after the other whose
 * bytes (in every dtype) are multiples of CT_ALIGNMENT are adjacent, so q, k and v projections can
 * be used as one (3 D, D) matrix.
 *
 * In files tensors have PyTorch's layout; convolution filters, (Co, KH, KW, Ci) in memory, are
 * (Co, Ci, KH, KW) there. */
#ifndef CT_MODEL_PARAMS_H
#define CT_MODEL_PARAMS_H

#include "model/shards.h"
#include "op.h"

typedef enum ct_param_group { CT_GROUP_IMAGE, CT_GROUP_TEXT, CT_GROUP_HEAD } ct_param_group;

typedef enum ct_init_kind {
    CT_INIT_CONSTANT, /* = scale */
    CT_INIT_NORMAL,   /* N(0, scale^2) */
    CT_INIT_UNIFORM   /* U(-scale, scale) */
} ct_init_kind;

typedef struct ct_param {
    char name[112];                             /* "image.layer1.0.conv1.weight" */
    ct_tensor value, grad, exp_avg, exp_avg_sq; /* f32; the last three absent for a buffer */
    /* What operations read: of an operand the value in the device's compute dtype, kept up to date
     * by ct_param_upload and the optimiser; else, and in f32, the very tensor `value`. */
    ct_tensor weight;
    int index; /* among all parameters */
    ct_param_group group;
    bool operand;  /* read by products, convolutions or embeddings */
    bool buffer;   /* running statistics: saved and loaded, not trained */
    bool optional; /* a file without it is no error: it keeps what it has */
    bool decay;    /* weight decay applies (not on norms, biases, logit_scale) */
    bool filter;   /* a convolution filter: transposed in files */
    ct_init_kind init;
    float init_scale;
    float max_value; /* clamp after each update; INFINITY: none */
} ct_param;

typedef struct ct_params ct_params;

CT_NODISCARD ct_status ct_params_create(ct_params **out);
void ct_params_destroy(ct_params *params); /* frees the device memory too */

/* Adds a parameter described by `param` (name, value's shape, group, operand, buffer, optional,
 * decay, filter, init, max_value are read). *out stays valid for the registry's life. A name twice
 * is CT_ERR_INTERNAL.
 */
CT_NODISCARD ct_status ct_params_add(ct_params *params, const ct_param *param,
                                     const ct_param **out);

/* Allocates on the device and initialises values from the seed (each parameter from its own stream,
 * so the order of the others does not matter). with_training: gradients and moments too (zeroed).
 */
CT_NODISCARD ct_status ct_params_allocate(ct_params *params, ct_device *device, uint64_t seed,
                                          bool with_training);

/* Before allocation, on a device of several ranks: blocks are to be exchanged in buckets of so many
 * numbers. own_moments: this rank has the moments of its own parts only (shards.h), so parameters'
 * exp_avg and exp_avg_sq are absent. */
void ct_params_share(ct_params *params, int64_t bucket, bool own_moments);

/* NULL when one rank has all. */
const ct_shards *ct_params_shards(const ct_params *params);
bool ct_params_own_moments(const ct_params *params);

/* Blocks as one row of numbers, gaps for alignment included; the first moments (which 0) or the
 * second (1), with own_moments those of own parts. */
ct_tensor ct_params_values(const ct_params *params);
ct_tensor ct_params_grads(const ct_params *params);
ct_tensor ct_params_moments(const ct_params *params, int which);

int ct_params_count(const ct_params *params);
const ct_param *ct_params_at(const ct_params *params, int index);
const ct_param *ct_params_find(const ct_params *params, const char *name); /* NULL: none */
int64_t ct_params_elements(const ct_params *params);                       /* trained scalars */
size_t ct_params_bytes(const ct_params *params); /* device memory in all */

/* Sets every gradient to zero. */
CT_NODISCARD ct_status ct_params_zero_grads(ct_params *params);

/* Device to host and back, in the file's (PyTorch's) layout. `tensor` is the parameter's value,
 * grad or a moment; `host` has room for its elements. Uploading a value renews the weight, rounded
 * to the nearest. */
CT_NODISCARD ct_status ct_param_download(ct_params *params, const ct_param *param,
                                         const ct_tensor *tensor, float *host);
CT_NODISCARD ct_status ct_param_upload(ct_params *params, const ct_param *param,
                                       const ct_tensor *tensor, const float *host);

#endif
