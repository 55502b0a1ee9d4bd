#!/usr/bin/env python3
"""Reference results for tests/model: small CLIP models in PyTorch (torchvision's ResNet, timm's
VisionTransformer, Hugging Face's DistilBertModel over padded captions with a mask), trained for ten AdamW steps in float64.

Weights and inputs are not stored: both sides draw them from Philox4x32-10 under the parameter's
name (host/base/rng.h; `draw` below, tests/model/support.c there). Stored per case: the
configuration, and of PyTorch's run

  loss, grad_norm            each step's
  text_features              of the first batch with the initial weights, evaluation mode
  image/text_embeddings      of the first batch after the last step, evaluation mode
  tensors.<name>             `grad`, the first step's gradient, and `value` after the last step:
                             a sketch of 16 numbers (`sketch` below) and the root mean square
                             over the whole tensor (`*_rms`)

Each comes with the error that the same program makes in float32 (`*_f32`): the root mean square
over all entries, and over SINGLE_RUNS runs that differ only in the order of their sums. One run
would not do: its rounding errors are one draw, and often one cause moves many entries.

    make_model.py --out tests/reference/data
"""
import argparse
import functools
import json
import math
import pathlib

import numpy
import timm.models.vision_transformer
import torch
import torchvision
import transformers
from torch.nn import functional

SEED = 7
STEPS = 10
BUCKETS = 16
# Of a float32 run: how far the batch's rows are rotated, and the layout of images and filters.
SINGLE_RUNS = [
    (0, torch.contiguous_format), (0, torch.channels_last),
    (3, torch.contiguous_format), (3, torch.channels_last),
]  # fmt: skip
RNG_TEST = 7  # CT_RNG_TEST

COMMON = {
    "image.size": 64,
    "text.width": 128,
    "text.depth": 2,
    "text.heads": 2,
    "text.ffn": 256,
    "text.dropout": 0,
    "text.attention_dropout": 0,
    "projection.dim": 64,
    "projection.dropout": 0,
    "train.lr_image": 1e-5,
    "train.lr_text": 1e-5,
    "train.lr_head": 1e-4,
    "train.weight_decay": 0.1,
    "train.beta1": 0.9,
    "train.beta2": 0.98,
    "train.eps": 1e-6,
    "train.clip_grad_norm": 1,
    "train.warmup_steps": 3,
    "train.schedule": "cosine",
}
CASES = {
    "resnet18_linear": {
        "image.encoder": "resnet18",
        "projection.kind": "linear",
        "loss.same_image": "mask",
    },
    "resnet50_mlp": {
        "image.encoder": "resnet50",
        "projection.kind": "mlp",
        "loss.same_image": "share",
    },
    "vit_linear": {
        "image.encoder": "vit",
        "image.patch_size": 16,
        "image.width": 64,
        "image.depth": 2,
        "image.heads": 2,
        "image.ffn": 128,
        "projection.kind": "linear",
        "loss.same_image": "negative",
        "loss.label_smoothing": 0.1,
    },
}
VOCABULARY = 500
# Two batches, used in turn: captions' lengths and photos.
LENGTHS = [[5, 12, 3, 9, 17, 4, 8, 11], [7, 2, 16, 10, 6, 13, 9, 3]]
PHOTOS = [[0, 1, 2, 2, 3, 4, 5, 5], [6, 7, 8, 9, 10, 6, 11, 6]]


