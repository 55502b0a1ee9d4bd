/* Retrieval against a plain computation in double precision. Embeddings of small integers make
 * products exact, so ranks, ties and the top lists must agree to the last. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/rng.h"
#include "train/retrieval.h"
#include "train/support.h"
#include "train/tests.h"

#define SEED 20240611

typedef struct set {
    float *image, *text;
    int32_t *owner;
    int32_t images, texts, dim;
} set;

static void set_free(set *s)
{
    free(s->image);
    free(s->text);
    free(s->owner);
}

/* Photos with 0 to 7 captions each (at least one in all), in random order; embeddings are zero. */
static set make_set(int32_t images, int32_t dim, uint64_t variant)
{
    ct_rng_key key = ct_rng_make(SEED, CT_RNG_TEST, 1, variant);
    set s = {.images = images, .dim = dim, .texts = 0};
    s.owner = must_alloc(sizeof *s.owner * ((size_t)images * 7 + 1));
    for (int32_t i = 0; i < images; i++) {
        int32_t captions = (int32_t)ct_rng_below(key, (uint64_t)i, 8);
        if (s.texts == 0 && i == images - 1 && captions == 0) captions = 1;
        for (int32_t c = 0; c < captions; c++) s.owner[s.texts++] = i;
    }
    int32_t *order = must_alloc(sizeof *order * (size_t)s.texts);
    int32_t *owner = must_alloc(sizeof *owner * (size_t)s.texts);
    ct_rng_permute(ct_rng_make(SEED, CT_RNG_TEST, 2, variant), order, s.texts);
    for (int32_t t = 0; t < s.texts; t++) owner[t] = s.owner[order[t]];
    free(order);
    free(s.owner);
    s.owner = owner;
    s.image = must_alloc(sizeof *s.image * (size_t)images * (size_t)dim);
    s.text = must_alloc(sizeof *s.text * (size_t)s.texts * (size_t)dim);
    return s;
}

static void fill_integers(set *s, uint64_t variant)
{
    ct_rng_key key = ct_rng_make(SEED, CT_RNG_TEST, 3, variant);
    uint64_t next = 0;
    for (int64_t k = 0; k < (int64_t)s->images * s->dim; k++)
        s->image[k] = (float)ct_rng_below(key, next++, 5) - 2;
    for (int64_t k = 0; k < (int64_t)s->texts * s->dim; k++)
        s->text[k] = (float)ct_rng_below(key, next++, 5) - 2;
}

static void normalise(float *row, int32_t dim)
{
    double sum = 0;
    for (int32_t k = 0; k < dim; k++) sum += (double)row[k] * row[k];
    for (int32_t k = 0; k < dim; k++) row[k] = (float)(row[k] / sqrt(sum));
}

/* Unit rows; a caption's is near its photo's. */
static void fill_unit(set *s, uint64_t variant)
{
    ct_rng_key key = ct_rng_make(SEED, CT_RNG_TEST, 4, variant);
    uint64_t next = 0;
    for (int64_t k = 0; k < (int64_t)s->images * s->dim; k++)
        s->image[k] = (float)ct_rng_normal(key, next++);
    for (int32_t t = 0; t < s->texts; t++)
        for (int32_t k = 0; k < s->dim; k++)
            s->text[(size_t)t * s->dim + k] =
                s->image[(size_t)s->owner[t] * s->dim + k] + 4 * (float)ct_rng_normal(key, next++);
    for (int32_t i = 0; i < s->images; i++) normalise(s->image + (size_t)i * s->dim, s->dim);
    for (int32_t t = 0; t < s->texts; t++) normalise(s->text + (size_t)t * s->dim, s->dim);
}

static double score(const set *s, int32_t i, int32_t t)
{
    double sum = 0;
    for (int32_t k = 0; k < s->dim; k++)
        sum += (double)s->image[(size_t)i * s->dim + k] * s->text[(size_t)t * s->dim + k];
    return sum;
}

/* One query of either direction, spelled out. */
typedef struct query {
    bool is_image;
    int32_t row, candidates;
} query;

static double query_score(const set *s, query q, int32_t candidate)
{
    return q.is_image ? score(s, q.row, candidate) : score(s, candidate, q.row);
}

static bool query_owns(const set *s, query q, int32_t candidate)
{
    return q.is_image ? s->owner[candidate] == q.row : s->owner[q.row] == candidate;
}

