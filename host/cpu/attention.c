/* Self-attention over packed sequences of different lengths.
 *
 * One task is one head of one sequence; tasks share nothing, so the order in which threads take
 * them does not show in the result. A task walks the queries in blocks of ROWS, so that scratch
 * memory grows with the length of a sequence and not with its square. Keys and values of the head
 * are packed once per task, widths padded to whole vectors:
 *
 *   forward     S = Q K^T          P = softmax(scale S)     O = dropout(P) V
 *   backward    P = exp(scale Q K^T - lse)                  dP = dO V^T, through the same mask
 *               dS = scale P (dP - rowsum(dO O))            dQ = dS K
 *               dK += dS^T Q       dV += dropout(P)^T dO
 *
 * (the recomputation of P from lse and the row sum of dO O are FlashAttention's, Dao et al. 2022).
 */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "cpu/dropout_mask.h"
#include "cpu/internal.h"
#include "cpu/small_gemm.h"
#include "cpu/vector_math.h"

enum { ROWS = 32 /* queries a block */, KEEP_INDEX_STRIDE = 65536 /* see op.h */ };

/* What the two directions have in common. Of `tokens` rows, `qkv` has 3 heads depth floats each and
 * `o` has heads depth. */
typedef struct problem {
    const float *qkv;
    const int32_t *cu_seqlens;
    int64_t tokens, sequences, heads, depth;
    int64_t longest; /* tokens of the longest sequence */
    int64_t depth_padded, keys_padded;
    float scale, dropout;
    ct_rng_key key;
    bool causal;
} problem;

/* Both directions' arguments name these things alike. */
#define PROBLEM_OF(args)                                                                           \
    {                                                                                              \
        .qkv = ct_f32(&(args)->qkv), .cu_seqlens = ct_i32(&(args)->cu_seqlens),                    \
        .tokens = (args)->o.dim[0], .sequences = (args)->cu_seqlens.dim[0] - 1,                    \
        .heads = (args)->o.dim[1], .depth = (args)->o.dim[2], .longest = (args)->max_seqlen,       \
        .depth_padded = ct_padded((args)->o.dim[2]), .keys_padded = ct_padded((args)->max_seqlen), \
        .scale = (args)->scale, .dropout = (args)->dropout, .key = (args)->key,                    \
        .causal = (args)->causal                                                                   \
    }

/* A head of a sequence. */
typedef struct task {
    int64_t first, length, head;
} task;

static int64_t at_most(int64_t value, int64_t limit)
{
    return value < limit ? value : limit;
}

static ct_status check_sequences(const problem *p)
{
    if (p->longest > KEEP_INDEX_STRIDE)
        return ct_fail(CT_ERR_ARGUMENT, "sequences may have %d tokens, not %lld", KEEP_INDEX_STRIDE,
                       (long long)p->longest);
    bool valid = p->cu_seqlens[0] == 0 && p->cu_seqlens[p->sequences] <= p->tokens;
    for (int64_t n = 0; n < p->sequences; n++) {
        int64_t length = (int64_t)p->cu_seqlens[n + 1] - p->cu_seqlens[n];
        valid = valid && length >= 0 && length <= p->longest;
    }
    if (valid) return CT_OK;
    return ct_fail(CT_ERR_ARGUMENT,
                   "cu_seqlens must ascend from 0 to at most %lld in steps of at most %lld",
                   (long long)p->tokens, (long long)p->longest);
}

static task task_number(const problem *p, int64_t number)
{
    int64_t sequence = number / p->heads, first = p->cu_seqlens[sequence];
    return (task){first, p->cu_seqlens[sequence + 1] - first, number % p->heads};
}

/* Row 0 of the task's queries (part 0), keys (1) or values (2); rows are 3 heads depth apart. */
static const float *part_of(const problem *p, const task *t, int part)
{
    return p->qkv + ((t->first * 3 + part) * p->heads + t->head) * p->depth;
}

