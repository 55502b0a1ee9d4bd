#!/usr/bin/env python3
"""Photos a second of processor time of Pillow and torchvision, for comparison with image_benchmark.

    image_torchvision.py FOLDER [--rounds 5] [--size 224] [--scale 0.08 1.0]
    image_torchvision.py FOLDER --make 64    writes photos of 500 x 375 pixels there first
"""
import argparse
import pathlib
import statistics
import time

import numpy
import torch
from PIL import Image
from torchvision import transforms


def make(folder, count):
    """Structure and noise, at quality 95 about as large as the photos of Flickr8k."""
    folder.mkdir(parents=True, exist_ok=True)
    y, x = numpy.mgrid[0:375, 0:500].astype(float)
    for i in range(count):
        rng = numpy.random.default_rng(i)
        pixels = numpy.zeros((375, 500, 3))
        for _ in range(12):
            frequency = rng.uniform(-0.15, 0.15, 2)
            wave = numpy.sin(frequency[0] * x + frequency[1] * y + rng.uniform(0, 6.3))
            pixels += wave[..., None] * rng.uniform(-25, 25, 3)
        noise = rng.normal(0, 1, (375, 500, 1)) * rng.uniform(7, 11)
        pixels = (pixels + 128 + noise).clip(0, 255).astype(numpy.uint8)
        Image.fromarray(pixels, "RGB").save(folder / f"{i:04}.jpg", quality=95)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--scale", type=float, nargs=2, default=(0.08, 1.0))
    parser.add_argument("--make", type=int, default=0, metavar="COUNT")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if arguments.make:
        make(arguments.folder, arguments.make)
    paths = sorted(arguments.folder.glob("*.jpg"))
    if not paths:
        parser.error(f"{arguments.folder}: holds no .jpg files")
    view = transforms.Compose([
        transforms.RandomResizedCrop(arguments.size, scale=arguments.scale),
        transforms.RandomHorizontalFlip(),
    ])
    stages = {"decode": lambda path: Image.open(path).convert("RGB"),
              "augment": lambda path: view(Image.open(path).convert("RGB"))}
    seconds = {name: [] for name in stages}
    for _ in range(arguments.rounds):
        for name, stage in stages.items():
            began = time.process_time()
            for path in paths:
                stage(path)
            seconds[name].append(time.process_time() - began)
    for name, rounds in seconds.items():
        median = statistics.median(rounds) / len(paths)
        print(f"{name:9} {1 / median:8.1f} photos/s {median * 1e3:8.3f} ms")


if __name__ == "__main__":
    main()
