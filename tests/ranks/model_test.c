/* R ranks with B pairs each make the gradients and the loss curve of one rank with R B pairs. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ranks.h"

/* f32: what another order of sums costs. Twenty batch normalisations, one behind the other, spread
 * roundings: how far is measured, by giving one rank the same pairs in another order. A gradient
 * that travels in bf16 has 8 bits of mantissa on each rank. */
#define F32_LIMIT  1e-6
#define MEASURED   0
#define BF16_LIMIT 0x1p-8
#define LOSS_LIMIT 1e-4

/* Batch normalisation makes curves diverge from any difference, and the faster the larger the
 * steps. */
#define SMALL_STEPS "train.lr_image=1e-6"

static const variant variants[] = {
    {"vit", {"image.encoder=vit"}, F32_LIMIT},
    {"vit, small buckets", {"image.encoder=vit", "distributed.bucket_mib=1"}, F32_LIMIT},
    {"vit, sigmoid loss",
     {"image.encoder=vit", "loss.kind=sigmoid", "loss.logit_scale_init=10"},
     F32_LIMIT},
    {"vit, share and label smoothing",
     {"image.encoder=vit", "loss.same_image=share", "loss.label_smoothing=0.1"},
     F32_LIMIT},
    {"vit, zero", {"image.encoder=vit", "distributed.zero=true"}, F32_LIMIT},
    {"vit, bf16 gradients", {"image.encoder=vit", "distributed.reduce=bf16"}, BF16_LIMIT},
    {"vit, zero, bf16 gradients",
     {"image.encoder=vit", "distributed.zero=true", "distributed.reduce=bf16"},
     BF16_LIMIT},
    {"resnet18, sync_bn",
     {"image.encoder=resnet18", "distributed.sync_bn=true", "projection.kind=mlp",
      "projection.dropout=0", SMALL_STEPS},
     MEASURED},
};

static ct_device *ranks, *alone;

/* With moments of its own parts a rank has the gradients of its own parts only. */
static bool is_known(const ct_params *params, int64_t number)
{
    const ct_shards *shards = ct_params_shards(params);
    if (!ct_params_own_moments(params)) return true;
    const ct_range own = ct_shards_own(shards, number / shards->bucket);
    return number >= own.begin && number < own.end;
}

/* Sums of squares over one parameter's gradient, of what this rank knows of b. */
typedef struct squares {
    double of_one, of_difference;
    int64_t count;
} squares;

static squares compare_gradient(model *a, model *b, int index)
{
    ct_params *whole = ct_clip_params(a->clip), *shared = ct_clip_params(b->clip);
    const ct_tensor *x = &ct_params_at(whole, index)->grad, *y = &ct_params_at(shared, index)->grad;
    const ct_tensor all = ct_params_grads(shared);
    const int64_t begin = (const float *)y->data - ct_f32(&all);
    squares sum = {.count = ct_tensor_count(x)};
    for (int64_t i = 0; i < sum.count; i++) {
        const double of_one = (double)ct_f32(x)[i], of_ranks = (double)ct_f32(y)[i];
        sum.of_one += of_one * of_one;
        if (is_known(shared, begin + i))
            sum.of_difference += (of_one - of_ranks) * (of_one - of_ranks);
    }
    return sum;
}

/* The mean square of a number of the tower's gradient. */
static double mean_square(model *m, ct_param_group group)
{
    ct_params *params = ct_clip_params(m->clip);
    squares sum = {0};
    for (int i = 0; i < ct_params_count(params); i++) {
        const ct_param *param = ct_params_at(params, i);
        if (param->buffer || param->group != group) continue;
        const squares own = compare_gradient(m, m, i);
        sum.of_one += own.of_one;
        sum.count += own.count;
    }
    return sum.of_one / (double)sum.count;
}

/* |a - b| / |a|, by parameter. What a parameter does may be undone behind it: a key's bias by the
 * softmax, a norm's bias by the next norm. Its gradient is then zero but for rounding, and the
 * difference is measured by the tower's gradients. */
static double worst_difference(const variant *v, model *a, model *b, double limit)
{
    ct_params *params = ct_clip_params(a->clip);
    double worst = 0, typical[CT_GROUP_HEAD + 1];
    for (int g = 0; g <= CT_GROUP_HEAD; g++) typical[g] = mean_square(a, (ct_param_group)g);
    for (int i = 0; i < ct_params_count(params); i++) {
        const ct_param *param = ct_params_at(params, i);
        if (param->buffer) continue;
        const squares found = compare_gradient(a, b, i);
        const double size = fmax(found.of_one, (double)found.count * typical[param->group]);
        const double difference = sqrt(found.of_difference / size);
        check(difference <= limit, "%s: the gradient of %s differs by %.2g of itself", v->name,
              param->name, difference);
        worst = fmax(worst, difference);
    }
    return worst;
}

/* Running statistics: with sync_bn those of one rank, without the mean over ranks; the same bits on
 * all ranks anyway. */