/* out (rows, depth_padded) = x (rows, depth) with `stride` floats from row to row, and zeros. */
static void pack(const problem *p, float *out, const float *x, int64_t stride, int64_t rows)
{
    int64_t depth = p->depth, padded = p->depth_padded;
    for (int64_t i = 0; i < rows; i++) {
        memcpy(out + i * padded, x + i * stride, (size_t)depth * sizeof(float));
        if (padded > depth)
            memset(out + i * padded + depth, 0, (size_t)(padded - depth) * sizeof(float));
    }
}

/* out (depth, keys_padded) = x^T, and zeros behind the `rows` columns up to a whole vector. */
static void pack_transposed(const problem *p, float *out, const float *x, int64_t stride,
                            int64_t rows)
{
    int64_t whole = rows / CT_PAD * CT_PAD, ld = p->keys_padded;
    for (int64_t first = 0; first < whole; first += CT_PAD)
        for (int64_t c = 0; c < p->depth; c++)
            for (int64_t i = 0; i < CT_PAD; i++)
                out[c * ld + first + i] = x[(first + i) * stride + c];
    if (whole == rows) return;
    for (int64_t c = 0; c < p->depth; c++) {
        for (int64_t i = whole; i < rows; i++) out[c * ld + i] = x[i * stride + c];
        for (int64_t i = rows; i < whole + CT_PAD; i++) out[c * ld + i] = 0.0f;
    }
}

/* x (rows, depth), `stride` floats from row to row, = the leading columns of packed. */
static void unpack(const problem *p, float *x, int64_t stride, const float *packed, int64_t rows)
{
    for (int64_t i = 0; i < rows; i++)
        memcpy(x + i * stride, packed + i * p->depth_padded, (size_t)p->depth * sizeof(float));
}

/* s (rows, keys) = a b^T for a (rows, depth) and b packed transposed. */
static void similarities(const problem *p, float *s, const float *a, int64_t a_stride,
                         const float *b_transposed, int64_t rows, int64_t keys)
{
    ct_small_gemm_run(&(ct_small_gemm){.c = s,
                                       .a = a,
                                       .b = b_transposed,
                                       .m = rows,
                                       .n = ct_padded(keys),
                                       .k = p->depth,
                                       .a_row = a_stride,
                                       .a_column = 1,
                                       .ldb = p->keys_padded,
                                       .ldc = p->keys_padded});
}

/* out (rows, depth) = s x, for s (rows, keys) and x (keys, depth) packed. */
static void mix(const problem *p, float *out, const float *s, const float *x, int64_t rows,
                int64_t keys)
{
    ct_small_gemm_run(&(ct_small_gemm){.c = out,
                                       .a = s,
                                       .b = x,
                                       .m = rows,
                                       .n = p->depth_padded,
                                       .k = keys,
                                       .a_row = p->keys_padded,
                                       .a_column = 1,
                                       .ldb = p->depth_padded,
                                       .ldc = p->depth_padded});
}

/* out (keys, depth) += s^T x, for s (rows, keys) and x (rows, depth) packed. */
static void mix_transposed(const problem *p, float *out, const float *s, const float *x,
                           int64_t rows, int64_t keys)
{
    ct_small_gemm_run(&(ct_small_gemm){.c = out,
                                       .a = s,
                                       .b = x,
                                       .m = keys,
                                       .n = p->depth_padded,
                                       .k = rows,
                                       .a_row = 1,
                                       .a_column = p->keys_padded,
                                       .ldb = p->depth_padded,
                                       .ldc = p->depth_padded,
                                       .accumulate = true});
}

/* Keys that query `row` of the sequence may see. */
static int visible_keys(const problem *p, const task *t, int64_t row)
{
    return (int)(p->causal ? row + 1 : t->length);
}

/* factor[j] for all keys of query `row`, rounded up to a whole group. */
static void keep_factors(const problem *p, const task *t, int64_t row, int64_t keys, float *factor)
{
    uint64_t query = (uint64_t)((t->first + row) * p->heads + t->head);
    ct_dropout_factors(factor, p->key, query * KEEP_INDEX_STRIDE, keys, p->dropout);
}

