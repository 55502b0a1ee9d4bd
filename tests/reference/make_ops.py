#!/usr/bin/env python3
"""PyTorch's results for op cases of tests/op: inputs, outputs and gradients, computed in float64
from float32 inputs and stored as float32.

ops.bin holds the numbers, ops.txt one line for each array in it:
    <case> <slot> value|gradient given|result <offset> <count>
Cases, their shapes and their slots are those of tests/op/cases_*.c; images are NHWC, weights of
convolutions (Co, KH, KW, Ci).

    make_ops.py --out tests/reference/data
"""
import argparse
import pathlib

import numpy
import torch
from torch.nn import functional

SEED = 11


class Recorder:
    """Collects arrays in order; draws inputs."""

    def __init__(self):
        self.arrays = []
        self.lines = []
        self.count = 0
        self.case = None
        self.generator = torch.Generator().manual_seed(SEED)

    def add(self, slot, part, use, array):
        array = array.detach().to(torch.float32).contiguous().numpy().ravel()
        self.lines.append(f"{self.case} {slot} {part} {use} {self.count} {array.size}")
        self.arrays.append(array)
        self.count += array.size

    def take(self, slot, tensor, gradient=False):
        """`tensor`, rounded to float32, as something the case is given; returned in float64."""
        tensor = tensor.to(torch.float32)
        self.add(slot, "gradient" if gradient else "value", "given", tensor)
        return tensor.to(torch.float64)

    def normal(self, slot, *shape, scale=1.0):
        drawn = torch.randn(*shape, generator=self.generator, dtype=torch.float64) * scale
        return self.take(slot, drawn).requires_grad_()

    def result(self, slot, tensor):
        self.add(slot, "value", "result", tensor)

    def backward(self, outputs, inputs):
        """Draws the outputs' gradients (slot -> tensor), records both sides' numbers."""
        gradients = [
            self.take(slot, torch.randn(y.shape, generator=self.generator), gradient=True)
            for slot, y in outputs.items()
        ]
        found = torch.autograd.grad(list(outputs.values()), list(inputs.values()), gradients)
        for slot, y in outputs.items():
            self.result(slot, y)
        for slot, gradient in zip(inputs, found):
            self.add(slot, "gradient", "result", gradient)


def nchw(x):
    return x.permute(0, 3, 1, 2)


def nhwc(x):
    return x.permute(0, 2, 3, 1)


def conv2d(r, n, h, w, ci, co, kh, kw, stride, pad, bias):
    inputs = {"x": r.normal("x", n, h, w, ci), "w": r.normal("w", co, kh, kw, ci)}
    if bias:
        inputs["bias"] = r.normal("bias", co)
    y = functional.conv2d(nchw(inputs["x"]), nchw(inputs["w"]), inputs.get("bias"), stride, pad)
    r.backward({"y": nhwc(y)}, inputs)


def batchnorm(r, n, h, w, c, relu, residual, training=True):
    names = ["x"] + ["residual"] * residual
    inputs = {name: r.normal(name, n, h, w, c) for name in names}
    inputs |= {name: r.normal(name, c) for name in ("gamma", "beta")}
    running_mean = r.normal("running_mean", c).detach()
    running_var = r.take("running_var", torch.rand(c, generator=r.generator) + 0.5)
    # eps and momentum as the f32 numbers that C passes.
    eps, momentum = float(numpy.float32(1e-5)), float(numpy.float32(0.1))
    y = nhwc(functional.batch_norm(nchw(inputs["x"]), running_mean, running_var, inputs["gamma"],
                                   inputs["beta"], training, momentum, eps))
    if residual:
        y = y + inputs["residual"]
    if relu:
        y = functional.relu(y)
    if not training:
        r.result("y", y)
        return
    r.backward({"y": y}, inputs)
    r.result("running_mean", running_mean)
    r.result("running_var", running_var)


def maxpool(r, n, h, w, c, window, stride, pad):
    x = r.normal("x", n, h, w, c)
    y = functional.max_pool2d(nchw(x), window, stride, pad)
    r.backward({"y": nhwc(y)}, {"x": x})


def avgpool(r, n, h, w, c):
    x = r.normal("x", n, h, w, c)
    r.backward({"y": functional.adaptive_avg_pool2d(nchw(x), 1).flatten(1)}, {"x": x})


