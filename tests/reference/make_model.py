#!/usr/bin/env python3
"""Reference results for tests/model: small CLIP models in PyTorch (torchvision's ResNet, Hugging
Face's DistilBertModel over padded captions with a mask), trained for ten AdamW steps in float64.

Weights and inputs are not stored: both sides draw them from Philox4x32-10 under the parameter's
name (host/base/rng.h; `draw` below, tests/model/reference.c there). Stored per case: the
configuration, and of PyTorch's run

  loss, grad_norm            each step's
  text_features              of the first batch with the initial weights, evaluation mode
  image/text_embeddings      of the first batch after the last step, evaluation mode
  tensors.<name>             grad_norm and 16 entries of the first step's gradient, and of the
                             value after the last step

Each comes with what the same program makes of it in float32 (`*_f32`, an error relative to the
float64 result), which tells how well conditioned the number is.

    make_model.py --out tests/reference/data
"""
import argparse
import json
import math
import pathlib

import numpy
import torch
import torchvision
import transformers
from torch.nn import functional

SEED = 7
STEPS = 10
SAMPLES = 16
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


def initial_value(name, shape, bottleneck):
    """Uniform, with the spread of a usual initialisation; biases and scales are not trivial.

    Of the many activations of a ResNet some lie so close to zero that rounding decides which side
    of the ReLU they are on, and each such element changes the gradient of its layer by a
    thousandth. Larger biases before the ReLUs inside a block make that rare; smaller scales of a
    block's last norm (Goyal et al. 2017 start them at zero) keep gradients from growing with depth.
    """
    last = ".bn3." if bottleneck else ".bn2."
    shifted = name.startswith("image.") and last not in name
    count = math.prod(shape)
    centred = (draw(name, count) >> numpy.uint64(8)).astype(numpy.float64) * 2.0**-23 - 1.0
    if len(shape) == 4:  # filters: variance 2/(Co KH KW)
        value = math.sqrt(6.0 / (shape[0] * shape[2] * shape[3])) * centred
    elif len(shape) == 2:  # matrices and tables: variance 1/columns
        value = math.sqrt(3.0 / shape[1]) * centred
    elif name.endswith("bias"):
        value = (2.5 if shifted else 0.0) + 0.1 * centred
    else:
        value = (0.25 if last in name else 1.0) + 0.25 * centred
    return torch.from_numpy(value.astype(numpy.float32).reshape(shape))


def make_batch(index, size):
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
    return {
        "ids": torch.from_numpy(ids),
        "mask": torch.from_numpy(mask),
        "pixels": torch.from_numpy(pixels.astype(numpy.int64)),
        "photos": torch.tensor(PHOTOS[index]),
    }


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
    def __init__(self, config):
        super().__init__()
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
        features = self.image(pixels.to(dtype).contiguous())
        return functional.normalize(self.image_projection(features))

    def encode_texts(self, batch):
        return functional.normalize(self.text_projection(self.text_features(batch)))

    def loss(self, batch, same_image):
        image, text = self.encode_images(batch), self.encode_texts(batch)
        logits = self.logit_scale.exp() * image @ text.T
        same = batch["photos"][:, None] == batch["photos"][None, :]
        target = torch.eye(len(same), dtype=logits.dtype)
        if same_image == "mask":
            logits = logits.masked_fill(same & (target == 0), -1e300 if logits.dtype == torch.float64 else -1e30)
        elif same_image == "share":
            target = same.to(logits.dtype) / same.sum(1, keepdim=True)
        rows = functional.cross_entropy(logits, target)
        return (rows + functional.cross_entropy(logits.T, target)) / 2


def initialise(model):
    state, bottleneck = {}, "image.layer1.0.bn3.bias" in model.state_dict()
    for name, tensor in model.state_dict().items():
        if name == "logit_scale" or name.split(".")[-1].startswith(("running_", "num_batches")):
            state[name] = tensor
        else:
            state[name] = initial_value(name, tuple(tensor.shape), bottleneck)
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
            "weight_decay": config["train.weight_decay"] if parameter.dim() >= 2 else 0.0,
        }
        for name, parameter in model.named_parameters()
    ]
    betas = (config["train.beta1"], config["train.beta2"])
    return torch.optim.AdamW(groups, betas=betas, eps=config["train.eps"], foreach=False)


