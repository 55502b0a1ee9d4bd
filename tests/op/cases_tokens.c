/* Cases of the operations on packed tokens but attention: embedding, gather_rows, patch_tokens. */
#include "case.h"

/* ---- embedding: p = tokens, vocabulary, positions, width, types (0: absent) -------------------
 */

enum { EMB_IDS, EMB_POSITIONS, EMB_WORD, EMB_POSITION, EMB_TYPE, EMB_Y };

static void embedding_setup(ct_case_run *run)
{
    int64_t tokens = run->p[0], width = run->p[3], types = run->p[4];
    const int64_t *list = (const int64_t[]){tokens, 0};
    ct_case_slot(run, EMB_IDS, "ids", CT_SLOT_CONST, CT_I32, list, false);
    ct_case_slot(run, EMB_POSITIONS, "positions", CT_SLOT_CONST, CT_I32, list, false);
    ct_case_slot(run, EMB_WORD, "word", CT_SLOT_PARAM, CT_CASE_COMPUTE,
                 (const int64_t[]){run->p[1], width, 0}, false);
    ct_case_slot(run, EMB_POSITION, "position", CT_SLOT_PARAM, CT_CASE_COMPUTE,
                 (const int64_t[]){run->p[2], width, 0}, false);
    ct_case_slot(run, EMB_TYPE, "type", CT_SLOT_PARAM, CT_CASE_COMPUTE,
                 (const int64_t[]){types ? types : 1, width, 0}, !types);
    ct_case_slot(run, EMB_Y, "y", CT_SLOT_OUTPUT, CT_CASE_COMPUTE,
                 (const int64_t[]){tokens, width, 0}, false)
        ->terms = 3;
    for (int s = EMB_WORD; s <= EMB_TYPE; s++) run->slot[s].grad_terms = (double)tokens;
}

static void embedding_fill(ct_case_run *run)
{
    for (int64_t t = 0; t < run->p[0]; t++) {
        run->slot[EMB_IDS].v[t] = (double)ct_case_below(run, EMB_IDS, t, run->p[1]);
        run->slot[EMB_POSITIONS].v[t] = (double)(t % run->p[2]);
    }
}

static void embedding_ref_fwd(ct_case_run *run)
{
    int64_t width = run->p[3];
    const ct_slot *s = run->slot;
    for (int64_t t = 0; t < run->p[0]; t++)
        for (int64_t j = 0; j < width; j++)
            s[EMB_Y].v[t * width + j] =
                s[EMB_WORD].v[(int64_t)s[EMB_IDS].v[t] * width + j] +
                s[EMB_POSITION].v[(int64_t)s[EMB_POSITIONS].v[t] * width + j] +
                (s[EMB_TYPE].count ? s[EMB_TYPE].v[j] : 0);
}

static void embedding_ref_bwd(ct_case_run *run)
{
    int64_t width = run->p[3];
    const ct_slot *s = run->slot;
    for (int k = EMB_WORD; k <= EMB_TYPE; k++)
        for (int64_t i = 0; i < s[k].count; i++) s[k].g[i] = 0;
    for (int64_t t = 0; t < run->p[0]; t++)
        for (int64_t j = 0; j < width; j++) {
            double dy = s[EMB_Y].g[t * width + j];
            s[EMB_WORD].g[(int64_t)s[EMB_IDS].v[t] * width + j] += dy;
            s[EMB_POSITION].g[(int64_t)s[EMB_POSITIONS].v[t] * width + j] += dy;
            if (s[EMB_TYPE].count) s[EMB_TYPE].g[j] += dy;
        }
}

static ct_status embedding_fwd(ct_case_run *run)
{
    const ct_slot *s = run->slot;
    return ct_op_embedding_fwd(&run->exec, &(ct_embedding_fwd_args){.y = s[EMB_Y].t,
                                                                    .ids = s[EMB_IDS].t,
                                                                    .positions = s[EMB_POSITIONS].t,
                                                                    .word = s[EMB_WORD].t,
                                                                    .position = s[EMB_POSITION].t,
                                                                    .type = s[EMB_TYPE].t});
}