def activate(x, act):
    if act == "gelu":
        return functional.gelu(x)
    if act == "quick_gelu":
        return x * torch.sigmoid(1.702 * x)
    return functional.relu(x) if act == "relu" else x


def linear(r, m, k, n, bias, act=None):
    inputs = {"x": r.normal("x", m, k), "w": r.normal("w", n, k, scale=k**-0.5)}
    if bias:
        inputs["bias"] = r.normal("bias", n)
    y = functional.linear(inputs["x"], inputs["w"], inputs.get("bias"))
    r.backward({"y": activate(y, act)}, inputs)


def activation(r, count, act):
    x = r.normal("x", count, scale=3)
    r.backward({"y": activate(x, act)}, {"x": x})


def layernorm(r, rows, width, eps, skip):
    names = ["x", "residual"]
    inputs = {name: r.normal(name, rows, width) for name in names}
    inputs |= {name: r.normal(name, width) for name in ("gamma", "beta")}
    total = inputs["x"] + inputs["residual"]
    outputs = {
        "y": functional.layer_norm(total, (width,), inputs["gamma"], inputs["beta"], eps)
    }
    if skip:
        outputs["sum"] = total
    r.backward(outputs, inputs)


def l2norm(r, rows, width):
    x = r.normal("x", rows, width)
    r.backward({"y": functional.normalize(x)}, {"x": x})


def embedding(r, tokens, vocabulary, positions, width, types):
    ids = r.take("ids", torch.randint(vocabulary, (tokens,), generator=r.generator)).long()
    places = r.take("positions", torch.arange(tokens) % positions).long()
    inputs = {"word": r.normal("word", vocabulary, width)}
    inputs["position"] = r.normal("position", positions, width)
    y = functional.embedding(ids, inputs["word"])
    y = y + functional.embedding(places, inputs["position"])
    if types:
        inputs["type"] = r.normal("type", types, width)
        y = y + functional.embedding(torch.zeros_like(ids), inputs["type"])
    r.backward({"y": y}, inputs)


def gather_rows(r, rows, width, gathered):
    x = r.normal("x", rows, width)
    index = r.take("index", torch.randperm(rows, generator=r.generator)[:gathered]).long()
    r.backward({"y": x[index]}, {"x": x})


def attention(r, lengths, heads, depth, causal):
    total = sum(lengths)
    qkv = r.normal("qkv", total, 3, heads, depth)
    r.take("cu_seqlens", torch.tensor([0] + lengths).cumsum(0))
    parts = []
    for rows in qkv.split(lengths):
        q, k, v = rows.permute(1, 2, 0, 3)  # each (heads, length, depth)
        o = functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        parts.append(o.permute(1, 0, 2))
    r.backward({"o": torch.cat(parts)}, {"qkv": qkv})


def pair_inputs(r, count, width, factor, photos):
    """What both contrastive losses are given, and which pairs show the same photo."""
    def embeddings(slot):
        drawn = torch.randn(count, width, generator=r.generator, dtype=torch.float64)
        return r.take(slot, functional.normalize(drawn)).requires_grad_()

    inputs = {"image": embeddings("image"), "text": embeddings("text")}
    inputs["logit_scale"] = r.take("logit_scale", torch.tensor([factor]).log()).requires_grad_()
    ids = r.take("photo_ids", torch.arange(count) % photos)
    return inputs, ids[:, None] == ids[None, :]


def pair_results(r, inputs, loss):
    """loss: each rank's share of it."""
    gradient = r.take("loss", torch.ones_like(loss), gradient=True)
    found = torch.autograd.grad([loss], list(inputs.values()), [gradient])
    r.result("loss", loss)
    for slot, array in zip(inputs, found):
        r.add(slot, "gradient", "result", array)


def cross_entropies(logits, same, same_image, smoothing):
    """One number a row; with distinct photos or "negative" those of open_clip's ClipLoss."""
    labels = torch.arange(len(logits))
    options = {"reduction": "none", "label_smoothing": smoothing}
    if same_image == "share":
        targets = same.double() / same.sum(1, keepdim=True)
        return functional.cross_entropy(logits, targets, **options)
    if same_image == "negative":
        return functional.cross_entropy(logits, labels, **options)
    rows = []
    for i, row in enumerate(logits):  # each over the pairs that it counts
        counted = ~same[i] | (labels == i)
        place = counted[:i].sum()
        rows.append(functional.cross_entropy(row[counted], place, **options))
    return torch.stack(rows)


