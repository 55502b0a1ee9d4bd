/* Cases of attention: p = lengths, heads, depth, spare rows, per cent dropped, causal, bound on the
 * lengths (0: the longest of them). */
#include <math.h>
#include <stdlib.h>

#include "case.h"

enum { LENGTHS_SMALL, LENGTHS_ONE, LENGTHS_MIXED, LENGTHS_LONG, LENGTHS_CAPTIONS, LENGTHS_77 };

/* Each list ends with -1. */
static const int lengths[][18] = {
    [LENGTHS_SMALL] = {3, 1, 0, 5, -1},
    [LENGTHS_ONE] = {1, -1},
    [LENGTHS_MIXED] = {0, 31, 1, 32, 0, 33, 47, 48, 49, 17, 16, -1},
    [LENGTHS_LONG] = {300, 5, -1},
    [LENGTHS_CAPTIONS] = {14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, -1},
    [LENGTHS_77] = {77, 77, 77, 77, 77, 77, 77, 77, 77, 77, 77, 77, 77, 77, 77, 77, -1},
};

enum { QKV, CU_SEQLENS, O, LSE, STEP };

enum { OPTIMIZER_STEP = 5 };

static int sequences(const int64_t *p)
{
    int count = 0;
    while (lengths[p[0]][count] >= 0) count++;
    return count;
}

static int longest(const int64_t *p)
{
    int most = 0;
    for (int n = 0; n < sequences(p); n++) most = lengths[p[0]][n] > most ? lengths[p[0]][n] : most;
    return most;
}

static int64_t tokens(const int64_t *p)
{
    int64_t total = p[3];
    for (int n = 0; n < sequences(p); n++) total += lengths[p[0]][n];
    return total;
}

static void setup(ct_case_run *run)
{
    const int64_t *p = run->p;
    int64_t rows = tokens(p);
    ct_case_slot(run, QKV, "qkv", CT_SLOT_INPUT, CT_CASE_COMPUTE,
                 (const int64_t[]){rows, 3, p[1], p[2], 0}, false);
    ct_case_slot(run, CU_SEQLENS, "cu_seqlens", CT_SLOT_CONST, CT_I32,
                 (const int64_t[]){sequences(p) + 1, 0}, false);
    ct_case_slot(run, O, "o", CT_SLOT_OUTPUT, CT_CASE_COMPUTE,
                 (const int64_t[]){rows, p[1], p[2], 0}, false);
    ct_case_slot(run, LSE, "lse", CT_SLOT_SAVED, CT_F32, (const int64_t[]){rows, p[1], 0}, false);
    ct_case_slot(run, STEP, "step", CT_SLOT_CONST, CT_I32, (const int64_t[]){1, 0}, !p[4]);
    /* A score is a sum over the depth, what is made of scores a sum over the keys; the gradient has
     * two more sums over the depth, dO V^T and dO O. */
    run->slot[O].terms = run->slot[LSE].terms = (double)(p[2] + longest(p));
    run->slot[QKV].grad_terms = (double)(3 * p[2] + longest(p));
    run->slot[LSE].unchecked = p[3] > 0; /* op.h leaves it open in rows of no sequence */
}

static void fill(ct_case_run *run)
{
    if (run->p[4]) run->slot[STEP].v[0] = OPTIMIZER_STEP;
    run->slot[CU_SEQLENS].v[0] = 0;
    for (int n = 0; n < sequences(run->p); n++)
        run->slot[CU_SEQLENS].v[n + 1] = run->slot[CU_SEQLENS].v[n] + lengths[run->p[0]][n];
}

static float dropout(const ct_case_run *run)
{
    return (float)run->p[4] / 100;
}

static ct_rng_key key(const ct_case_run *run)
{
    return ct_rng_make(run->seed, CT_RNG_DROPOUT, 0, 7);
}

static int bound(const int64_t *p)
{
    return p[6] ? (int)p[6] : longest(p);
}

static double factor(const ct_case_run *run, int64_t t, int64_t h, int64_t j)
{
    uint64_t index = (uint64_t)(t * run->p[1] + h) * 65536 + (uint64_t)j;
    double p = (double)dropout(run);
    return (double)ct_rng_uniform(ct_rng_make(run->seed, CT_RNG_DROPOUT, OPTIMIZER_STEP, 7),
                                  index) >= p
               ? 1 / (1 - p)
               : 0;
}

