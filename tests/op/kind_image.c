#include "kinds.h"

enum { P_N, P_H, P_W };
enum { X, Y };

/* ImageNet's, as torchvision's models want them. */
static const float mean[3] = {0.485f, 0.456f, 0.406f}, std[3] = {0.229f, 0.224f, 0.225f};

static void setup(ct_case_run *run)
{
    const int64_t *p = run->p, dims[] = {p[P_N], p[P_H], p[P_W], 3, 0};
    ct_case_slot(run, X, "x", CT_SLOT_CONST, CT_U8, dims, false);
    ct_case_slot(run, Y, "y", CT_SLOT_OUTPUT, CT_CASE_COMPUTE, dims, false);
}

static void fill(ct_case_run *run)
{
    for (int64_t i = 0; i < run->slot[X].count; i++)
        run->slot[X].v[i] = (double)ct_case_below(run, X, i, 256);
}

static void ref_fwd(ct_case_run *run)
{
    for (int64_t i = 0; i < run->slot[Y].count; i++)
        run->slot[Y].v[i] = (run->slot[X].v[i] / 255 - (double)mean[i % 3]) / (double)std[i % 3];
}

static ct_status fwd(ct_case_run *run)
{
    ct_image_normalize_fwd_args args = {.y = run->slot[Y].t, .x = run->slot[X].t};
    for (int c = 0; c < 3; c++) {
        args.mean[c] = mean[c];
        args.std[c] = std[c];
    }
    return ct_op_image_normalize_fwd(&run->exec, &args);
}

static double flops(const int64_t *p, bool backward)
{
    return backward ? 0 : 2.0 * 3 * (double)(p[P_N] * p[P_H] * p[P_W]);
}

const ct_kind ct_kind_image_normalize = {
    .name = "image_normalize",
    .setup = setup,
    .fill = fill,
    .ref_fwd = ref_fwd,
    .fwd = fwd,
    .flops = flops,
};
