/* Op cases: one table of shapes and options that drives every check of a backend's operations.
 *
 * A kind (conv2d, linear, ...) names its tensors ("slots"), computes them in f64, forward and
 * backward, and calls the operation. A case is a kind with parameters. From these the harness
 *   - checks the f64 backward against central differences of the f64 forward (small cases),
 *   - checks the f64 reference and the device against PyTorch, where tests/reference/data/ops.*
 *     has the case (tests/reference/make_ops.py),
 *   - checks every device against the f64 reference, forward and backward, after `prepare`; outputs
 *     that must be overwritten are full of NaN before; inputs must stay as they were; a second call
 *     must give the same bits and (where the executable counts allocations) allocate nothing.
 *
 * Dtypes. Tensors that op.h gives the device's compute dtype are declared as CT_CASE_COMPUTE, so
 * that one table serves devices of every precision; gradients of parameters are f32 always. The
 * same seed gives the same numbers for all dtypes.
 *
 * Error limit (the only one; ct_case_limit). R0 is the f64 result of unrounded f64 inputs; R1 that
 * of inputs rounded to their dtype, with results (and what is stored on the way: what forward hands
 * to backward, a linear layer's preact, a layernorm's sum) rounded too; D the device's. Then, in
 * the maximum norm and as root mean square (rms) alike, |D - R0| <= 2 |R1 - R0| + eps sqrt(terms)
 * |R0| where eps is 2^-23 and `terms` the number of values summed for one element: rounding errors
 * of a sum of that many random terms grow like its square root. Where larger terms cancel in the
 * result, their magnitude stands for |R0|. Integer results, and those marked exact, must equal R1.
 * Where a result jumps (the mask of a ReLU, the winner of a maximum), R1's decisions hold for R0
 * too.
 *
 * To add an operation: write a kind and a table in a cases_*.c, name the table in CT_CASE_TABLES.
 */
#ifndef CT_TESTS_OP_CASE_H
#define CT_TESTS_OP_CASE_H

#include "op.h"

#define CT_CASE_SLOTS 16

/* Stands for the dtype under test in ct_case_slot. */
#define CT_CASE_COMPUTE ((ct_dtype)127)
#define CT_CASE_PARAMS  12

typedef enum ct_slot_role {
    CT_SLOT_INPUT,  /* has a gradient, which backward overwrites (=) */
    CT_SLOT_PARAM,  /* has a gradient, which backward adds to (+=) */
    CT_SLOT_CONST,  /* input without gradient: ids, pixels */
    CT_SLOT_OUTPUT, /* written by forward; its gradient is an input of backward */
    CT_SLOT_SAVED,  /* written by forward, for backward */
    CT_SLOT_STATE   /* updated by forward: running statistics, optimiser state */
} ct_slot_role;

typedef struct ct_slot {
    const char *name; /* as in op.h and make_ops.py */
    ct_slot_role role;
    int64_t count;
    /* The reference's numbers. Inputs are filled before ref_fwd, gradients of outputs before
     * ref_bwd; ref_fwd writes v of OUTPUT and SAVED, changes v of STATE; ref_bwd writes (=, also
     * for PARAM) g of INPUT and PARAM. g is NULL for the other roles. */
    double *v, *g;
    /* The device's value and gradient. */
    ct_tensor t, d; /* setup may make d absent (rank 0) where op.h has that gradient optional */
    double terms, grad_terms; /* values summed for one element of v, of g; 1 unless set */
    /* Size of what cancels in v, in g, where that is larger than the result: 0 unless set (by
     * setup, ref_fwd or ref_bwd). */
    double magnitude, grad_magnitude;
    bool adds;      /* INPUT whose gradient backward adds to (+=), as to a PARAM's */
    bool unchecked; /* SAVED that backends may define as they like */
    bool exact;     /* the device's value must equal R1 */
    bool compute;   /* declared as CT_CASE_COMPUTE */
    /* Set by setup where op.h says "may alias" and the case wants it: t (or d) is the very tensor
     * of that other slot. An input that forward overwrote so is restored before backward. */
    struct ct_slot *value_in, *gradient_in;
} ct_slot;

typedef struct ct_case_run ct_case_run;

