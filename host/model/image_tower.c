#include "model/image_tower.h"

#include <stdlib.h>

#include "model/resnet.h"
#include "model/vit.h"

struct ct_image_tower {
    ct_resnet *resnet; /* one of the two; the other is NULL */
    ct_vit *vit;
    int64_t features;
};

static ct_status create(ct_image_tower *tower, ct_params *params, ct_device *device,
                        const ct_config *config, int32_t batch)
{
    if (config->image.encoder != CT_VIT) {
        CT_TRY(ct_resnet_create(params, config->image.encoder, &tower->resnet));
        tower->features = ct_resnet_features(tower->resnet);
        return CT_OK;
    }
    const ct_vit_config vit = {.size = config->image.size,
                               .patch = config->image.patch_size,
                               .width = config->image.width,
                               .depth = config->image.depth,
                               .heads = config->image.heads,
                               .ffn = config->image.ffn,
                               .batch = batch};
    tower->features = vit.width;
    return ct_vit_create(params, device, &vit, &tower->vit);
}

ct_status ct_image_tower_create(ct_params *params, ct_device *device, const ct_config *config,
                                int32_t batch, ct_image_tower **out)
{
    ct_image_tower *tower;
    CT_TRY(ct_alloc(1, sizeof *tower, "the image tower", &tower));
    const ct_status status = create(tower, params, device, config, batch);
    if (status == CT_OK) *out = tower;
    else ct_image_tower_destroy(tower);
    return status;
}

void ct_image_tower_destroy(ct_image_tower *tower)
{
    if (!tower) return;
    ct_resnet_destroy(tower->resnet);
    ct_vit_destroy(tower->vit);
    free(tower);
}

int64_t ct_image_tower_features(const ct_image_tower *tower)
{
    return tower->features;
}

ct_status ct_image_tower_forward(ct_image_tower *tower, const ct_exec *exec, const ct_tensor *x,
                                 const ct_tensor *features)
{
    return tower->vit ? ct_vit_forward(tower->vit, exec, x, features)
                      : ct_resnet_forward(tower->resnet, exec, x, features);
}

ct_status ct_image_tower_backward(ct_image_tower *tower, const ct_exec *exec,
                                  const ct_tensor *dfeatures)
{
    return tower->vit ? ct_vit_backward(tower->vit, exec, dfeatures)
                      : ct_resnet_backward(tower->resnet, exec, dfeatures);
}