/* ---- forward ------------------------------------------------------------------------------ */

typedef struct forward_scratch {
    float *keys_transposed; /* (depth, keys_padded) */
    float *values;          /* (longest, depth_padded) */
    float *scores;          /* (ROWS, keys_padded) */
    float *out;             /* (ROWS, depth_padded) */
    float *factor;          /* (keys_padded), rounded up to a group */
} forward_scratch;

static int64_t factor_floats(const problem *p)
{
    return (p->keys_padded + CT_MASK_GROUP - 1) / CT_MASK_GROUP * CT_MASK_GROUP;
}

static int64_t forward_floats(const problem *p)
{
    return (p->depth + ROWS) * p->keys_padded + (p->longest + ROWS) * p->depth_padded +
           factor_floats(p);
}

static forward_scratch carve_forward(const problem *p, float *base)
{
    forward_scratch s = {.keys_transposed = base};
    s.values = s.keys_transposed + p->depth * p->keys_padded;
    s.scores = s.values + p->longest * p->depth_padded;
    s.out = s.scores + ROWS * p->keys_padded;
    s.factor = s.out + ROWS * p->depth_padded;
    return s;
}

/* In place: probabilities of the first `visible` of `padded` scores, zeros behind; padded is a
 * multiple of CT_PAD, so that no loop has a remainder. Returns the log of the denominator. */
static float softmax_row(float *s, int visible, int padded, float scale)
{
    float highest = -INFINITY, sum = 0.0f;
#pragma omp simd reduction(max : highest)
    for (int j = 0; j < padded; j++) {
        float z = j < visible ? s[j] * scale : -INFINITY;
        s[j] = z;
        highest = z > highest ? z : highest;
    }
#pragma omp simd reduction(+ : sum)
    for (int j = 0; j < padded; j++) {
        s[j] = ct_expf(s[j] - highest);
        sum += s[j];
    }
    float inverse = 1.0f / sum;
#pragma omp simd
    for (int j = 0; j < padded; j++) s[j] *= inverse;
    return highest + logf(sum);
}

static void forward_block(const problem *p, const task *t, const forward_scratch *s, int64_t begin,
                          int64_t rows, float *lse)
{
    int64_t stride = 3 * p->heads * p->depth;
    int keys = visible_keys(p, t, begin + rows - 1), padded = (int)ct_padded(keys);
    similarities(p, s->scores, part_of(p, t, 0) + begin * stride, stride, s->keys_transposed, rows,
                 keys);
    for (int64_t i = 0; i < rows; i++) {
        float *row = s->scores + i * p->keys_padded;
        lse[(t->first + begin + i) * p->heads + t->head] =
            softmax_row(row, visible_keys(p, t, begin + i), padded, p->scale);
        if (p->dropout > 0.0f) {
            keep_factors(p, t, begin + i, keys, s->factor);
#pragma omp simd
            for (int64_t j = 0; j < padded; j++) row[j] *= s->factor[j];
        }
    }
    mix(p, s->out, s->scores, s->values, rows, keys);
}

static void forward_task(const problem *p, const task *t, const forward_scratch *s, float *o,
                         float *lse)
{
    int64_t stride = 3 * p->heads * p->depth, width = p->heads * p->depth;
    pack_transposed(p, s->keys_transposed, part_of(p, t, 1), stride, t->length);
    pack(p, s->values, part_of(p, t, 2), stride, t->length);
    for (int64_t begin = 0; begin < t->length; begin += ROWS) {
        int64_t rows = at_most(t->length - begin, ROWS);
        forward_block(p, t, s, begin, rows, lse);
        unpack(p, o + (t->first + begin) * width + t->head * p->depth, width, s->out, rows);
    }
}