/* The rank if a competitor wins from right - slack on; 0 without a right answer. */
static int32_t naive_rank(const set *s, query q, double slack)
{
    double right = NAN;
    int32_t own = 0, beaten = 0;
    for (int32_t c = 0; c < q.candidates; c++)
        if (query_owns(s, q, c)) {
            own++;
            right = fmax(right, query_score(s, q, c));
        }
    if (own == 0) return 0;
    if (isnan(right)) return q.candidates - own + 1;
    for (int32_t c = 0; c < q.candidates; c++)
        beaten += !query_owns(s, q, c) && query_score(s, q, c) >= right - slack;
    return beaten + 1;
}

/* Place `place` of the list by falling score, then rising index; -1 beyond its end. */
static int32_t naive_place(const set *s, query q, int place)
{
    for (int32_t c = 0; c < q.candidates; c++) {
        double mine = query_score(s, q, c);
        int before = 0;
        if (isnan(mine)) continue;
        for (int32_t o = 0; o < q.candidates; o++) {
            double other = query_score(s, q, o);
            before += other > mine || (other == mine && o < c);
        }
        if (before == place) return c;
    }
    return -1;
}

static void check_recall(const ct_recall *recall, const int32_t *rank, int32_t count)
{
    double ranked = 0, sum = 0, within[3] = {0};
    for (int32_t q = 0; q < count; q++) {
        if (rank[q] == 0) continue;
        ranked++;
        sum += rank[q];
        within[0] += rank[q] <= 1;
        within[1] += rank[q] <= 5;
        within[2] += rank[q] <= 10;
    }
    assert_close(recall->r1, 100 * within[0] / ranked, 1e-9);
    assert_close(recall->r5, 100 * within[1] / ranked, 1e-9);
    assert_close(recall->r10, 100 * within[2] / ranked, 1e-9);
    assert_close(recall->mean_rank, sum / ranked, 1e-9 * sum);
    /* Half of the ranks lie on either side of the median. */
    double below = 0, above = 0;
    for (int32_t q = 0; q < count; q++) {
        below += rank[q] > 0 && rank[q] < recall->median_rank;
        above += rank[q] > recall->median_rank;
    }
    assert_true(below <= ranked / 2 && above <= ranked / 2);
}

static void check_exactly(const set *s, int threads)
{
    ct_retrieval *r;
    assert_ok(ct_retrieval_compute(s->image, s->images, s->text, s->texts, s->dim, s->owner,
                                   threads, &r));
    for (int side = 0; side < 2; side++) {
        bool is_image = side == 0;
        int32_t queries = is_image ? s->images : s->texts;
        const int32_t *rank = is_image ? r->image_rank : r->text_rank;
        const int32_t *top = is_image ? r->image_top : r->text_top;
        const float *top_score = is_image ? r->image_top_score : r->text_top_score;
        for (int32_t row = 0; row < queries; row++) {
            query q = {is_image, row, is_image ? s->texts : s->images};
            assert_int_equal(rank[row], naive_rank(s, q, 0));
            if (row % 5) continue; /* the plain list is slow */
            for (int j = 0; j < CT_TOP; j++) {
                int32_t expected = naive_place(s, q, j);
                assert_int_equal(top[row * CT_TOP + j], expected);
                if (expected < 0) assert_true(isinf(top_score[row * CT_TOP + j]));
                else assert_true(top_score[row * CT_TOP + j] == query_score(s, q, expected));
            }
        }
        check_recall(is_image ? &r->image_to_text : &r->text_to_image, rank, queries);
    }
    ct_retrieval_destroy(r);
}

static void test_integers(void **state)
{
    (void)state;
    static const int32_t shapes[][2] = {{1, 1},  {1, 8},   {2, 3},   {5, 1},  {6, 16},
                                        {7, 37}, {33, 64}, {97, 12}, {193, 5}};
    print_message("seed %d\n", SEED);
    for (uint64_t v = 0; v < sizeof shapes / sizeof *shapes; v++) {
        set s = make_set(shapes[v][0], shapes[v][1], v);
        fill_integers(&s, v);
        check_exactly(&s, 1 + (int)v % 3);
        set_free(&s);
    }
}