def fnv1a(name):
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def draw(name, count):
    """The first `count` 32-bit words of the stream called `name`."""
    stream = RNG_TEST << 56 | (fnv1a(name) & 0xFFFFFFFFFFFFFF)
    mask, shift = numpy.uint64(0xFFFFFFFF), numpy.uint64(32)
    index = numpy.arange((count + 3) // 4, dtype=numpy.uint64)
    c0, c1 = index & mask, index >> shift
    c2 = numpy.full_like(index, stream & 0xFFFFFFFF)
    c3 = numpy.full_like(index, stream >> 32)
    k0, k1 = SEED, 0
    for _ in range(10):
        p0, p1 = numpy.uint64(0xD2511F53) * c0, numpy.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (
            (p1 >> shift) ^ c1 ^ numpy.uint64(k0), p1 & mask,
            (p0 >> shift) ^ c3 ^ numpy.uint64(k1), p0 & mask,
        )  # fmt: skip
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return numpy.stack([c0, c1, c2, c3], axis=1).reshape(-1)[:count]


@functools.cache
def initial_value(name, shape, tower):
    """Uniform, with the spread of a usual initialisation; biases and scales are not trivial.

    Of the many activations of a ResNet some lie so close to zero that rounding decides which side
    of the ReLU they are on, and each such element changes the gradient of its layer by a
    thousandth. Larger biases before the ReLUs inside a block make that rare; smaller scales of a
    block's last norm (Goyal et al. 2017 start them at zero) keep gradients from growing with depth.
    """
    last = {"bottleneck": ".bn3.", "basic": ".bn2."}.get(tower, ".none.")
    shifted = name.startswith("image.") and last not in name and tower != "vit"
    count = math.prod(shape)
    centred = (draw(name, count) >> numpy.uint64(8)).astype(numpy.float64) * 2.0**-23 - 1.0
    if len(shape) == 4:  # filters: variance 2/(Co KH KW)
        value = math.sqrt(6.0 / (shape[0] * shape[2] * shape[3])) * centred
    elif len(shape) == 3:  # a ViT's class token and positions
        value = 0.5 * centred
    elif len(shape) == 2:  # matrices and tables: variance 1/columns
        value = math.sqrt(3.0 / shape[1]) * centred
    elif name.endswith("bias"):
        value = (2.5 if shifted else 0.0) + 0.1 * centred
    else:
        value = (0.25 if last in name else 1.0) + 0.25 * centred
    return torch.from_numpy(value.astype(numpy.float32).reshape(shape))


def make_batch(index, size, shift):
    lengths = LENGTHS[index]
    tokens = draw(f"tokens.{index}", sum(lengths)) * numpy.uint64(VOCABULARY) >> numpy.uint64(32)
    ids = numpy.zeros((len(lengths), max(lengths)), dtype=numpy.int64)
    mask = numpy.zeros_like(ids)
    begin = 0
    for row, length in enumerate(lengths):
        ids[row, :length] = tokens[begin : begin + length]
        mask[row, :length] = 1
        begin += length
    # A coarse pattern of 8 x 8 squares under fine noise.
    count, squares, byte = len(lengths), size // 8, numpy.uint64(255)
    coarse = (draw(f"coarse.{index}", count * squares * squares * 3) & byte).reshape(
        count, squares, squares, 3
    )
    fine = (draw(f"fine.{index}", count * size * size * 3) & byte).reshape(count, size, size, 3)
    pixels = (3 * coarse.repeat(8, axis=1).repeat(8, axis=2) + fine) // numpy.uint64(4)
    batch = {
        "ids": torch.from_numpy(ids),
        "mask": torch.from_numpy(mask),
        "pixels": torch.from_numpy(pixels.astype(numpy.int64)),
        "photos": torch.tensor(PHOTOS[index]),
    }
    return {key: torch.roll(rows, shift, 0) for key, rows in batch.items()}


class MlpProjection(torch.nn.Module):
    def __init__(self, features, dim):
        super().__init__()
        self.fc1 = torch.nn.Linear(features, dim)
        self.fc2 = torch.nn.Linear(dim, dim)
        self.norm = torch.nn.LayerNorm(dim)

    def forward(self, x):
        hidden = self.fc1(x)
        return self.norm(hidden + self.fc2(functional.gelu(hidden)))


class Clip(torch.nn.Module):
    def __init__(self, config, layout):
        super().__init__()
        self.layout = layout
        if config["image.encoder"] == "vit":
            features = config["image.width"]
            self.image = timm.models.vision_transformer.VisionTransformer(
                img_size=config["image.size"],
                patch_size=config["image.patch_size"],
                embed_dim=features,
                depth=config["image.depth"],
                num_heads=config["image.heads"],
                mlp_ratio=config["image.ffn"] / features,
                num_classes=0,
            )
        else:
            self.image = getattr(torchvision.models, config["image.encoder"])(weights=None)
            features = self.image.fc.in_features
            self.image.fc = torch.nn.Identity()
        self.text = transformers.DistilBertModel(
            transformers.DistilBertConfig(
                vocab_size=VOCABULARY,
                max_position_embeddings=512,
                n_layers=config["text.depth"],
                n_heads=config["text.heads"],
                dim=config["text.width"],
                hidden_dim=config["text.ffn"],
                dropout=0.0,
                attention_dropout=0.0,
                attn_implementation="eager",
            )
        )
        dim = config["projection.dim"]
        if config["projection.kind"] == "linear":
            self.image_projection = torch.nn.Linear(features, dim, bias=False)
            self.text_projection = torch.nn.Linear(config["text.width"], dim, bias=False)
        else:
            self.image_projection = MlpProjection(features, dim)
            self.text_projection = MlpProjection(config["text.width"], dim)
        # As a float32 number on both sides.
        scale = numpy.float32(math.log(1.0 / 0.07)).item()
        self.logit_scale = torch.nn.Parameter(torch.tensor([scale], dtype=torch.float64))

    def text_features(self, batch):
        return self.text(input_ids=batch["ids"], attention_mask=batch["mask"]).last_hidden_state[:, 0]

    def encode_images(self, batch):
        dtype = self.logit_scale.dtype
        mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)
        std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)
        pixels = ((batch["pixels"].double() / 255 - mean) / std).permute(0, 3, 1, 2)
        features = self.image(pixels.to(dtype).contiguous(memory_format=self.layout))
        return functional.normalize(self.image_projection(features))

    def encode_texts(self, batch):
        return functional.normalize(self.text_projection(self.text_features(batch)))

    def loss(self, batch, same_image, smoothing):
        image, text = self.encode_images(batch), self.encode_texts(batch)
        logits = self.logit_scale.exp() * image @ text.T
        same = batch["photos"][:, None] == batch["photos"][None, :]
        target = torch.eye(len(same), dtype=logits.dtype)
        if same_image == "mask":
            logits = logits.masked_fill(same & (target == 0), -1e300 if logits.dtype == torch.float64 else -1e30)
        elif same_image == "share":
            target = same.to(logits.dtype) / same.sum(1, keepdim=True)
        rows = functional.cross_entropy(logits, target, label_smoothing=smoothing)
        columns = functional.cross_entropy(logits.T, target, label_smoothing=smoothing)
        return (rows + columns) / 2