ct_status ct_cpu_attention_fwd(ct_device *device, const ct_attention_fwd_args *args)
{
    ct_cpu_device *cpu = ct_cpu(device);
    problem p = PROBLEM_OF(args);
    int64_t floats = forward_floats(&p);
    float *scratch;
    CT_TRY(ct_cpu_workspace(cpu, (size_t)(floats * cpu->threads) * sizeof(float), &scratch));
    if (cpu->preparing) return CT_OK;
    CT_TRY(check_sequences(&p));
    if (p.dropout > 0.0f) p.key = ct_rng_at_step(p.key, ct_i32(&args->step)[0]);

    float *o = ct_f32(&args->o), *lse = ct_f32(&args->lse);
#pragma omp parallel num_threads(cpu->threads)
    {
        forward_scratch s = carve_forward(&p, scratch + floats * omp_get_thread_num());
#pragma omp for schedule(dynamic)
        for (int64_t number = 0; number < p.sequences * p.heads; number++) {
            task t = task_number(&p, number);
            forward_task(&p, &t, &s, o, lse);
        }
    }
    int64_t used = p.cu_seqlens[p.sequences], spare = (p.tokens - used) * p.heads;
    memset(o + used * p.heads * p.depth, 0, (size_t)(spare * p.depth) * sizeof(float));
    memset(lse + used * p.heads, 0, (size_t)spare * sizeof(float));
    return CT_OK;
}

/* ---- backward ----------------------------------------------------------------------------- */

typedef struct backward_scratch {
    float *keys_transposed, *values_transposed; /* (depth, keys_padded) */
    float *keys, *dkeys, *dvalues;              /* (longest, depth_padded) */
    float *probabilities, *dscores;             /* (ROWS, keys_padded) */
    float *queries, *dqueries, *dout;           /* (ROWS, depth_padded) */
    float *factor;                              /* (keys_padded), up to a group */
} backward_scratch;

static int64_t backward_floats(const problem *p)
{
    return 2 * (p->depth + ROWS) * p->keys_padded + 3 * (p->longest + ROWS) * p->depth_padded +
           factor_floats(p);
}

static backward_scratch carve_backward(const problem *p, float *base)
{
    backward_scratch s = {.keys_transposed = base};
    s.values_transposed = s.keys_transposed + p->depth * p->keys_padded;
    s.keys = s.values_transposed + p->depth * p->keys_padded;
    s.dkeys = s.keys + p->longest * p->depth_padded;
    s.dvalues = s.dkeys + p->longest * p->depth_padded;
    s.probabilities = s.dvalues + p->longest * p->depth_padded;
    s.dscores = s.probabilities + ROWS * p->keys_padded;
    s.queries = s.dscores + ROWS * p->keys_padded;
    s.dqueries = s.queries + ROWS * p->depth_padded;
    s.dout = s.dqueries + ROWS * p->depth_padded;
    s.factor = s.dout + ROWS * p->depth_padded;
    return s;
}

/* What only backward reads and writes. */
typedef struct gradients {
    float *dqkv;
    const float *d_o, *o, *lse;
} gradients;

static float dot(const float *a, const float *b, int64_t count)
{
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) sum += a[i] * b[i];
    return sum;
}

/* In: probabilities = q k, dscores = do v. Out: dropout(P), which dV is made of, and dS. What
 * padding holds is a finite product with zeros; its exponential may be infinite, and is not used.
 */
static void softmax_row_bwd(float *probabilities, float *dscores, const float *factor, int visible,
                            int padded, float scale, float lse, float delta)
{
#pragma omp simd
    for (int j = 0; j < padded; j++) {
        float x = ct_expf(probabilities[j] * scale - lse);
        x = j < visible ? x : 0.0f;
        float keep = factor ? factor[j] : 1.0f;
        dscores[j] = scale * x * (dscores[j] * keep - delta);
        probabilities[j] = x * keep;
    }
}

