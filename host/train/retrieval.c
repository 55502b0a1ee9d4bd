#include "train/retrieval.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "train/chance.h"
#include "train/gather.h"
#include "train/similarity.h"

/* Queries that share one packing of a panel: packing costs as much as about six blocks. */
#define CHUNK (32 * CT_BLOCK)

/* One direction: every query against all candidates. Both sides carry the photo's row; candidates
 * with the query's photo are right answers, all others compete with them. */
typedef struct direction {
    const float *query, *candidate; /* (queries, dim), (candidates, dim) */
    const int32_t *query_photo, *candidate_photo;
    const float *right; /* (queries) best score of a right answer; NaN if it has none or none is a
                           number */
    int32_t queries, candidates, dim;
    int32_t *beaten_by; /* (queries) competitors with at least the right answer's score */
    int32_t *top;       /* (queries, CT_TOP) */
    float *top_score;
} direction;

/* Insertion into a list that is short and seldom touched; equal scores keep their order, which is
 * that of the candidates. NaN is greater than nothing, so it never gets in. */
static void insert_top(int32_t *top, float *top_score, int32_t candidate, float score)
{
    if (!(score > top_score[CT_TOP - 1])) return;
    int place = CT_TOP - 1;
    for (; place > 0 && score > top_score[place - 1]; place--) {
        top[place] = top[place - 1];
        top_score[place] = top_score[place - 1];
    }
    top[place] = candidate;
    top_score[place] = score;
}

/* Takes the scores of query q with candidates first .. first + count. Comparisons with a NaN are
 * false, so a NaN candidate beats nobody. */
static void take_scores(const direction *d, int32_t q, const float *score, int32_t first,
                        int32_t count)
{
    const int32_t *photo = d->candidate_photo + first, own = d->query_photo[q];
    float right = d->right[q], entry = d->top_score[(size_t)q * CT_TOP + CT_TOP - 1];
    int32_t beaten = 0, entering = 0;
    for (int32_t c = 0; c < count; c++) {
        beaten += (score[c] >= right) & (photo[c] != own);
        entering += score[c] > entry;
    }
    d->beaten_by[q] += beaten;
    if (entering == 0) return;
    for (int32_t c = 0; c < count; c++)
        insert_top(d->top + (size_t)q * CT_TOP, d->top_score + (size_t)q * CT_TOP, first + c,
                   score[c]);
}

/* Queries first .. last against all candidates, a panel at a time. */
static void rank_chunk(const direction *d, int32_t first, int32_t last, float *panel)
{
    for (int32_t q = first; q < last; q++) {
        d->beaten_by[q] = 0;
        for (int k = 0; k < CT_TOP; k++) {
            d->top[(size_t)q * CT_TOP + k] = -1;
            d->top_score[(size_t)q * CT_TOP + k] = -INFINITY;
        }
    }
    for (int32_t c = 0; c < d->candidates; c += CT_PANEL) {
        int32_t count = d->candidates - c < CT_PANEL ? d->candidates - c : CT_PANEL;
        ct_similarity_pack(d->candidate + (size_t)c * d->dim, count, d->dim, panel);
        for (int32_t q = first; q < last; q += CT_BLOCK) {
            const float *row[CT_BLOCK];
            float score[CT_BLOCK][CT_PANEL];
            for (int32_t r = 0; r < CT_BLOCK; r++)
                row[r] = d->query + (size_t)(q + r < last ? q + r : q) * d->dim;
            ct_similarity_block(row, panel, d->dim, score);
            for (int32_t r = 0; r < CT_BLOCK && q + r < last; r++)
                take_scores(d, q + r, score[r], c, count);
        }
    }
}

/* A query belongs to one thread, so the result does not depend on their number. */
static void rank_part(const direction *d, ct_part part, float *panels, int threads)
{
    const int32_t begin = (int32_t)part.begin, end = (int32_t)part.end;
#pragma omp parallel num_threads(threads)
    {
        float *panel = panels + (size_t)omp_get_thread_num() * d->dim * CT_PANEL;
#pragma omp for schedule(dynamic, 1)
        for (int32_t q = begin; q < end; q += CHUNK)
            rank_chunk(d, q, q + CHUNK < end ? q + CHUNK : end, panel);
    }
}

/* rows (all) = the ranks' parts of it. */
static ct_status share_rows(ct_comm *comm, ct_part part, size_t row_bytes, void *rows)
{
    const int64_t count = part.end - part.begin;
    int64_t total;
    char *own, *all;
    CT_TRY(ct_alloc((size_t)count, row_bytes, "ranks", &own));
    memcpy(own, (char *)rows + (size_t)part.begin * row_bytes, (size_t)count * row_bytes);
    CT_TRY(ct_gather_rows(comm, own, count, row_bytes, &all, &total));
    memcpy(rows, all, (size_t)total * row_bytes);
    free(all);
    return CT_OK;
}