/* Scores in single precision are off by at most dim * 2^-24 (unit rows), and two are compared. */
static void test_unit_rows(void **state)
{
    (void)state;
    set s = make_set(150, 96, 50);
    fill_unit(&s, 50);
    double slack = 2 * s.dim * 0x1p-24;
    ct_retrieval *r;
    assert_ok(ct_retrieval_compute(s.image, s.images, s.text, s.texts, s.dim, s.owner, 2, &r));
    for (int32_t i = 0; i < s.images; i++) {
        query q = {true, i, s.texts};
        assert_in_range(r->image_rank[i], naive_rank(&s, q, -slack), naive_rank(&s, q, slack));
    }
    for (int32_t t = 0; t < s.texts; t++) {
        query q = {false, t, s.images};
        assert_in_range(r->text_rank[t], naive_rank(&s, q, -slack), naive_rank(&s, q, slack));
    }
    assert_true(r->text_to_image.r10 > 2 * 1000.0 / s.images); /* it found something */
    ct_retrieval_destroy(r);
    set_free(&s);
}

/* A model that maps everything to one point must score nothing, wherever tiles end. */
static void test_collapsed(void **state)
{
    (void)state;
    set s = make_set(203, 67, 60);
    fill_unit(&s, 60);
    for (int32_t i = 1; i < s.images; i++)
        memcpy(s.image + (size_t)i * s.dim, s.image, (size_t)s.dim * sizeof(float));
    for (int32_t t = 1; t < s.texts; t++)
        memcpy(s.text + (size_t)t * s.dim, s.text, (size_t)s.dim * sizeof(float));
    ct_retrieval *r;
    assert_ok(ct_retrieval_compute(s.image, s.images, s.text, s.texts, s.dim, s.owner, 2, &r));
    for (int32_t t = 0; t < s.texts; t++) assert_int_equal(r->text_rank[t], s.images);
    assert_true(r->image_to_text.r10 == 0 && r->text_to_image.r10 == 0);
    ct_retrieval_destroy(r);
    set_free(&s);
}

static void test_nan(void **state)
{
    (void)state;
    set s = make_set(40, 9, 70);
    fill_integers(&s, 70);
    s.image[3 * 9 + 4] = NAN; /* one photo */
    for (int32_t t = 0; t < s.texts; t += 11) s.text[t * 9] = NAN;
    int32_t owner = s.owner[1]; /* all captions of one photo */
    for (int32_t t = 0; t < s.texts; t++)
        if (s.owner[t] == owner) s.text[t * 9 + 8] = NAN;
    check_exactly(&s, 2);
    for (int64_t k = 0; k < (int64_t)s.images * s.dim; k++) s.image[k] = NAN; /* and everything */
    check_exactly(&s, 2);
    set_free(&s);
}

static void test_threads_do_not_matter(void **state)
{
    (void)state;
    set s = make_set(500, 31, 80);
    fill_unit(&s, 80);
    ct_retrieval *one, *many;
    assert_ok(ct_retrieval_compute(s.image, s.images, s.text, s.texts, s.dim, s.owner, 1, &one));
    for (int threads = 2; threads <= 7; threads += 5) {
        assert_ok(ct_retrieval_compute(s.image, s.images, s.text, s.texts, s.dim, s.owner, threads,
                                       &many));
        size_t images = (size_t)s.images * 4, texts = (size_t)s.texts * 4;
        assert_memory_equal(one->image_rank, many->image_rank, images);
        assert_memory_equal(one->text_rank, many->text_rank, texts);
        assert_memory_equal(one->image_top, many->image_top, images * CT_TOP);
        assert_memory_equal(one->text_top, many->text_top, texts * CT_TOP);
        assert_memory_equal(one->image_top_score, many->image_top_score, images * CT_TOP);
        assert_memory_equal(one->text_top_score, many->text_top_score, texts * CT_TOP);
        assert_memory_equal(&one->image_to_text, &many->image_to_text, sizeof(ct_recall));
        assert_memory_equal(&one->text_to_image, &many->text_to_image, sizeof(ct_recall));
        ct_retrieval_destroy(many);
    }
    ct_retrieval_destroy(one);
    set_free(&s);
}

static void test_wrong_calls(void **state)
{
    (void)state;
    float row[2] = {1, 0};
    int32_t owner = 1;
    ct_retrieval *r;
    assert_fails(ct_retrieval_compute(row, 0, row, 1, 2, &owner, 1, &r), CT_ERR_ARGUMENT,
                 "0 photos");
    assert_fails(ct_retrieval_compute(row, 1, row, 0, 2, &owner, 1, &r), CT_ERR_ARGUMENT,
                 "0 captions");
    assert_fails(ct_retrieval_compute(row, 1, row, 1, 2, &owner, 1, &r), CT_ERR_ARGUMENT,
                 "photo 1 of 1");
    assert_null(r);
    ct_retrieval_destroy(NULL);
}