static void check_statistics(const variant *v, model *a, model *b)
{
    ct_params *params = ct_clip_params(a->clip);
    for (int i = 0; i < ct_params_count(params); i++) {
        const ct_tensor *x = &ct_params_at(params, i)->value;
        const ct_tensor *y = &ct_params_at(ct_clip_params(b->clip), i)->value;
        if (!ct_params_at(params, i)->buffer) continue;
        for (int64_t k = 0; k < ct_tensor_count(x); k++)
            check(fabsf(ct_f32(x)[k] - ct_f32(y)[k]) <= 1e-5f * fmaxf(1, fabsf(ct_f32(x)[k])),
                  "%s: %s differs: %g and %g", v->name, ct_params_at(params, i)->name,
                  (double)ct_f32(x)[k], (double)ct_f32(y)[k]);
    }
}

/* All ranks hold the very same parameters. */
static void check_agreement(const variant *v, model *m)
{
    const ct_tensor values = ct_params_values(ct_clip_params(m->clip));
    const size_t bytes = ct_tensor_bytes(&values);
    char *all = malloc(bytes * (size_t)ranks->comm->size);
    check(all != NULL, "out of memory");
    must(ct_comm_gather_host(ranks->comm, all, values.data, bytes));
    for (int r = 1; r < ranks->comm->size; r++)
        check(memcmp(all, all + (size_t)r * bytes, bytes) == 0,
              "%s: parameters of rank %d are not those of rank 0", v->name, r);
    free(all);
}

/* Where a ReLU's input is nothing but rounding, two ways of adding may disagree on its sign, and
 * then on every gradient before it. Raising what the norms add keeps nearly all inputs clear of
 * zero. */
static void avoid_kinks(model *m)
{
    enum { WIDEST = 512 };
    ct_params *params = ct_clip_params(m->clip);
    float raised[WIDEST];
    for (int k = 0; k < WIDEST; k++) raised[k] = 3;
    for (int i = 0; i < ct_params_count(params); i++) {
        const ct_param *param = ct_params_at(params, i);
        if (param->group != CT_GROUP_IMAGE || !strstr(param->name, "bn")) continue;
        if (strstr(param->name, "bias"))
            must(ct_param_upload(params, param, &param->value, raised));
    }
}

/* How far the gradients of one rank move when its second half of pairs comes first. */
static double cost_of_another_order(const variant *v, model *one, const pairs *p)
{
    pairs *swapped = malloc(sizeof *swapped);
    model other;
    check(swapped != NULL, "out of memory");
    swap_halves(p, swapped);
    model_open(v, alone, BATCH, 0, &other);
    avoid_kinks(&other);
    run_backward(&other, swapped, 0, BATCH, 0);
    const double cost = worst_difference(v, one, &other, INFINITY);
    model_close(&other);
    free(swapped);
    return cost;
}

static double limit_of(const variant *v, model *one, const pairs *p)
{
    if (v->limit > MEASURED) return v->limit;
    const double cost = cost_of_another_order(v, one, p);
    return fmax(F32_LIMIT, 2 * cost);
}

static void compare(const variant *v, int micro)
{
    const int count = BATCH / ranks->comm->size, first = ranks->comm->rank * count;
    model one, shared;
    pairs *p = malloc(sizeof *p);
    double gradient = 0, curve = 0;
    check(p != NULL, "out of memory");
    model_open(v, alone, BATCH, micro, &one);
    model_open(v, ranks, count, 0, &shared);
    if (strstr(v->name, "resnet")) {
        avoid_kinks(&one);
        avoid_kinks(&shared);
    }
    for (int step = 0; step < STEPS; step++) {
        draw_pairs(step, p);
        run_backward(&one, p, 0, BATCH, step);
        run_backward(&shared, p, first, count, step);
        const double a = (double)loss_of(&one), b = (double)loss_of(&shared);
        curve = fmax(curve, fabs(a - b) / a);
        check(curve <= LOSS_LIMIT, "%s: step %d: the loss is %.7g with one rank, %.7g with several",
              v->name, step, a, b);
        if (step == 0) {
            gradient = worst_difference(v, &one, &shared, limit_of(v, &one, p));
            if (!micro) check_statistics(v, &one, &shared);
        }
        run_update(&one, step);
        run_update(&shared, step);
    }
    check_agreement(v, &shared);
    if (ranks->comm->rank == 0)
        printf("%d ranks, %s: first gradients differ by %.1e at most, losses of %d steps by %.1e\n",
               ranks->comm->size, v->name, gradient, STEPS, curve);
    model_close(&shared);
    model_close(&one);
    free(p);
}

/* BatchNorm of each rank's own photos, and dropout: what one rank with micro-batches of a rank's
 * size has. */
static void compare_micro_batches(void)
{
    static const variant dropout = {
        "vit, dropout, against micro-batches",
        {"image.encoder=vit", "text.dropout=0.1", "text.attention_dropout=0.1"},
        F32_LIMIT};
    static const variant own_statistics = {"resnet18, own statistics, against micro-batches",
                                           {"image.encoder=resnet18", SMALL_STEPS},
                                           MEASURED};
    compare(&dropout, BATCH / ranks->comm->size);
    compare(&own_statistics, BATCH / ranks->comm->size);
}

int main(int argc, char **argv)
{
    open_ranks(&argc, &argv);
    ranks = device_of_rank();
    alone = device_alone();
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) compare(&variants[i], 0);
    compare_micro_batches();
    close_ranks();
    return 0;
}