/* Each rank takes a part of the queries. */
static ct_status rank_all(const direction *d, float *panels, int threads, ct_comm *comm)
{
    const ct_part part = ct_part_of(comm, d->queries);
    rank_part(d, part, panels, threads);
    if (!comm) return CT_OK;
    CT_TRY(share_rows(comm, part, sizeof *d->beaten_by, d->beaten_by));
    CT_TRY(share_rows(comm, part, CT_TOP * sizeof *d->top, d->top));
    return share_rows(comm, part, CT_TOP * sizeof *d->top_score, d->top_score);
}

/* right[t] = score of text t with its photo, by the kernel that scores its competitors. */
static void score_own(const ct_retrieval *it, const float *image, const float *text,
                      const int32_t *owner, float *panel, float *right)
{
    for (int32_t t = 0; t < it->texts; t += CT_PANEL) {
        int32_t count = it->texts - t < CT_PANEL ? it->texts - t : CT_PANEL;
        ct_similarity_pack(text + (size_t)t * it->dim, count, it->dim, panel);
        for (int32_t c = 0; c < count; c += CT_BLOCK) {
            const float *row[CT_BLOCK];
            float score[CT_BLOCK][CT_PANEL];
            for (int32_t r = 0; r < CT_BLOCK; r++)
                row[r] = image + (size_t)owner[t + (c + r < count ? c + r : c)] * it->dim;
            ct_similarity_block(row, panel, it->dim, score);
            for (int32_t r = 0; r < CT_BLOCK && c + r < count; r++)
                right[t + c + r] = score[r][c + r];
        }
    }
}