static void backward_block(const problem *p, const task *t, const backward_scratch *s,
                           const gradients *g, int64_t begin, int64_t rows)
{
    int64_t stride = 3 * p->heads * p->depth, width = p->heads * p->depth;
    int keys = visible_keys(p, t, begin + rows - 1), padded = (int)ct_padded(keys);
    int64_t place = (t->first + begin) * width + t->head * p->depth; /* in o and do */
    pack(p, s->queries, part_of(p, t, 0) + begin * stride, stride, rows);
    pack(p, s->dout, g->d_o + place, width, rows);
    similarities(p, s->probabilities, s->queries, p->depth_padded, s->keys_transposed, rows, keys);
    similarities(p, s->dscores, s->dout, p->depth_padded, s->values_transposed, rows, keys);
    for (int64_t i = 0; i < rows; i++) {
        if (p->dropout > 0.0f) keep_factors(p, t, begin + i, keys, s->factor);
        float lse = g->lse[(t->first + begin + i) * p->heads + t->head];
        float delta = dot(s->dout + i * p->depth_padded, g->o + place + i * width, p->depth);
        softmax_row_bwd(s->probabilities + i * p->keys_padded, s->dscores + i * p->keys_padded,
                        p->dropout > 0.0f ? s->factor : NULL, visible_keys(p, t, begin + i), padded,
                        p->scale, lse, delta);
    }
    mix_transposed(p, s->dvalues, s->probabilities, s->dout, rows, keys);
    mix_transposed(p, s->dkeys, s->dscores, s->queries, rows, keys);
    mix(p, s->dqueries, s->dscores, s->keys, rows, keys);
}

static void backward_task(const problem *p, const task *t, const backward_scratch *s,
                          const gradients *g)
{
    int64_t stride = 3 * p->heads * p->depth, part = p->heads * p->depth;
    float *dqkv = g->dqkv + t->first * stride + t->head * p->depth;
    size_t sum_bytes = (size_t)(t->length * p->depth_padded) * sizeof(float);
    pack_transposed(p, s->keys_transposed, part_of(p, t, 1), stride, t->length);
    pack_transposed(p, s->values_transposed, part_of(p, t, 2), stride, t->length);
    pack(p, s->keys, part_of(p, t, 1), stride, t->length);
    memset(s->dkeys, 0, sum_bytes);
    memset(s->dvalues, 0, sum_bytes);
    for (int64_t begin = 0; begin < t->length; begin += ROWS) {
        int64_t rows = at_most(t->length - begin, ROWS);
        backward_block(p, t, s, g, begin, rows);
        unpack(p, dqkv + begin * stride, stride, s->dqueries, rows);
    }
    unpack(p, dqkv + part, stride, s->dkeys, t->length);
    unpack(p, dqkv + 2 * part, stride, s->dvalues, t->length);
}

ct_status ct_cpu_attention_bwd(ct_device *device, const ct_attention_bwd_args *args)
{
    ct_cpu_device *cpu = ct_cpu(device);
    problem p = PROBLEM_OF(args);
    int64_t floats = backward_floats(&p);
    float *scratch;
    CT_TRY(ct_cpu_workspace(cpu, (size_t)(floats * cpu->threads) * sizeof(float), &scratch));
    if (cpu->preparing) return CT_OK;
    CT_TRY(check_sequences(&p));
    if (p.dropout > 0.0f) p.key = ct_rng_at_step(p.key, ct_i32(&args->step)[0]);

    gradients g = {ct_f32(&args->dqkv), ct_f32(&args->d_o), ct_f32(&args->o), ct_f32(&args->lse)};
#pragma omp parallel num_threads(cpu->threads)
    {
        backward_scratch s = carve_backward(&p, scratch + floats * omp_get_thread_num());
#pragma omp for schedule(dynamic)
        for (int64_t number = 0; number < p.sequences * p.heads; number++) {
            task t = task_number(&p, number);
            backward_task(&p, &t, &s, &g);
        }
    }
    int64_t used = p.cu_seqlens[p.sequences], row = 3 * p.heads * p.depth;
    memset(g.dqkv + used * row, 0, (size_t)((p.tokens - used) * row) * sizeof(float));
    return CT_OK;
}
