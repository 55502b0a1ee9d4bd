#include "cudnn_plans/models.h"

#include <assert.h>
#include <string.h>

typedef struct listing {
    convolution *items;
    int count;
} listing;

static int64_t add(listing *list, int64_t pixels, int64_t inputs, int64_t outputs, int kernel,
                   int stride, int pad)
{
    convolution c;
    memset(&c, 0, sizeof c);
    c.pixels = pixels;
    c.inputs = inputs;
    c.outputs = outputs;
    c.kernel = kernel;
    c.stride = stride;
    c.pad = pad;
    const int64_t result = (pixels + 2 * pad - kernel) / stride + 1;
    for (int i = 0; i < list->count; i++)
        if (memcmp(&list->items[i], &c, sizeof c) == 0) return result;
    assert(list->count < MAX_CONVOLUTIONS);
    list->items[list->count++] = c;
    return result;
}

static void add_resnet(listing *list, const int blocks[4], int bottleneck)
{
    add(list, 224, 3, 64, 7, 2, 3);
    int64_t pixels = 56, inputs = 64;
    for (int stage = 0; stage < 4; stage++) {
        const int64_t width = (int64_t)64 << stage, outputs = bottleneck ? 4 * width : width;
        for (int block = 0; block < blocks[stage]; block++) {
            const int stride = stage > 0 && block == 0 ? 2 : 1;
            int64_t after;
            if (bottleneck) {
                add(list, pixels, inputs, width, 1, 1, 0);
                after = add(list, pixels, width, width, 3, stride, 1);
                add(list, after, width, outputs, 1, 1, 0);
            } else {
                after = add(list, pixels, inputs, width, 3, stride, 1);
                add(list, after, width, width, 3, 1, 1);
            }
            if (stride != 1 || inputs != outputs) add(list, pixels, inputs, outputs, 1, stride, 0);
            pixels = after;
            inputs = outputs;
        }
    }
}

int list_resnet_convolutions(convolution items[MAX_CONVOLUTIONS])
{
    listing list = {.items = items};
    add_resnet(&list, (int[]){2, 2, 2, 2}, 0);
    add_resnet(&list, (int[]){3, 4, 6, 3}, 0);
    add_resnet(&list, (int[]){3, 4, 6, 3}, 1);
    add_resnet(&list, (int[]){3, 4, 23, 3}, 1);
    return list.count;
}

int list_convolutions(convolution items[MAX_CONVOLUTIONS])
{
    listing list = {.items = items, .count = list_resnet_convolutions(items)};
    add(&list, 224, 3, 768, 32, 32, 0);
    add(&list, 224, 3, 768, 16, 16, 0);
    add(&list, 224, 3, 1024, 14, 14, 0);
    return list.count;
}
