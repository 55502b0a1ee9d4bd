#!/usr/bin/env python3
"""Makes the small photos that the tests of images and of the loader read, and golden.txt beside
them: what Pillow and torchvision make of them, as CRC-32 of the RGB bytes.

    make_images.py data/images ../fuzz/corpus/jpeg
"""
import argparse
import io
import math
import pathlib
import random
import zlib

import numpy
import PIL.features
import torchvision
from PIL import Image, ImageFile
from torchvision.transforms import functional
from torchvision.transforms import CenterCrop, InterpolationMode, Resize

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}


def scene(width, height, seed):
    """Gradients, edges and noise: smooth and sharp chroma for the upsampling to work on."""
    rng = numpy.random.default_rng(seed)
    y, x = numpy.mgrid[0:height, 0:width].astype(float)
    red = 255 * x / max(width - 1, 1)
    green = 127 + 120 * numpy.sin(x / 7.0 + y / 11.0)
    blue = 255 * ((x // 9 + y // 5) % 2)
    pixels = numpy.stack([red, green, blue], axis=2) + rng.normal(0, 12, (height, width, 3))
    disc = (x - width * 0.6) ** 2 + (y - height * 0.4) ** 2 < (min(width, height) * 0.25) ** 2
    pixels[disc] = (250, 20, 30)
    return Image.fromarray(pixels.clip(0, 255).astype(numpy.uint8), "RGB")


def pattern(width, height):
    """The same bytes as pattern() in tests/image: no decoder needed for the resampling's cases."""
    data = numpy.empty(width * height * 3, numpy.uint8)
    state = 12345
    for i in range(data.size):
        state = (state * 1103515245 + 12345) & 0xFFFFFFFF
        noise = state >> 24
        data[i] = noise if noise & 3 == 0 else (i * 5 // 3 + (noise & 31)) & 255
    return Image.fromarray(data.reshape(height, width, 3), "RGB")


def jpeg(image, **options):
    stream = io.BytesIO()
    image.save(stream, "JPEG", **{"quality": 85, **options})
    return stream.getvalue()


def patched(data, marker, offset, values):
    """Bytes behind the first `marker` replaced."""
    at = data.index(marker) + offset
    return data[:at] + bytes(values) + data[at + len(values):]


def photos(width, height):
    image = scene(width, height, 1)
    orientation = Image.Exif()
    orientation[0x0112] = 6
    baseline = jpeg(image, subsampling="4:2:0")
    cmyk = jpeg(scene(width, height, 2).convert("CMYK"))
    middle = len(baseline) * 2 // 3
    stream = io.BytesIO()
    image.save(stream, "PNG")
    square = jpeg(scene(64, 64, 3), subsampling="4:2:2")
    return {
        "baseline_420.jpg": baseline,
        "baseline_422.jpg": jpeg(image, subsampling="4:2:2"),
        # Sampling factors 2x1 turned to 1x2 in the frame header: a square has as many units.
        "baseline_440.jpg": patched(square, b"\xff\xc0", 11, [0x12]),
        "baseline_444.jpg": jpeg(image, subsampling="4:4:4"),
        "optimised.jpg": jpeg(image, optimize=True, quality=97),
        "progressive.jpg": jpeg(image, progressive=True),
        "progressive_444.jpg": jpeg(image, progressive=True, subsampling="4:4:4"),
        "grey.jpg": jpeg(image.convert("L")),
        "grey_progressive.jpg": jpeg(image.convert("L"), progressive=True),
        "rgb.jpg": jpeg(image, keep_rgb=True),
        "cmyk.jpg": cmyk,
        # Adobe's marker says how the components are to be read: 2 is YCCK.
        "ycck.jpg": patched(cmyk, b"Adobe\x00", 11, [2]),
        "restart.jpg": jpeg(image, restart_marker_blocks=3),
        "restart_rows.jpg": jpeg(image, restart_marker_rows=1, subsampling="4:4:4"),
        "exif_orientation.jpg": jpeg(image, exif=orientation),
        "odd_1x1.jpg": jpeg(scene(1, 1, 4)),
        "odd_1x31.jpg": jpeg(scene(1, 31, 5)),
        "odd_33x2.jpg": jpeg(scene(33, 2, 6)),
        "odd_17x15.jpg": jpeg(scene(17, 15, 7)),
        "trailing_bytes.jpg": baseline + b"\x00\x01something else\xff\xd8",
        "corrupt.jpg": baseline[:middle] + b"\x5a\xa5\x00\x13" + baseline[middle + 4:],
        "no_end.jpg": baseline[:-2],
        "half_end.jpg": baseline[:-1],
        "truncated.jpg": baseline[:middle],
        "truncated_progressive.jpg": jpeg(image, progressive=True)[:middle],
        "truncated_header.jpg": baseline[:300],
        "png.jpg": stream.getvalue(),
        "empty.jpg": b"",
        "text.jpg": b"This is not a photo.\n",
    }


def decoded(path):
    """The photo's RGB image, or None when Pillow refuses it."""
    try:
        with Image.open(path, formats=["JPEG"]) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError):
        return None


def crc(image):
    return f"{zlib.crc32(image.tobytes()):08x}"


def philox(seed, stream, index):
    """The four words of a block; host/base/rng.h."""
    counter = [index & 0xFFFFFFFF, index >> 32, stream & 0xFFFFFFFF, stream >> 32]
    keys = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [(b >> 32) ^ counter[1] ^ keys[0], b & 0xFFFFFFFF,
                   (a >> 32) ^ counter[3] ^ keys[1], a & 0xFFFFFFFF]
        keys = [(keys[0] + 0x9E3779B9) & 0xFFFFFFFF, (keys[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return counter


def random_crop(width, height, scale, ratio, flip, seed, stream):
    """RandomResizedCrop.get_params of torchvision with our random numbers."""
    def uniform(word):
        return (word >> 8) / 2**24

    mirror = uniform(philox(seed, stream, 10)[0]) < flip
    for attempt in range(10):
        area, place, top, left = philox(seed, stream, attempt)
        target = width * height * (scale[0] + uniform(area) * (scale[1] - scale[0]))
        low, high = math.log(ratio[0]), math.log(ratio[1])
        aspect = math.exp(low + uniform(place) * (high - low))
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            return (left * (width - w + 1)) >> 32, (top * (height - h + 1)) >> 32, w, h, mirror
    w, h = width, height
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return (width - w) // 2, (height - h) // 2, w, h, mirror


def resample_cases(rng):
    fixed = [(64, 48, (0, 0, 64, 48), 64, 48), (64, 48, (3, 5, 32, 32), 32, 40),
             (64, 48, (3, 5, 32, 32), 40, 32), (64, 48, (63, 47, 1, 1), 9, 9),
             (1, 1, (0, 0, 1, 1), 5, 3), (300, 7, (0, 0, 300, 7), 1, 1),
             (500, 375, (0, 0, 500, 375), 224, 224), (500, 375, (40, 60, 380, 300), 224, 224)]
    for case in fixed:
        yield case
    # About the condition for the vertical pass to come first.
    for width, height, out_w, out_h in [(50, 100, 40, 81), (50, 100, 40, 80), (50, 100, 40, 79),
                                        (50, 100, 49, 98), (50, 100, 49, 97), (50, 100, 60, 99),
                                        (50, 100, 60, 101), (50, 100, 70, 140), (90, 101, 45, 10)]:
        yield width, height, (0, 0, width, height), out_w, out_h
    for _ in range(100):
        width, height = rng.randint(1, 160), rng.randint(1, 160)
        w, h = rng.randint(1, width), rng.randint(1, height)
        box = (rng.randint(0, width - w), rng.randint(0, height - h), w, h)
        yield width, height, box, rng.randint(1, 130), rng.randint(1, 130)


def golden(folder):
    rng = random.Random(7)
    yield (f"# Pillow {PIL.__version__}, libjpeg-turbo "
           f"{PIL.features.version('libjpeg_turbo')}, torchvision {torchvision.__version__}")
    for path in sorted(folder.glob("*.jpg")):
        image = decoded(path)
        yield f"bad {path.name}" if image is None else (
            f"decode {path.name} {image.width} {image.height} {crc(image)}")
    for width, height, (left, top, w, h), out_w, out_h in resample_cases(rng):
        for name, kind in FILTERS.items():
            mirror = rng.random() < 0.4
            out = pattern(width, height).crop((left, top, left + w, top + h))
            out = out.resize((out_w, out_h), kind)
            if mirror:
                out = functional.hflip(out)
            yield (f"resample {width} {height} {left} {top} {w} {h} {name} {int(mirror)} "
                   f"{out_w} {out_h} {crc(out)}")
    for width, height in [(100, 75), (75, 100), (64, 64), (37, 150), (333, 40), (32, 32), (73, 73)]:
        for size, factor in [(32, 1.0), (32, 1.15), (33, 1.14), (57, 1.5)]:
            for name, kind in MODES.items():
                out = Resize(round(size * factor), kind)(pattern(width, height))
                out = CenterCrop(size)(out)
                yield f"eval {width} {height} {size} {factor} {name} {crc(out)}"
    for i in range(60):
        width, height = rng.randint(1, 600), rng.randint(1, 600)
        scale = rng.choice([(0.08, 1.0), (0.5, 1.0), (0.9, 1.0), (1.0, 1.0)])
        ratio = rng.choice([(0.75, 4 / 3), (1.0, 1.0), (0.5, 0.75)])
        seed, stream = rng.getrandbits(63), rng.getrandbits(64)
        left, top, w, h, mirror = random_crop(width, height, scale, ratio, 0.5, seed, stream)
        yield (f"crop {width} {height} {scale[0]!r} {scale[1]!r} {ratio[0]!r} {ratio[1]!r} {seed} "
               f"{stream} {left} {top} {w} {h} {int(mirror)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, help="for the photos and golden.txt")
    parser.add_argument("corpus", type=pathlib.Path, help="for the fuzzer's smaller photos")
    arguments = parser.parse_args()
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    for folder, (width, height) in [(arguments.folder, (97, 75)), (arguments.corpus, (24, 17))]:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in photos(width, height).items():
            if data or folder == arguments.folder:
                (folder / name).write_bytes(data)
    (arguments.folder / "golden.txt").write_text("\n".join(golden(arguments.folder)) + "\n")


if __name__ == "__main__":
    main()