static int compare_ranks(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* Rank 0 is "no right answer to find": not counted. sorted: scratch of `count`. */
static ct_recall summarise(const int32_t *rank, int32_t count, int32_t *sorted)
{
    int32_t ranked = 0, within1 = 0, within5 = 0, within10 = 0;
    double sum = 0;
    for (int32_t q = 0; q < count; q++) {
        if (rank[q] == 0) continue;
        sorted[ranked++] = rank[q];
        within1 += rank[q] <= 1;
        within5 += rank[q] <= 5;
        within10 += rank[q] <= 10;
        sum += rank[q];
    }
    if (ranked == 0) return (ct_recall){0};
    qsort(sorted, (size_t)ranked, sizeof *sorted, compare_ranks);
    return (ct_recall){
        .r1 = 100.0 * within1 / ranked,
        .r5 = 100.0 * within5 / ranked,
        .r10 = 100.0 * within10 / ranked,
        .median_rank = ((double)sorted[(ranked - 1) / 2] + sorted[ranked / 2]) / 2,
        .mean_rank = sum / ranked,
    };
}

/* What the computation needs besides its result. */
typedef struct scratch {
    float *panels;        /* (threads, dim, CT_PANEL) */
    float *image_right;   /* (images) */
    float *text_right;    /* (texts) */
    int32_t *image_photo; /* (images) 0, 1, 2, ... */
    int32_t *text_photo;  /* (texts) its photo's row; -1: not known */
    int32_t *image_own;   /* (images) number of its texts */
    int32_t *text_own;    /* (texts) 1, or 0 when its photo is not known */
    int32_t *sorted;      /* (max(images, texts)) */
} scratch;

static void scratch_free(scratch *s)
{
    free(s->panels);
    free(s->image_right);
    free(s->text_right);
    free(s->image_photo);
    free(s->text_photo);
    free(s->image_own);
    free(s->text_own);
    free(s->sorted);
}

static ct_status scratch_create(scratch *s, int32_t images, int32_t texts, int32_t dim, int threads)
{
    size_t panels_bytes = (size_t)threads * dim * CT_PANEL * sizeof(float);
    s->panels = aligned_alloc(64, (panels_bytes + 63) / 64 * 64);
    if (!s->panels)
        return ct_fail(CT_ERR_MEMORY, "out of host memory: %zu bytes for retrieval", panels_bytes);
    CT_TRY(ct_alloc((size_t)images, sizeof(float), "retrieval", &s->image_right));
    CT_TRY(ct_alloc((size_t)texts, sizeof(float), "retrieval", &s->text_right));
    CT_TRY(ct_alloc((size_t)images, sizeof(int32_t), "retrieval", &s->image_photo));
    CT_TRY(ct_alloc((size_t)texts, sizeof(int32_t), "retrieval", &s->text_photo));
    CT_TRY(ct_alloc((size_t)images, sizeof(int32_t), "retrieval", &s->image_own));
    CT_TRY(ct_alloc((size_t)texts, sizeof(int32_t), "retrieval", &s->text_own));
    return ct_alloc((size_t)(images > texts ? images : texts), sizeof(int32_t), "retrieval",
                    &s->sorted);
}

/* What the right answers are, and how they score. */
static void find_right(const ct_retrieval *it, const float *image, const float *text,
                       const int32_t *owner, scratch *s)
{
    for (int32_t i = 0; i < it->images; i++) {
        s->image_photo[i] = i;
        s->image_right[i] = NAN;
    }
    for (int32_t t = 0; t < it->texts; t++) {
        s->text_photo[t] = owner ? owner[t] : -1;
        s->text_right[t] = NAN;
    }
    if (!owner) return;
    score_own(it, image, text, owner, s->panels, s->text_right);
    for (int32_t t = 0; t < it->texts; t++) {
        s->image_own[owner[t]]++;
        s->text_own[t] = 1;
        s->image_right[owner[t]] = fmaxf(s->image_right[owner[t]], s->text_right[t]);
    }
}

static ct_status compute(ct_retrieval *it, const float *image, const float *text,
                         const int32_t *owner, int threads, ct_comm *comm, scratch *s)
{
    find_right(it, image, text, owner, s);
    direction to_text = {image,          text,          s->image_photo,     s->text_photo,
                         s->image_right, it->images,    it->texts,          it->dim,
                         it->image_rank, it->image_top, it->image_top_score};
    direction to_image = {text,          image,        s->text_photo,     s->image_photo,
                          s->text_right, it->texts,    it->images,        it->dim,
                          it->text_rank, it->text_top, it->text_top_score};
    CT_TRY(rank_all(&to_text, s->panels, threads, comm));
    CT_TRY(rank_all(&to_image, s->panels, threads, comm));
    for (int32_t i = 0; i < it->images; i++) {
        if (isnan(s->image_right[i])) it->image_rank[i] = it->texts - s->image_own[i];
        it->image_rank[i] = s->image_own[i] ? it->image_rank[i] + 1 : 0;
    }
    for (int32_t t = 0; t < it->texts; t++) {
        if (isnan(s->text_right[t])) it->text_rank[t] = it->images - 1;
        it->text_rank[t] = s->text_own[t] ? it->text_rank[t] + 1 : 0;
    }
    it->image_to_text = summarise(it->image_rank, it->images, s->sorted);
    it->text_to_image = summarise(it->text_rank, it->texts, s->sorted);
    CT_TRY(ct_chance_compute(s->image_own, it->images, it->texts, &it->chance_image_to_text));
    return ct_chance_compute(s->text_own, it->texts, it->images, &it->chance_text_to_image);
}

static ct_status result_create(int32_t images, int32_t texts, int32_t dim, ct_retrieval **out)
{
    ct_retrieval *it;
    size_t image_tops = (size_t)images * CT_TOP, text_tops = (size_t)texts * CT_TOP;
    CT_TRY(ct_alloc(1, sizeof *it, "retrieval", &it));
    *it = (ct_retrieval){.images = images, .texts = texts, .dim = dim};
    ct_status status = ct_alloc((size_t)images, sizeof(int32_t), "ranks", &it->image_rank);
    if (status == CT_OK) status = ct_alloc((size_t)texts, sizeof(int32_t), "ranks", &it->text_rank);
    if (status == CT_OK) status = ct_alloc(image_tops, sizeof(int32_t), "ranks", &it->image_top);
    if (status == CT_OK) status = ct_alloc(text_tops, sizeof(int32_t), "ranks", &it->text_top);
    if (status == CT_OK)
        status = ct_alloc(image_tops, sizeof(float), "ranks", &it->image_top_score);
    if (status == CT_OK) status = ct_alloc(text_tops, sizeof(float), "ranks", &it->text_top_score);
    if (status == CT_OK) *out = it;
    else ct_retrieval_destroy(it);
    return status;
}

ct_status ct_retrieval_compute(const float *image, int32_t images, const float *text, int32_t texts,
                               int32_t dim, const int32_t *owner, int threads, ct_retrieval **out)
{
    return ct_retrieval_compute_shared(image, images, text, texts, dim, owner, threads, NULL, out);
}

ct_status ct_retrieval_compute_shared(const float *image, int32_t images, const float *text,
                                      int32_t texts, int32_t dim, const int32_t *owner, int threads,
                                      ct_comm *comm, ct_retrieval **out)
{
    *out = NULL;
    if (images < 1 || texts < 1 || dim < 1 || threads < 1)
        return ct_fail(CT_ERR_ARGUMENT,
                       "retrieval needs photos and captions: %d photos, %d captions, dimension %d, "
                       "%d threads",
                       images, texts, dim, threads);
    for (int32_t t = 0; owner && t < texts; t++)
        if (owner[t] < 0 || owner[t] >= images)
            return ct_fail(CT_ERR_ARGUMENT, "retrieval: caption %d belongs to photo %d of %d", t,
                           owner[t], images);
    scratch s = {0};
    ct_retrieval *it = NULL;
    ct_status status;
    CT_TRY_GOTO(status, scratch_create(&s, images, texts, dim, threads), done);
    CT_TRY_GOTO(status, result_create(images, texts, dim, &it), done);
    CT_TRY_GOTO(status, compute(it, image, text, owner, threads, comm, &s), done);
    *out = it;
    it = NULL;
done:
    ct_retrieval_destroy(it);
    scratch_free(&s);
    return status;
}

void ct_retrieval_destroy(ct_retrieval *retrieval)
{
    if (!retrieval) return;
    free(retrieval->image_rank);
    free(retrieval->text_rank);
    free(retrieval->image_top);
    free(retrieval->text_top);
    free(retrieval->image_top_score);
    free(retrieval->text_top_score);
    free(retrieval);
}