def clip_loss(r, count, width, same_image, factor, photos, smoothing=0.0, first_rows=(0,)):
    """first_rows: of each rank. With several of them targets must be the own pairs alone: others
    count for the rank of their row, here for those of their row and of their column."""
    inputs, same = pair_inputs(r, count, width, factor, photos)
    smoothing = float(numpy.float32(smoothing))  # as C passes it
    image, text = inputs["image"], inputs["text"]
    logits_per_image = inputs["logit_scale"].exp() * image @ text.T
    logits_per_text = inputs["logit_scale"].exp() * text @ image.T
    rows = cross_entropies(logits_per_image, same, same_image, smoothing)
    rows = (rows + cross_entropies(logits_per_text, same, same_image, smoothing)) / 2
    shares = [part.sum() / count for part in rows.tensor_split(first_rows[1:])]
    pair_results(r, inputs, torch.stack(shares))


def siglip_loss(r, count, width, same_image, factor, photos, bias, first_rows=(0,)):
    """With distinct photos or "negative" open_clip's SigLipLoss."""
    inputs, same = pair_inputs(r, count, width, factor, photos)
    inputs["logit_bias"] = r.take("logit_bias", torch.tensor([-bias])).requires_grad_()
    logits = inputs["logit_scale"].exp() * inputs["image"] @ inputs["text"].T
    logits = logits + inputs["logit_bias"]
    eye = torch.eye(count, dtype=torch.bool)
    labels = 2 * (same if same_image == "share" else eye).double() - 1
    losses = -functional.logsigmoid(labels * logits)
    if same_image == "mask":
        losses = losses * (~same | eye)
    shares = [part.sum() / count for part in losses.tensor_split(first_rows[1:])]
    pair_results(r, inputs, torch.stack(shares))


def adamw(r, first, second, steps, max_norm):
    """Two tensors, as in tests/op/cases_optimizer.c: the second has its own rate and no decay."""
    values = r.take("value", torch.randn(first + second, generator=r.generator))
    for slot in ("exp_avg", "exp_avg_sq"):
        r.take(slot, torch.zeros(first + second))
    grads = r.take("grads", torch.randn(steps, first + second, generator=r.generator))
    rates, decays = (1e-2, 5e-2), (0.2, 0.0)
    parameters = [values[:first].clone(), values[first:].clone()]
    groups = [
        {"params": [p], "lr": lr, "weight_decay": wd}
        for p, lr, wd in zip(parameters, rates, decays)
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-6)
    for step in range(steps):
        for group, rate in zip(optimizer.param_groups, rates):
            group["lr"] = rate / (1 + 0.1 * (step + 1))
        parameters[0].grad = grads[step, :first].clone()
        parameters[1].grad = grads[step, first:].clone()
        if max_norm:
            torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        optimizer.step()
    state = [optimizer.state[p] for p in parameters]
    r.result("value", torch.cat(parameters))
    for slot in ("exp_avg", "exp_avg_sq"):
        r.result(slot, torch.cat([s[slot] for s in state]))