def initialise(model):
    state, names = {}, model.state_dict().keys()
    tower = "vit" if "image.cls_token" in names else "basic"
    if "image.layer1.0.bn3.bias" in names:
        tower = "bottleneck"
    for name, tensor in model.state_dict().items():
        if name == "logit_scale" or name.split(".")[-1].startswith(("running_", "num_batches")):
            state[name] = tensor
        else:
            state[name] = initial_value(name, tuple(tensor.shape), tower)
    model.load_state_dict(state)


def schedule(config, step):
    warmup = config["train.warmup_steps"]
    if step <= warmup:
        return step / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - 1 - warmup) / (STEPS - warmup)))


def make_optimizer(model, config):
    def rate(name):
        tower = name.split(".")[0]
        return config[{"image": "train.lr_image", "text": "train.lr_text"}.get(tower, "train.lr_head")]

    groups = [
        {
            "params": [parameter],
            "lr": rate(name),
            "base_lr": rate(name),
            # Filters, matrices and tables; not a ViT's class token and positions, as in timm.
            "weight_decay": config["train.weight_decay"] if parameter.dim() in (2, 4) else 0.0,
        }
        for name, parameter in model.named_parameters()
    ]
    betas = (config["train.beta1"], config["train.beta2"])
    return torch.optim.AdamW(groups, betas=betas, eps=config["train.eps"], foreach=False)


