/* The report as a file: well-formed, self-contained, safe with any text, right in what it marks. */
#include "train/report.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "image/image.h"
#include "train/support.h"
#include "train/tests.h"

#define IMAGES "tests/reference/data/images"
#define DIM    24

static const char captions_file[] = "image,caption\n"
                                    "baseline_420.jpg,one <b>bold</b> & \"quoted\" caption\n"
                                    "baseline_420.jpg,another of the first\n"
                                    "progressive.jpg,'single' quotes\n"
                                    "cmyk.jpg,four inks\n"
                                    "cmyk.jpg,Größe 犬 🐕\n"
                                    "cmyk.jpg,a third\n"
                                    "odd_1x1.jpg,one pixel\n"
                                    "odd_33x2.jpg,a strip\n"
                                    "grey.jpg,no colour\n"
                                    "truncated.jpg,cannot be read\n"
                                    "<absent>&.jpg,is not there\n";

/* A data set with a retrieval over all of it. */
typedef struct world {
    ct_dataset *dataset;
    ct_retrieval *retrieval;
    int32_t *photos, *captions;
} world;

/* Captions lie near their photos with noise 0, anywhere with a large one. */
static world make_world(const char *text, float noise)
{
    world w;
    ct_rng_key key = ct_rng_make(9, CT_RNG_TEST, 0, 0);
    uint64_t next = 0;
    assert_ok(ct_dataset_parse(text, strlen(text), "captions", CT_CAPTIONS_FLICKR8K_KAGGLE, 0,
                               &w.dataset));
    free(w.dataset->images);
    w.dataset->images = strdup(IMAGES);
    int32_t images = w.dataset->photo_count, texts = w.dataset->caption_count;
    float *image = must_alloc(sizeof *image * (size_t)images * DIM);
    float *caption = must_alloc(sizeof *caption * (size_t)texts * DIM);
    int32_t *owner = must_alloc(sizeof *owner * (size_t)texts);
    w.photos = must_alloc(sizeof *w.photos * (size_t)images);
    w.captions = must_alloc(sizeof *w.captions * (size_t)texts);
    for (int32_t k = 0; k < images * DIM; k++) image[k] = 0.2f * (float)ct_rng_normal(key, next++);
    for (int32_t i = 0; i < images; i++) w.photos[i] = i;
    for (int32_t t = 0; t < texts; t++) {
        w.captions[t] = t;
        owner[t] = w.dataset->captions[t].photo;
        for (int32_t k = 0; k < DIM; k++)
            caption[t * DIM + k] =
                image[owner[t] * DIM + k] + noise * (float)ct_rng_normal(key, next++);
    }
    assert_ok(ct_retrieval_compute(image, images, caption, texts, DIM, owner, 1, &w.retrieval));
    free(image);
    free(caption);
    free(owner);
    return w;
}

static void world_free(world *w)
{
    ct_retrieval_destroy(w->retrieval);
    ct_dataset_destroy(w->dataset);
    free(w->photos);
    free(w->captions);
}

static ct_report_input input_of(const world *w)
{
    return (ct_report_input){.title = "tiny & <sound>.yaml",
                             .retrieval = w->retrieval,
                             .dataset = w->dataset,
                             .photos = w->photos,
                             .captions = w->captions,
                             .gallery = 100,
                             .split = "validation"};
}

static int count(const char *text, const char *what)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, what)); at += strlen(what)) n++;
    return n;
}

/* Reads a tag at *at ('<'): its name, whether it closes or is empty; moves behind its '>'. */
static bool read_tag(const char **at, char name[32], bool *closes, bool *empty)
{
    const char *s = *at + 1;
    size_t length = 0;
    *closes = *s == '/';
    *empty = false;
    if (*closes) s++;
    while (isalnum((unsigned char)*s) && length < 31) name[length++] = *s++;
    name[length] = '\0';
    bool quoted = false;
    for (; *s && (quoted || *s != '>'); s++) {
        if (*s == '"') quoted = !quoted;
        if (!quoted && *s == '<') return false;
    }
    *empty = s[-1] == '/';
    *at = s + 1;
    return length > 0 && *s == '>';
}

/* Every tag is closed in the right order, and no '<' or '"' is left over. */
static void check_markup(const char *html)
{
    static const char *const void_tags[] = {"meta", "link", "br", "img", "hr"};
    char open[64][32], name[32];
    int depth = 0;
    assert_memory_equal(html, "<!DOCTYPE html>\n", 16);
    for (const char *at = html + 16; (at = strchr(at, '<'));) {
        bool closes, empty, is_void = false;
        const char *tag = at;
        if (!read_tag(&at, name, &closes, &empty)) fail_msg("bad tag: %.60s", tag);
        for (int v = 0; v < 5; v++) is_void = is_void || strcmp(name, void_tags[v]) == 0;
        if (is_void || empty) continue;
        if (!closes) {
            assert_true(depth < 64);
            strcpy(open[depth++], name);
        } else if (depth == 0 || strcmp(open[--depth], name) != 0) {
            fail_msg("</%s> closes <%s>: %.60s", name, depth >= 0 ? open[depth] : "", tag);
        }
    }
    assert_int_equal(depth, 0);
}