/* A probability or its gradient as operand of a product: op.h lets it have the compute dtype. */
static double operand(const ct_case_run *run, double x)
{
    return ct_case_stored(run, &run->slot[QKV], x);
}

/* Rows are (first + row) of part 0 (q), 1 (k) or 2 (v) of one head. */
static double *part(const ct_case_run *run, double *qkv, int64_t t, int part_index, int64_t h)
{
    return qkv + ((t * 3 + part_index) * run->p[1] + h) * run->p[2];
}

static double dot(const double *a, const double *b, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += a[i] * b[i];
    return sum;
}

static void add_scaled(double *sum, double by, const double *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++) sum[i] += by * x[i];
}

/* Calls `row` for every query of every head: first is the first row of its sequence, keys how many
 * rows of it the query sees. */
static void for_each_query(ct_case_run *run, void (*row)(ct_case_run *run, int64_t t, int64_t h,
                                                         int64_t first, int64_t keys))
{
    for (int n = 0; n < sequences(run->p); n++) {
        int64_t first = (int64_t)run->slot[CU_SEQLENS].v[n];
        int64_t end = (int64_t)run->slot[CU_SEQLENS].v[n + 1];
        for (int64_t t = first; t < end; t++)
            for (int64_t h = 0; h < run->p[1]; h++)
                row(run, t, h, first, run->p[5] ? t + 1 - first : end - first);
    }
}

static double scale(const ct_case_run *run)
{
    return 1 / sqrt((double)run->p[2]);
}

static double score(const ct_case_run *run, int64_t t, int64_t h, int64_t key_row)
{
    double *qkv = run->slot[QKV].v;
    return scale(run) * dot(part(run, qkv, t, 0, h), part(run, qkv, key_row, 1, h), run->p[2]);
}

static void ref_fwd_query(ct_case_run *run, int64_t t, int64_t h, int64_t first, int64_t keys)
{
    int64_t depth = run->p[2];
    double *o = run->slot[O].v + (t * run->p[1] + h) * depth, highest = -INFINITY, sum = 0;
    for (int64_t j = 0; j < keys; j++) highest = fmax(highest, score(run, t, h, first + j));
    for (int64_t j = 0; j < keys; j++) sum += exp(score(run, t, h, first + j) - highest);
    double lse = highest + log(sum);
    for (int64_t j = 0; j < keys; j++)
        add_scaled(o, operand(run, exp(score(run, t, h, first + j) - lse)) * factor(run, t, h, j),
                   part(run, run->slot[QKV].v, first + j, 2, h), depth);
    run->slot[LSE].v[t * run->p[1] + h] = lse;
}

static void ref_fwd(ct_case_run *run)
{
    for (int64_t i = 0; i < run->slot[O].count; i++) run->slot[O].v[i] = 0;
    for_each_query(run, ref_fwd_query);
}

static void ref_bwd_query(ct_case_run *run, int64_t t, int64_t h, int64_t first, int64_t keys)
{
    int64_t depth = run->p[2], place = (t * run->p[1] + h) * depth;
    double *qkv = run->slot[QKV].v, *dqkv = run->slot[QKV].g;
    const double *d_o = run->slot[O].g + place;
    double lse = run->slot[LSE].v[t * run->p[1] + h],
           delta = dot(d_o, run->slot[O].v + place, depth);
    for (int64_t j = 0; j < keys; j++) {
        int64_t u = first + j;
        double p = exp(score(run, t, h, u) - lse), keep = factor(run, t, h, j);
        double ds = p * (keep * dot(d_o, part(run, qkv, u, 2, h), depth) - delta);
        ds = scale(run) * operand(run, ds);
        add_scaled(part(run, dqkv, t, 0, h), ds, part(run, qkv, u, 1, h), depth);
        add_scaled(part(run, dqkv, u, 1, h), ds, part(run, qkv, t, 0, h), depth);
        add_scaled(part(run, dqkv, u, 2, h), operand(run, p) * keep, d_o, depth);
    }
}

