/* Matrix products by cuBLASLt, row-major, summed in f32:
 *
 *   c (m, n) = alpha op(a) (m, k) op(b) (k, n) + beta c, then the epilogue
 *
 * A plan is the library's choice of an algorithm for one shape, its descriptors and the workspace
 * it needs; plans live in a hash table as long as the device. One cuBLASLt handle, one stream. */
#ifndef CT_CUDA_PRODUCTS_H
#define CT_CUDA_PRODUCTS_H

#include "cuda/internal.h"

typedef enum ct_cuda_epilogue {
    CT_EPILOGUE_NONE,
    CT_EPILOGUE_BIAS,          /* c + bias */
    CT_EPILOGUE_GELU_BIAS,     /* gelu(c + bias), the tanh approximation */
    CT_EPILOGUE_GELU_AUX_BIAS, /* that, and aux = c + bias */
    CT_EPILOGUE_DGELU          /* c gelu'(aux): backward of the same */
} ct_cuda_epilogue;

typedef struct ct_cuda_product {
    void *c;           /* (m, n) */
    void *aux;         /* (m, n) of c's dtype; n a multiple of 8. Written by GELU_AUX_BIAS, read by
                          DGELU */
    const void *a, *b; /* (m, k), (k, n); transposed: (k, m), (n, k) */
    const void *bias;  /* (n) of c's dtype, as the library demands; not with DGELU */
    int64_t m, n, k;   /* > 0 */
    bool transpose_a, transpose_b;
    ct_dtype dtype;   /* of a and b */
    ct_dtype c_dtype; /* the same, or f32 */
    ct_cuda_epilogue epilogue;
    float alpha, beta;
} ct_cuda_product;

typedef struct ct_cuda_plan ct_cuda_plan;

CT_NODISCARD ct_status ct_cuda_products_create(struct ct_cuda_products **out);
void ct_cuda_products_destroy(struct ct_cuda_products *products);

/* *out = the plan for this shape and these alignments (a NULL pointer counts as aligned), valid
 * while the device lives. CT_ERR_UNSUPPORTED when the library has no algorithm. */
CT_NODISCARD ct_status ct_cuda_product_plan(ct_cuda_device *cuda, const ct_cuda_product *product,
                                            ct_cuda_plan **out);

size_t ct_cuda_product_workspace(const ct_cuda_plan *plan);

/* Runs a product on `stream` with its own plan. */
CT_NODISCARD ct_status ct_cuda_product_run(ct_cuda_device *cuda, ct_cuda_plan *plan,
                                           const ct_cuda_product *product, void *workspace);

#endif