CASES = {
    "conv_tiny": lambda r: conv2d(r, 1, 3, 3, 2, 3, 3, 3, 1, 1, True),
    "conv_stem": lambda r: conv2d(r, 2, 21, 19, 3, 16, 7, 7, 2, 3, False),
    "conv_3x3_even_stride": lambda r: conv2d(r, 1, 8, 8, 16, 16, 3, 3, 2, 1, False),
    "conv_1x1_stride": lambda r: conv2d(r, 2, 8, 8, 16, 32, 1, 1, 2, 0, False),
    "conv_1x1_pixel": lambda r: conv2d(r, 1, 1, 1, 5, 7, 1, 1, 1, 0, True),
    "conv_odd_channels": lambda r: conv2d(r, 2, 6, 5, 13, 21, 3, 3, 1, 1, True),
    "conv_1x3": lambda r: conv2d(r, 1, 5, 9, 4, 6, 1, 3, 1, 0, False),
    "batchnorm_plain": lambda r: batchnorm(r, 2, 3, 5, 16, False, False),
    "batchnorm_relu": lambda r: batchnorm(r, 2, 5, 5, 33, True, False),
    "batchnorm_residual_relu": lambda r: batchnorm(r, 2, 7, 3, 24, True, True),
    "batchnorm_eval_residual_relu": lambda r: batchnorm(r, 2, 3, 4, 17, True, True, False),
    "maxpool_stem": lambda r: maxpool(r, 2, 9, 11, 16, 3, 2, 1),
    "maxpool_overlap": lambda r: maxpool(r, 1, 5, 5, 3, 3, 1, 1),
    "avgpool_head": lambda r: avgpool(r, 3, 7, 7, 40),
    "linear_tiny": lambda r: linear(r, 2, 3, 5, True),
    "linear_plain": lambda r: linear(r, 17, 32, 24, False),
    "linear_relu": lambda r: linear(r, 9, 16, 16, True, "relu"),
    "linear_gelu": lambda r: linear(r, 13, 32, 67, True, "gelu"),
    "linear_quick_gelu": lambda r: linear(r, 5, 24, 33, True, "quick_gelu"),
    "gelu": lambda r: activation(r, 1003, "gelu"),
    "quick_gelu": lambda r: activation(r, 1003, "quick_gelu"),
    "layernorm_5x20_residual": lambda r: layernorm(r, 5, 20, 1e-12, False),
    "layernorm_6x9_residual_skip": lambda r: layernorm(r, 6, 9, 1e-5, True),
    "l2norm_7x13": lambda r: l2norm(r, 7, 13),
    "embedding_11_of_5": lambda r: embedding(r, 11, 5, 6, 7, 0),
    "embedding_9_of_4_type": lambda r: embedding(r, 9, 4, 3, 18, 2),
    "gather_rows_4_of_11": lambda r: gather_rows(r, 11, 5, 4),
    "attention_small": lambda r: attention(r, [3, 1, 0, 5], 2, 5, False),
    "attention_small_causal": lambda r: attention(r, [3, 1, 0, 5], 1, 4, True),
    "clip_loss_6_distinct": lambda r: clip_loss(r, 6, 5, "mask", 14, 6),
    "clip_loss_7_mask": lambda r: clip_loss(r, 7, 5, "mask", 14, 3),
    "clip_loss_7_share": lambda r: clip_loss(r, 7, 5, "share", 14, 3),
    "clip_loss_7_negative": lambda r: clip_loss(r, 7, 5, "negative", 14, 3),
    "clip_loss_2_scale_1": lambda r: clip_loss(r, 2, 3, "mask", 1, 2),
    "adamw_1_step": lambda r: adamw(r, 7, 1, 1, 0),
    "adamw_10_steps": lambda r: adamw(r, 33, 5, 10, 0),
    "adamw_10_steps_clipped": lambda r: adamw(r, 33, 5, 10, 1.0),
    "clip_loss_7_mask_smoothed": lambda r: clip_loss(r, 7, 5, "mask", 14, 3, 0.1),
    "clip_loss_7_share_smoothed": lambda r: clip_loss(r, 7, 5, "share", 14, 3, 0.3),
    "clip_loss_7_negative_smoothed": lambda r: clip_loss(r, 7, 5, "negative", 14, 3, 0.2),
    "clip_loss_8_mask_2_ranks": lambda r: clip_loss(r, 8, 5, "mask", 14, 5, 0.0, (0, 1)),
    "siglip_loss_6_distinct": lambda r: siglip_loss(r, 6, 5, "mask", 10, 6, 10.0),
    "siglip_loss_7_mask": lambda r: siglip_loss(r, 7, 5, "mask", 10, 3, 3.0),
    "siglip_loss_7_share": lambda r: siglip_loss(r, 7, 5, "share", 10, 3, 3.0),
    "siglip_loss_7_negative": lambda r: siglip_loss(r, 7, 5, "negative", 10, 3, 3.0),
    "siglip_loss_8_3_ranks": lambda r: siglip_loss(r, 8, 5, "share", 10, 5, 3.0, (0, 1, 3)),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write to")
    out = parser.parse_args().out
    recorder = Recorder()
    for name, make in CASES.items():
        recorder.case = name
        make(recorder)
    numpy.concatenate(recorder.arrays).astype("<f4").tofile(out / "ops.bin")
    (out / "ops.txt").write_text("\n".join(recorder.lines) + "\n")


if __name__ == "__main__":
    main()