typedef struct ct_kind {
    const char *name;
    /* Declares the slots with ct_case_slot from run->p. */
    void (*setup)(ct_case_run *run);
    /* Optional. f32 slots that are read come filled with standard normal numbers, others with 0;
     * here they can be given other values, e.g. positive variances, ids, flags. */
    void (*fill)(ct_case_run *run);
    void (*ref_fwd)(ct_case_run *run);
    void (*ref_bwd)(ct_case_run *run); /* NULL: no backward */
    /* Fill in the argument struct from slot[].t and .d and call ct_op_*(&run->exec, &args). They
     * must not look at tensor data: they also run while planning. */
    ct_status (*fwd)(ct_case_run *run);
    ct_status (*bwd)(ct_case_run *run); /* NULL: no backward */
    /* Floating-point operations of forward or backward (a multiply-add is 2). */
    double (*flops)(const int64_t *p, bool backward);
    /* Its tensors of the compute dtype are operands of products: a device with tf32 reads them with
     * 10 bits of mantissa. */
    bool products;
} ct_kind;

typedef struct ct_case {
    const ct_kind *kind;
    const char *name; /* unique among all cases; make_ops.py uses the same */
    int64_t p[CT_CASE_PARAMS];
} ct_case;

struct ct_case_run {
    const ct_case *c;
    const int64_t *p; /* = c->p */
    ct_slot slot[CT_CASE_SLOTS];
    int slots;
    ct_exec exec; /* of the device under test */
    uint64_t seed;
    ct_dtype compute_dtype;
    bool tf32;    /* of the device under test */
    bool rounded; /* R1 is being computed */
    /* The run whose forward results decide where a result jumps: itself, or for R0 its R1. */
    const ct_case_run *decisions;
    bool kinked; /* set by setup: the inputs lie on kinks (ties), where differences mean nothing */
};

typedef struct ct_case_table {
    const ct_case *cases;
    int count;
} ct_case_table;

/* Every table: CT_DEFINE_CASE_TABLE(images, array) in cases_images.c defines ct_cases_images. */
#define CT_CASE_TABLES(X)                                                                          \
    X(images) X(linear) X(rows) X(tokens) X(attention) X(loss) X(siglip) X(cast) X(optimizer)

#define CT_CASE_DECLARE_TABLE(name) extern const ct_case_table ct_cases_##name;
CT_CASE_TABLES(CT_CASE_DECLARE_TABLE)
#undef CT_CASE_DECLARE_TABLE

#define CT_DEFINE_CASE_TABLE(name, array)                                                          \
    const ct_case_table ct_cases_##name = {array, (int)(sizeof(array) / sizeof *(array))}

/* Declares slot `index` (they come in order, 0, 1, ...) of shape `dims`, which lists 1 to 4
 * positive numbers and ends with 0, e.g. (const int64_t[]){n, d, 0}. An optional tensor that the
 * case leaves out is declared with absent true: count 0, v and g NULL, tensors absent. */
ct_slot *ct_case_slot(ct_case_run *run, int index, const char *name, ct_slot_role role,
                      ct_dtype dtype, const int64_t *dims, bool absent);

/* x as the slot's tensor would store it: rounded in R1, as it is in R0. For what a reference stores
 * and reads again within one pass. */
double ct_case_stored(const ct_case_run *run, const ct_slot *slot, double x);

/* Random numbers for fill(): standard normal, and integers in [0, bound). */
double ct_case_normal(const ct_case_run *run, int slot, int64_t index);
int64_t ct_case_below(const ct_case_run *run, int slot, int64_t index, int64_t bound);

/* ---- the harness's own, used by the checks and the benchmarks -------------------------------- */

/* Sets up the slots and fills inputs (and gradients of outputs) for `c`. Device memory is not
 * touched. Fails the test when memory is short. `run` must stay where it is. */
void ct_case_begin(ct_case_run *run, const ct_case *c, uint64_t seed, ct_dtype compute_dtype,
                   bool tf32);
void ct_case_end(ct_case_run *run);

/* Rounds all that is read to the slots' dtypes, operands of products to tf32 where that holds. */
void ct_case_round_inputs(ct_case_run *run);
/* ref_fwd, then ref_bwd if there is one; `rounded`: what forward hands to backward, and all
 * results, are rounded to their dtypes. */
void ct_case_reference(ct_case_run *run, bool rounded);

/* x rounded to the nearest number of a dtype; integers are exact. Values and gradients of a slot
 * may have different ones. */
double ct_case_round(ct_dtype dtype, double x);
bool ct_case_is_float(ct_dtype dtype);

/* Whether backward adds to the slot's gradient, and what element `index` of it holds before, in
 * f32. */
bool ct_case_adds(const ct_slot *slot);
float ct_case_start(const ct_case_run *run, int slot, int64_t index);

/* Bytes that a pass must at least move: every tensor it reads or writes, once. */
double ct_case_bytes(const ct_case_run *run, bool backward);

/* The most that |D - R0| may be, given |R1 - R0| and |R0| (or what cancels in it). */
double ct_case_limit(double rounding_error, double terms, double size);

#endif