static ct_status embedding_bwd(ct_case_run *run)
{
    const ct_slot *s = run->slot;
    return ct_op_embedding_bwd(&run->exec,
                               &(ct_embedding_bwd_args){.dword = s[EMB_WORD].d,
                                                        .dposition = s[EMB_POSITION].d,
                                                        .dtype = s[EMB_TYPE].d,
                                                        .dy = s[EMB_Y].d,
                                                        .ids = s[EMB_IDS].t,
                                                        .positions = s[EMB_POSITIONS].t});
}

static double embedding_flops(const int64_t *p, bool backward)
{
    return (double)(p[0] * p[3]) * (backward ? 3 : 2);
}

static const ct_kind embedding = {"embedding",       embedding_setup,   embedding_fill,
                                  embedding_ref_fwd, embedding_ref_bwd, embedding_fwd,
                                  embedding_bwd,     embedding_flops,   false};

/* ---- gather_rows: p = rows, width, gathered -------------------------------------------------- */

enum { GATHER_X, GATHER_INDEX, GATHER_Y };

static void gather_setup(ct_case_run *run)
{
    int64_t width = run->p[1];
    ct_case_slot(run, GATHER_X, "x", CT_SLOT_INPUT, CT_CASE_COMPUTE,
                 (const int64_t[]){run->p[0], width, 0}, false);
    ct_case_slot(run, GATHER_INDEX, "index", CT_SLOT_CONST, CT_I32, (const int64_t[]){run->p[2], 0},
                 false);
    ct_case_slot(run, GATHER_Y, "y", CT_SLOT_OUTPUT, CT_CASE_COMPUTE,
                 (const int64_t[]){run->p[2], width, 0}, false);
}

/* Distinct, not in order: multiples of a number without common factor, modulo the rows. */
static void gather_fill(ct_case_run *run)
{
    for (int64_t i = 0; i < run->p[2]; i++)
        run->slot[GATHER_INDEX].v[i] = (double)((i * 7 + 3) % run->p[0]);
}

static void gather_ref_fwd(ct_case_run *run)
{
    int64_t width = run->p[1];
    const ct_slot *s = run->slot;
    for (int64_t k = 0; k < s[GATHER_Y].count; k++)
        s[GATHER_Y].v[k] = s[GATHER_X].v[(int64_t)s[GATHER_INDEX].v[k / width] * width + k % width];
}

static void gather_ref_bwd(ct_case_run *run)
{
    int64_t width = run->p[1];
    const ct_slot *s = run->slot;
    for (int64_t k = 0; k < s[GATHER_X].count; k++) s[GATHER_X].g[k] = 0;
    for (int64_t k = 0; k < s[GATHER_Y].count; k++)
        s[GATHER_X].g[(int64_t)s[GATHER_INDEX].v[k / width] * width + k % width] = s[GATHER_Y].g[k];
}

static ct_status gather_fwd(ct_case_run *run)
{
    const ct_slot *s = run->slot;
    ct_gather_rows_fwd_args args = {s[GATHER_Y].t, s[GATHER_X].t, s[GATHER_INDEX].t};
    return ct_op_gather_rows_fwd(&run->exec, &args);
}

static ct_status gather_bwd(ct_case_run *run)
{
    const ct_slot *s = run->slot;
    ct_gather_rows_bwd_args args = {s[GATHER_X].d, s[GATHER_Y].d, s[GATHER_INDEX].t};
    return ct_op_gather_rows_bwd(&run->exec, &args);
}

static double no_flops(const int64_t *p, bool backward)
{
    (void)p, (void)backward;
    return 0;
}

static const ct_kind gather_rows = {"gather_rows",  gather_setup,   gather_fill,
                                    gather_ref_fwd, gather_ref_bwd, gather_fwd,
                                    gather_bwd,     no_flops,       false};

/* ---- patch_tokens: p = batch, height and width in patches, width ------------------------------
 */

enum { PATCH_PATCHES, PATCH_CLASS, PATCH_POSITION, PATCH_Y };

