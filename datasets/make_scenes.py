#!/usr/bin/env python3
"""Makes a captioned photo collection in the layout of Flickr8k (Images/*.jpg and captions.txt, five
captions a photo) out of the cut-outs of Debian's package tuxpaint-stamps-default.

    sudo apt install tuxpaint-stamps-default
    pip install pillow
    datasets/make_scenes.py --out datasets/generated/scenes8k --photos 8000 --size 500x375

The same options, seed and Pillow version make the same bytes. The pictures are derived works of the
stamps, which are under the GNU General Public License, version 2."""
import argparse
import csv
import multiprocessing
import os
import random
import sys
from functools import partial
from pathlib import Path

try:
    from PIL import Image  # noqa: F401  (the modules below need it)
except ImportError:
    sys.exit("make_scenes.py: Pillow is missing; install it with: pip install pillow")

from scenemaker.captions import Describer
from scenemaker.compose import draw_scene
from scenemaker.objects import DataError, load_objects
from scenemaker.plan import plan_scenes

HERE = Path(__file__).resolve().parent


def size_option(text):
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected WIDTHxHEIGHT, like 160x120") from None
    if not (32 <= width <= 4096 and 32 <= height <= 4096):
        raise argparse.ArgumentTypeError(f"{text!r}: each side must be 32 to 4096 pixels")
    return width, height


def number_option(least, most):
    def parse(text):
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r}: expected a number from {least} to {most}")
        return int(text)
    return parse


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to fill; it must be new")
    parser.add_argument("--photos", type=number_option(1, 999999), default=2000)
    parser.add_argument("--size", type=size_option, default=(160, 120), metavar="WxH")
    parser.add_argument("--quality", type=number_option(1, 95), default=80, help="of the JPEGs")
    parser.add_argument("--objects", choices=("core", "all"), default="all",
                        help="core: those of the bundled set; all: every usable stamp")
    parser.add_argument("--objects-per-photo", type=number_option(1, 3), default=3, metavar="MOST",
                        help="most objects in a photo (default 3)")
    parser.add_argument("--stamps", type=Path, default=Path("/usr/share/tuxpaint/stamps"))
    parser.add_argument("--table", type=Path, default=HERE / "objects.tsv",
                        help="the list of objects")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=number_option(1, 256), default=os.cpu_count() or 1)
    return parser.parse_args()


def make_photo(job, options):
    """Draws and describes one scene; its randomness depends on the seed and its number alone."""
    number, scene = job
    rng = random.Random(f"{options.seed}/{number}")
    image, word = draw_scene(rng, scene, options.size, options.stamps)
    name = f"{number:06d}.jpg"
    image.save(options.out / "Images" / name, quality=options.quality, optimize=True)
    return name, Describer(rng, scene, word).captions()


def make_collection(options):
    things = load_objects(options.table, options.stamps, options.objects == "core")
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise DataError(f"{options.out}: is there already and is not an empty folder")
    (options.out / "Images").mkdir(parents=True, exist_ok=True)
    scenes = plan_scenes(random.Random(options.seed), things, options.photos,
                         options.objects_per_photo)
    with open(options.out / "captions.txt", "w", encoding="utf-8", newline="") as file, \
            multiprocessing.Pool(options.workers) as pool:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image", "caption"))
        jobs = enumerate(scenes, 1)
        for name, captions in pool.imap(partial(make_photo, options=options), jobs, chunksize=8):
            writer.writerows((name, caption) for caption in captions)
    print(f"{options.out}: {options.photos} photos of {len(things)} objects, "
          f"{5 * options.photos} captions")


def main():
    options = parse_arguments()
    try:
        make_collection(options)
    except DataError as error:
        sys.exit(f"make_scenes.py: {error}")
    except OSError as error:
        sys.exit(f"make_scenes.py: {error.filename or options.out}: {error.strerror}")


if __name__ == "__main__":
    main()