/* ---- against the reference file ---- */

static const cJSON *get(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!item) fail_msg("the reference file lacks %s", key);
    return item;
}

static float *read_rows(const cJSON *rows, int32_t dim)
{
    float *out = must_alloc(sizeof *out * (size_t)cJSON_GetArraySize(rows) * (size_t)dim);
    float *at = out;
    const cJSON *row, *value;
    cJSON_ArrayForEach(row, rows) cJSON_ArrayForEach(value, row) *at++ =
        (float)(value->valuedouble / 1024);
    return out;
}

static void check_ints(const cJSON *array, const int32_t *values)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, array)
    {
        if (cJSON_IsArray(item)) {
            check_ints(item, values);
            values += cJSON_GetArraySize(item);
        } else {
            assert_int_equal(*values++, item->valueint);
        }
    }
}

static void check_golden_recall(const cJSON *golden, const ct_recall *recall)
{
    assert_close(recall->r1, get(golden, "r1")->valuedouble, 1e-9);
    assert_close(recall->r5, get(golden, "r5")->valuedouble, 1e-9);
    assert_close(recall->r10, get(golden, "r10")->valuedouble, 1e-9);
    assert_close(recall->median_rank, get(golden, "median_rank")->valuedouble, 0);
    assert_close(recall->mean_rank, get(golden, "mean_rank")->valuedouble, 1e-9);
}

/* Without owners only the tops count, and they are those found with owners. */
static void test_no_owners(void **state)
{
    (void)state;
    set s = make_set(20, 8, 4242);
    fill_integers(&s, 4242);
    ct_retrieval *with, *without;
    assert_ok(ct_retrieval_compute(s.image, s.images, s.text, s.texts, s.dim, s.owner, 2, &with));
    assert_ok(ct_retrieval_compute(s.image, s.images, s.text, s.texts, s.dim, NULL, 2, &without));
    assert_memory_equal(with->image_top, without->image_top,
                        (size_t)s.images * CT_TOP * sizeof(int32_t));
    assert_memory_equal(with->text_top, without->text_top,
                        (size_t)s.texts * CT_TOP * sizeof(int32_t));
    for (int32_t t = 0; t < s.texts; t++) assert_int_equal(without->text_rank[t], 0);
    for (int32_t i = 0; i < s.images; i++) assert_int_equal(without->image_rank[i], 0);
    assert_true(without->image_to_text.r10 == 0 && without->text_to_image.mean_rank == 0);
    ct_retrieval_destroy(with);
    ct_retrieval_destroy(without);
    set_free(&s);
}

static void test_reference(void **state)
{
    (void)state;
    char *file = read_text("tests/reference/data/retrieval.json", NULL);
    cJSON *golden = cJSON_Parse(file);
    assert_non_null(golden);
    set s = {.dim = get(golden, "dim")->valueint};
    s.images = cJSON_GetArraySize(get(golden, "image_times_1024"));
    s.texts = cJSON_GetArraySize(get(golden, "text_times_1024"));
    s.image = read_rows(get(golden, "image_times_1024"), s.dim);
    s.text = read_rows(get(golden, "text_times_1024"), s.dim);
    s.owner = must_alloc(sizeof *s.owner * (size_t)s.texts);
    for (int32_t t = 0; t < s.texts; t++)
        s.owner[t] = cJSON_GetArrayItem(get(golden, "owner"), t)->valueint;
    ct_retrieval *r;
    assert_ok(ct_retrieval_compute(s.image, s.images, s.text, s.texts, s.dim, s.owner, 2, &r));
    check_ints(get(golden, "image_rank"), r->image_rank);
    check_ints(get(golden, "text_rank"), r->text_rank);
    check_ints(get(golden, "image_top"), r->image_top);
    check_ints(get(golden, "text_top"), r->text_top);
    check_golden_recall(get(golden, "image_to_text"), &r->image_to_text);
    check_golden_recall(get(golden, "text_to_image"), &r->text_to_image);
    ct_retrieval_destroy(r);
    set_free(&s);
    cJSON_Delete(golden);
    free(file);
}

int run_retrieval_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_unit_rows),
        cmocka_unit_test(test_collapsed),
        cmocka_unit_test(test_nan),
        cmocka_unit_test(test_threads_do_not_matter),
        cmocka_unit_test(test_wrong_calls),
        cmocka_unit_test(test_no_owners),
        cmocka_unit_test(test_reference),
    };
    return cmocka_run_group_tests_name("retrieval", tests, NULL, NULL);
}