static void patch_setup(ct_case_run *run)
{
    const int64_t *p = run->p;
    const int64_t tokens = 1 + p[1] * p[2];
    ct_case_slot(run, PATCH_PATCHES, "patches", CT_SLOT_INPUT, CT_CASE_COMPUTE,
                 (const int64_t[]){p[0], p[1], p[2], p[3], 0}, false);
    ct_case_slot(run, PATCH_CLASS, "class_token", CT_SLOT_PARAM, CT_CASE_COMPUTE,
                 (const int64_t[]){p[3], 0}, false)
        ->grad_terms = (double)p[0];
    ct_case_slot(run, PATCH_POSITION, "position", CT_SLOT_PARAM, CT_CASE_COMPUTE,
                 (const int64_t[]){tokens, p[3], 0}, false)
        ->grad_terms = (double)p[0];
    ct_case_slot(run, PATCH_Y, "y", CT_SLOT_OUTPUT, CT_CASE_COMPUTE,
                 (const int64_t[]){p[0], tokens, p[3], 0}, false);
}

/* Where number i of y comes from: a patch's number, or -1 for the class token; *place: its number
 * in the position table. */
static int64_t patch_source(const ct_case_run *run, int64_t i, int64_t *place)
{
    const int64_t size = run->slot[PATCH_POSITION].count, width = run->p[3];
    *place = i % size;
    return *place < width ? -1 : i / size * (size - width) + *place - width;
}

static void patch_ref_fwd(ct_case_run *run)
{
    const ct_slot *s = run->slot;
    for (int64_t i = 0, place; i < s[PATCH_Y].count; i++) {
        const int64_t from = patch_source(run, i, &place);
        s[PATCH_Y].v[i] = (from < 0 ? s[PATCH_CLASS].v[place] : s[PATCH_PATCHES].v[from]) +
                          s[PATCH_POSITION].v[place];
    }
}

static void patch_ref_bwd(ct_case_run *run)
{
    const ct_slot *s = run->slot;
    for (int64_t k = 0; k < s[PATCH_CLASS].count; k++) s[PATCH_CLASS].g[k] = 0;
    for (int64_t k = 0; k < s[PATCH_POSITION].count; k++) s[PATCH_POSITION].g[k] = 0;
    for (int64_t i = 0, place; i < s[PATCH_Y].count; i++) {
        const int64_t from = patch_source(run, i, &place);
        s[PATCH_POSITION].g[place] += s[PATCH_Y].g[i];
        if (from < 0) s[PATCH_CLASS].g[place] += s[PATCH_Y].g[i];
        else s[PATCH_PATCHES].g[from] = s[PATCH_Y].g[i];
    }
}

static ct_status patch_fwd(ct_case_run *run)
{
    const ct_slot *s = run->slot;
    ct_patch_tokens_fwd_args args = {s[PATCH_Y].t, s[PATCH_PATCHES].t, s[PATCH_CLASS].t,
                                     s[PATCH_POSITION].t};
    return ct_op_patch_tokens_fwd(&run->exec, &args);
}

static ct_status patch_bwd(ct_case_run *run)
{
    const ct_slot *s = run->slot;
    ct_patch_tokens_bwd_args args = {s[PATCH_PATCHES].d, s[PATCH_CLASS].d, s[PATCH_POSITION].d,
                                     s[PATCH_Y].d};
    return ct_op_patch_tokens_bwd(&run->exec, &args);
}

static const ct_kind patch_tokens = {"patch_tokens", patch_setup,   NULL,
                                     patch_ref_fwd,  patch_ref_bwd, patch_fwd,
                                     patch_bwd,      no_flops,      false};

static const ct_case cases[] = {
    {&embedding, "embedding_11_of_5", {11, 5, 6, 7, 0}},
    {&embedding, "embedding_9_of_4_type", {9, 4, 3, 18, 2}},
    {&embedding, "embedding_1", {1, 1, 1, 1, 1}},
    {&embedding, "embedding_333_of_100", {333, 100, 40, 72, 0}},
    {&embedding, "embedding_224_of_1000_type", {224, 1000, 77, 768, 2}},
    {&gather_rows, "gather_rows_4_of_11", {11, 5, 4}},
    {&gather_rows, "gather_rows_all_10", {10, 3, 10}},
    {&gather_rows, "gather_rows_16_of_225", {225, 768, 16}},
    {&patch_tokens, "patch_tokens_tiny", {3, 1, 2, 5}},
    {&patch_tokens, "patch_tokens_one", {1, 1, 1, 3}},
    {&patch_tokens, "patch_tokens_batch", {19, 3, 4, 40}},
    {&patch_tokens, "patch_tokens_wide", {4, 7, 7, 192}},
};

CT_DEFINE_CASE_TABLE(tokens, cases);