def run(config, dtype):
    """One training run: everything that is compared, as numpy arrays in float64."""
    torch.manual_seed(0)
    model = Clip(config).to(dtype)
    initialise(model)
    batches = [make_batch(i, config["image.size"]) for i in range(2)]
    optimizer = make_optimizer(model, config)
    result = {"loss": [], "grad_norm": [], "grads": {}, "values": {}}

    model.eval()
    with torch.no_grad():
        result["text_features"] = model.text_features(batches[0]).double().numpy()
    model.train()
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        loss = model.loss(batches[(step - 1) % 2], config["loss.same_image"])
        loss.backward()
        if step == 1:
            for name, parameter in model.named_parameters():
                result["grads"][name] = parameter.grad.double().numpy().copy()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config["train.clip_grad_norm"])
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * schedule(config, step)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100.0))
        result["loss"].append(loss.item())
        result["grad_norm"].append(norm.item())

    for name, tensor in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            result["values"][name] = tensor.double().numpy().copy()
    model.eval()
    with torch.no_grad():
        result["image_embeddings"] = model.encode_images(batches[0]).double().numpy()
        result["text_embeddings"] = model.encode_texts(batches[0]).double().numpy()
    return result


def sample(array):
    """16 entries spread by a multiplicative hash (or all of a smaller tensor)."""
    flat, count = array.reshape(-1), array.size
    if count <= SAMPLES:
        return flat
    return flat[[(i * 0x9E3779B1 + 12345) % count for i in range(SAMPLES)]]


def rms(array):
    return float(numpy.sqrt(numpy.mean(numpy.square(array))))


def rounded(values, digits=10):
    return [float(f"{value:.{digits}g}") for value in numpy.asarray(values).reshape(-1)]


def describe(config, exact, single):
    out = {
        "config": [f"{key}={value}" for key, value in config.items()],
        "vocabulary": VOCABULARY,
        "batches": [{"lengths": l, "photos": p} for l, p in zip(LENGTHS, PHOTOS)],
    }
    for key in ("loss", "grad_norm"):
        out[key] = rounded(exact[key], 12)
        error = numpy.abs(numpy.array(single[key]) / numpy.array(exact[key]) - 1)
        out[key + "_f32"] = rounded(error, 3)
    for key in ("text_features", "image_embeddings", "text_embeddings"):
        out[key] = rounded(exact[key], 8)
        out[key + "_f32"] = rounded([rms(single[key] - exact[key])], 3)[0]
    out["tensors"] = {}
    for name, value in exact["values"].items():
        entry = {
            "value": rounded(sample(value)),
            "value_f32": rounded([rms(single["values"][name] - value)], 3)[0],
        }
        if name in exact["grads"]:
            grad = exact["grads"][name]
            entry["grad_norm"] = rounded([numpy.linalg.norm(grad)])[0]
            entry["grad"] = rounded(sample(grad))
            entry["grad_f32"] = rounded([rms(single["grads"][name] - grad)], 3)[0]
        out["tensors"][name] = entry
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for model_*.json")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name, special in CASES.items():
        config = COMMON | special
        exact, single = run(config, torch.float64), run(config, torch.float32)
        text = json.dumps(describe(config, exact, single), indent=None, separators=(",", ":"))
        path = out / f"model_{name}.json"
        path.write_text(text.replace('},"', '},\n"') + "\n")
        print(f"{path}: {path.stat().st_size} bytes, loss {exact['loss'][0]:.6f} to "
              f"{exact['loss'][-1]:.6f}, float32 error {single['loss'][-1] / exact['loss'][-1] - 1:.1e}")  # fmt: skip


if __name__ == "__main__":
    main()
