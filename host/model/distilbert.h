/* DistilBERT's text tower (Sanh et al. 2019; Hugging Face's DistilBertModel) over packed tokens:
 * word + position embeddings, LayerNorm (eps 1e-12), dropout; `depth` post-norm blocks of
 * self-attention and a GELU feed-forward layer; the feature of a caption is its [CLS] row.
 * Parameter names are Hugging Face's under "text.": text.embeddings.word_embeddings.weight,
 * text.transformer.layer.0.attention.q_lin.weight, ... Initialisation N(0, 0.02), biases zero. */
#ifndef CT_MODEL_DISTILBERT_H
#define CT_MODEL_DISTILBERT_H

#include "model/params.h"

typedef struct ct_distilbert_config {
    int64_t vocab_size, max_positions, width, depth, heads, ffn;
    float dropout, attention_dropout;
    ct_activation activation; /* of the feed-forward blocks: CT_ACT_GELU or CT_ACT_GELU_TANH */
} ct_distilbert_config;

typedef struct ct_text_input {
    ct_tensor ids;        /* (T) i32 */
    ct_tensor positions;  /* (T) i32 */
    ct_tensor cu_seqlens; /* (N + 1) i32 */
    int max_seqlen;
} ct_text_input;

/* Dropout keys of this tower have ordinals from here on; lower ones are free for others. */
#define CT_DISTILBERT_DROPOUT_LAYER 16

typedef struct ct_distilbert ct_distilbert;

CT_NODISCARD ct_status ct_distilbert_create(ct_params *params, const ct_distilbert_config *config,
                                            ct_distilbert **out);
void ct_distilbert_destroy(ct_distilbert *bert);

/* features (N, width), pushed by the caller before this call. Stack discipline as ct_resnet's. */
CT_NODISCARD ct_status ct_distilbert_forward(ct_distilbert *bert, const ct_exec *exec,
                                             const ct_text_input *input, const ct_tensor *features);

/* dfeatures (N, width), pushed before forward. */
CT_NODISCARD ct_status ct_distilbert_backward(ct_distilbert *bert, const ct_exec *exec,
                                              const ct_tensor *dfeatures);

#endif