static void check_self_contained(const char *html)
{
    assert_int_equal(count(html, "<script"), 0);
    assert_int_equal(count(html, "http://") + count(html, "https://"), 0);
    assert_int_equal(count(html, "src="), 0);
    assert_int_equal(count(html, "url("), 0);
    assert_int_equal(count(html, "@import"), 0);
    assert_int_equal(count(html, " href="),
                     count(html, "href=\"#p") + count(html, "href=\"data:image/jpeg;base64,"));
}

/* Every photo shown is embedded exactly once. */
static int check_photos(const char *html)
{
    int symbols = count(html, "<symbol id=\"p");
    for (const char *at = html; (at = strstr(at, "href=\"#p")); at++) {
        char id[64];
        snprintf(id, sizeof id, "<symbol id=\"p%d\"", atoi(at + 8));
        assert_int_equal(count(html, id), 1);
    }
    for (const char *at = html; (at = strstr(at, "<symbol id=\"p")); at++) {
        char use[64];
        snprintf(use, sizeof use, "href=\"#p%d\"", atoi(at + 13));
        assert_true(count(html, use) > 0);
    }
    return symbols;
}

static char *write_report(void **state, const ct_report_input *input)
{
    const char *path = in_folder(*state, "report.html");
    assert_ok(ct_report_write(path, input));
    char *html = read_text(path, NULL);
    check_markup(html);
    check_self_contained(html);
    check_photos(html);
    assert_int_equal(count(html, "nan\""), 0);
    assert_int_equal(count(html, " nan") + count(html, "nan "), 0);
    assert_int_equal(count(html, "inf\"") + count(html, " inf ") + count(html, "-inf"), 0);
    return html;
}

static void test_full(void **state)
{
    world w = make_world(captions_file, 0);
    ct_report_input input = input_of(&w);
    static const char *const names[] = {"device", "a <tag>"}, *const values[] = {"cpu & co",
                                                                                 "\xFF"};
    ct_step_record steps[1000];
    ct_validation_record validations[9];
    for (int i = 0; i < 1000; i++)
        steps[i] = (ct_step_record){.step = i + 1, .loss = 8 - i * 0.005, .logit_scale = 14.28};
    steps[0].loss = NAN;
    steps[500].loss = INFINITY;
    steps[999].loss = NAN;
    for (int i = 0; i < 9; i++)
        validations[i] = (ct_validation_record){.step = (i + 1) * 100,
                                                .image_to_text = {i, 2.0 * i, 3.0 * i, 2, 3},
                                                .text_to_image = {i, 2.0 * i, NAN, 2, 3}};
    input.fact_names = names;
    input.fact_values = values;
    input.fact_count = 2;
    input.steps = steps;
    input.step_count = 1000;
    input.validations = validations;
    input.validation_count = 9;
    char *html = write_report(state, &input);

    assert_int_equal(count(html, "<h1>tiny &amp; &lt;sound&gt;.yaml</h1>"), 1);
    assert_int_equal(count(html, "<dt>a &lt;tag&gt;</dt><dd>\xEF\xBF\xBD</dd>"), 1);
    assert_int_equal(count(html, "<b>bold"), 0);
    assert_true(count(html, "one &lt;b&gt;bold&lt;/b&gt; &amp; &quot;quoted&quot; caption") > 0);
    assert_true(count(html, "&#39;single&#39; quotes") > 0);
    assert_true(count(html, "Größe 犬 🐕") > 0);
    assert_int_equal(count(html, "<figure"), 4);
    assert_int_equal(count(html, "Nothing recorded yet"), 0);
    assert_int_equal(count(html, "step 900 · R@1 8.0 %"), 2);
    assert_int_equal(count(html, "R@10 <tspan>24.0</tspan>"), 1);
    assert_int_equal(count(html, "R@10 <tspan>"), 1); /* the other direction's are all NaN */
    /* Six photos can be read; two cannot, and are shown as tiles with their names. */
    assert_int_equal(check_photos(html), 6);
    assert_true(count(html, "<span class=\"photo missing\">truncated.jpg</span>") > 0);
    assert_true(count(html, "<span class=\"photo missing\">&lt;absent&gt;&amp;.jpg</span>") > 0);
    /* Without noise every caption finds its photo, and every photo its captions. */
    assert_int_equal(count(html, "<article"), 11 + 8);
    assert_int_equal(count(html, "<span class=\"rank found\">rank 1</span>"), 11 + 8);
    assert_int_equal(count(html, "class=\"right\""), 11 + 11);
    assert_int_equal(count(html, "missed\">"), 0);
    assert_true(strlen(html) < 8 * 12000 + 60000);
    free(html);
    world_free(&w);
}