def run(config, dtype, shift=0, layout=torch.contiguous_format):
    """One training run: everything that is compared, as numpy arrays in float64."""
    torch.manual_seed(0)
    model = Clip(config, layout).to(dtype)
    initialise(model)
    model.image.to(memory_format=layout)
    batches = [make_batch(i, config["image.size"], shift) for i in range(2)]
    optimizer = make_optimizer(model, config)
    result = {"loss": [], "grad_norm": [], "grads": {}, "values": {}}

    model.eval()
    with torch.no_grad():
        rows = model.text_features(batches[0]).double()
        result["text_features"] = torch.roll(rows, -shift, 0).numpy()
    model.train()
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        smoothing = config.get("loss.label_smoothing", 0.0)
        loss = model.loss(batches[(step - 1) % 2], config["loss.same_image"], smoothing)
        loss.backward()
        if step == 1:
            for name, parameter in model.named_parameters():
                result["grads"][name] = parameter.grad.double().numpy().copy()
        # Not what clip_grad_norm_ returns: its float32 sum is less exact than the gradients.
        grads = [parameter.grad.double() for parameter in model.parameters()]
        squares = sum(grad.square().sum().item() for grad in grads)
        torch.nn.utils.clip_grad_norm_(model.parameters(), config["train.clip_grad_norm"])
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * schedule(config, step)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100.0))
        result["loss"].append(loss.item())
        result["grad_norm"].append(math.sqrt(squares))

    result["loss"], result["grad_norm"] = map(numpy.array, (result["loss"], result["grad_norm"]))
    for name, tensor in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            result["values"][name] = tensor.double().numpy().copy()
    model.eval()
    with torch.no_grad():
        for key, encode in (("image", model.encode_images), ("text", model.encode_texts)):
            rows = encode(batches[0]).double()
            result[key + "_embeddings"] = torch.roll(rows, -shift, 0).numpy()
    return result


def sketch(array):
    """Sums of the entries i = k modulo 16 (k = 0 to 15), each with a random sign.

    The signs make the expected sum of squares of two tensors' differing sketches that of the whole
    tensors' difference (Charikar, Chen, Farach-Colton: "Finding frequent items in data streams",
    2002). A tensor of no more than 16 entries is its own sketch but for signs.
    """
    flat = array.reshape(-1)
    words = draw("signs", (flat.size + 31) // 32).astype("<u4")
    bits = numpy.unpackbits(words.view(numpy.uint8), bitorder="little")[: flat.size]
    buckets = numpy.zeros(-(-flat.size // BUCKETS) * BUCKETS)
    buckets[: flat.size] = numpy.where(bits == 1, -flat, flat)
    return buckets.reshape(-1, BUCKETS).sum(0)[: flat.size]


def rms(array):
    return float(numpy.sqrt(numpy.mean(numpy.square(array))))


def rounded(values, digits=10):
    return [float(f"{value:.{digits}g}") for value in numpy.asarray(values).reshape(-1)]


def describe(config, exact, singles):
    def f32_error(pick, unit=1.0):
        error = rms([rms((pick(single) - pick(exact)) / unit) for single in singles])
        return rounded([error], 3)[0]

    out = {
        "config": [f"{key}={value}" for key, value in config.items()],
        "vocabulary": VOCABULARY,
        "batches": [{"lengths": l, "photos": p} for l, p in zip(LENGTHS, PHOTOS)],
    }
    for key in ("loss", "grad_norm"):
        out[key] = rounded(exact[key], 12)
        out[key + "_f32"] = f32_error(lambda result: result[key], unit=exact[key])
    for key in ("text_features", "image_embeddings", "text_embeddings"):
        out[key] = rounded(exact[key], 8)
        out[key + "_f32"] = f32_error(lambda result: result[key])
    out["tensors"] = {}
    for name in exact["values"]:
        entry = out["tensors"][name] = {}
        for key, kind in (("grad", "grads"), ("value", "values")):
            if name in exact[kind]:
                entry[key] = rounded(sketch(exact[kind][name]))
                entry[key + "_rms"] = rounded([rms(exact[kind][name])], 6)[0]
                entry[key + "_f32"] = f32_error(lambda result: result[kind][name])
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for model_*.json")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name, special in CASES.items():
        config = COMMON | special
        exact = run(config, torch.float64)
        singles = [run(config, torch.float32, *order) for order in SINGLE_RUNS]
        reference = describe(config, exact, singles)
        text = json.dumps(reference, indent=None, separators=(",", ":"))
        path = out / f"model_{name}.json"
        path.write_text(text.replace('},"', '},\n"') + "\n")
        print(f"{path}: {path.stat().st_size} bytes, loss {exact['loss'][0]:.6f} to "
              f"{exact['loss'][-1]:.6f}, float32 error {reference['loss_f32']:.1e}")  # fmt: skip


if __name__ == "__main__":
    main()