static void ref_bwd(ct_case_run *run)
{
    for (int64_t i = 0; i < run->slot[QKV].count; i++) run->slot[QKV].g[i] = 0;
    for_each_query(run, ref_bwd_query);
}

static ct_status fwd(ct_case_run *run)
{
    const ct_slot *s = run->slot;
    return ct_op_attention_fwd(&run->exec, &(ct_attention_fwd_args){.o = s[O].t,
                                                                    .lse = s[LSE].t,
                                                                    .qkv = s[QKV].t,
                                                                    .cu_seqlens = s[CU_SEQLENS].t,
                                                                    .step = s[STEP].t,
                                                                    .max_seqlen = bound(run->p),
                                                                    .scale = (float)scale(run),
                                                                    .dropout = dropout(run),
                                                                    .key = key(run),
                                                                    .causal = run->p[5] != 0});
}

static ct_status bwd(ct_case_run *run)
{
    const ct_slot *s = run->slot;
    return ct_op_attention_bwd(&run->exec, &(ct_attention_bwd_args){.dqkv = s[QKV].d,
                                                                    .d_o = s[O].d,
                                                                    .o = s[O].t,
                                                                    .lse = s[LSE].t,
                                                                    .qkv = s[QKV].t,
                                                                    .cu_seqlens = s[CU_SEQLENS].t,
                                                                    .step = s[STEP].t,
                                                                    .max_seqlen = bound(run->p),
                                                                    .scale = (float)scale(run),
                                                                    .dropout = dropout(run),
                                                                    .key = key(run),
                                                                    .causal = run->p[5] != 0});
}

/* 2 products forward and 5 backward, of 2 depth operations for each pair of query and key. */
static double flops(const int64_t *p, bool backward)
{
    double pairs = 0;
    for (int n = 0; n < sequences(p); n++) pairs += (double)(lengths[p[0]][n] * lengths[p[0]][n]);
    if (p[5]) pairs /= 2;
    return pairs * (double)(p[1] * p[2]) * (backward ? 10 : 4);
}

static const ct_kind attention = {"attention", setup, fill,  ref_fwd, ref_bwd,
                                  fwd,         bwd,   flops, false};

static const ct_case cases[] = {
    {&attention, "attention_small", {LENGTHS_SMALL, 2, 5, 0, 0, 0}},
    {&attention, "attention_small_causal", {LENGTHS_SMALL, 1, 4, 0, 0, 1}},
    {&attention, "attention_small_spare_dropout", {LENGTHS_SMALL, 2, 3, 2, 30, 0}},
    {&attention, "attention_small_causal_dropout", {LENGTHS_SMALL, 3, 4, 3, 50, 1}},
    {&attention, "attention_one", {LENGTHS_ONE, 1, 1, 0, 0, 0}},
    {&attention, "attention_one_dropout", {LENGTHS_ONE, 4, 8, 1, 50, 0}},
    {&attention, "attention_mixed", {LENGTHS_MIXED, 3, 32, 7, 0, 0}},
    {&attention, "attention_mixed_causal", {LENGTHS_MIXED, 2, 24, 0, 0, 1}},
    {&attention, "attention_mixed_dropout", {LENGTHS_MIXED, 2, 20, 5, 10, 0}},
    {&attention, "attention_mixed_causal_dropout", {LENGTHS_MIXED, 1, 128, 1, 10, 1}},
    {&attention, "attention_small_bound_16", {LENGTHS_SMALL, 2, 8, 1, 25, 0, 16}},
    {&attention, "attention_mixed_bound_64", {LENGTHS_MIXED, 2, 64, 39, 10, 0, 64}},
    {&attention, "attention_300", {LENGTHS_LONG, 2, 64, 0, 0, 0}},
    {&attention, "attention_300_causal_dropout", {LENGTHS_LONG, 1, 40, 0, 20, 1}},
    {&attention, "attention_16x14", {LENGTHS_CAPTIONS, 12, 64, 0, 0, 0}},
    {&attention, "attention_16x77", {LENGTHS_77, 12, 64, 0, 0, 0}},
};

CT_DEFINE_CASE_TABLE(attention, cases);