static void test_misses(void **state)
{
    world w = make_world(captions_file, 50);
    ct_report_input input = input_of(&w);
    char *html = write_report(state, &input);
    int missed = 0;
    for (int32_t t = 0; t < w.retrieval->texts; t++) missed += w.retrieval->text_rank[t] > CT_TOP;
    assert_true(missed > 0);
    assert_int_equal(count(html, "<p class=\"missed\">"), missed);
    missed = 0;
    for (int32_t i = 0; i < w.retrieval->images; i++) missed += w.retrieval->image_rank[i] > CT_TOP;
    assert_int_equal(count(html, "<li class=\"missed\">"), missed);
    free(html);
    world_free(&w);
}

static void test_same_bytes_again(void **state)
{
    world w = make_world(captions_file, 1);
    ct_report_input input = input_of(&w);
    char *first = write_report(state, &input), *second = write_report(state, &input);
    assert_string_equal(first, second);
    free(first);
    free(second);
    world_free(&w);
}

static void test_gallery_sizes(void **state)
{
    world w = make_world(captions_file, 1);
    ct_report_input input = input_of(&w);
    static const int32_t sizes[] = {-1, 0, 1, 3, 9};
    static const int articles[] = {0, 0, 2, 6, 9 + 8};
    for (int i = 0; i < 5; i++) {
        input.gallery = sizes[i];
        char *html = write_report(state, &input);
        assert_int_equal(count(html, "<article"), articles[i]);
        free(html);
    }
    world_free(&w);
}

static void test_nothing_yet(void **state)
{
    ct_report_input input = {.title = "", .split = "validation"};
    char *html = write_report(state, &input);
    assert_int_equal(count(html, "Nothing recorded yet"), 4);
    assert_int_equal(count(html, "<article") + count(html, "<table"), 0);
    free(html);
}

static void test_one_photo_one_step(void **state)
{
    world w = make_world("image,caption\ngrey.jpg,alone\n", 0);
    ct_report_input input = input_of(&w);
    ct_step_record step = {.step = 0, .loss = 0, .logit_scale = 1e300};
    ct_validation_record validation = {.step = 0, .image_to_text = w.retrieval->image_to_text};
    input.steps = &step;
    input.step_count = 1;
    input.validations = &validation;
    input.validation_count = 1;
    char *html = write_report(state, &input);
    assert_int_equal(count(html, "1 photo and 1 caption of"), 1);
    assert_int_equal(count(html, "<article"), 2);
    assert_int_equal(count(html, "<b>100.0</b>"), 6);
    assert_int_equal(count(html, "Nothing recorded yet"), 1); /* a scale beyond drawing */
    free(html);
    world_free(&w);
}

/* Half a page of bytes from a base64 text; returns how many. */
static size_t decode_base64(const char *text, uint8_t *out)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t bits = 0;
    int held = 0;
    size_t size = 0;
    for (const char *found; *text && (found = strchr(alphabet, *text)); text++) {
        bits = bits << 6 | (uint32_t)(found - alphabet);
        held += 6;
        if (held < 8) continue;
        held -= 8;
        out[size++] = (uint8_t)(bits >> held);
    }
    return size;
}

/* Every thumbnail is a JPEG of a square of at most 160 pixels, and never larger than the photo. */
static void test_thumbnails(void **state)
{
    world w = make_world(captions_file, 0);
    ct_report_input input = input_of(&w);
    char *html = write_report(state, &input);
    uint8_t *jpeg = must_alloc(strlen(html));
    ct_decoder *decoder;
    assert_ok(ct_decoder_create(&decoder));
    int seen = 0;
    for (const char *at = html; (at = strstr(at, "<symbol id=\"p")); at++, seen++) {
        const ct_photo *photo = &w.dataset->photos[atoi(at + 13)];
        char path[256];
        ct_pixels pixels;
        snprintf(path, sizeof path, IMAGES "/%s", photo->name);
        assert_ok(ct_decoder_read(decoder, path, &pixels));
        int32_t side = pixels.width < pixels.height ? pixels.width : pixels.height;
        size_t size = decode_base64(strstr(at, "base64,") + 7, jpeg);
        assert_ok(ct_decoder_parse(decoder, jpeg, size, "thumbnail", &pixels));
        assert_int_equal(pixels.width, side < 160 ? side : 160);
        assert_int_equal(pixels.height, pixels.width);
    }
    assert_int_equal(seen, 6);
    ct_decoder_destroy(decoder);
    free(jpeg);
    free(html);
    world_free(&w);
}

static void test_no_folder(void **state)
{
    ct_report_input input = {.title = "x", .split = "test"};
    assert_fails(ct_report_write(in_folder(*state, "absent/report.html"), &input), CT_ERR_IO,
                 "absent/report.html");
}

int run_report_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_full, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_misses, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_same_bytes_again, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_gallery_sizes, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_nothing_yet, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_one_photo_one_step, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_thumbnails, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_no_folder, folder_setup, folder_teardown),
    };
    return cmocka_run_group_tests_name("report", tests, NULL, NULL);
}
