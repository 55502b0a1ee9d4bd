"""What the backgrounds are painted with. Randomness comes from the caller's random.Random only:
Pillow's own noise is seeded by nobody."""
import math

from PIL import Image, ImageDraw, ImageFilter, ImageOps


def jitter(rng, colour, amount=14):
    return tuple(max(0, min(255, c + rng.randint(-amount, amount))) for c in colour)


def noise(rng, size, cells):
    """Grey clouds: random values on a coarse grid of `cells` (columns, rows), smoothly enlarged."""
    columns, rows = (max(2, int(n)) for n in cells)
    grid = Image.frombytes("L", (columns, rows), rng.randbytes(columns * rows))
    return grid.resize(size, Image.Resampling.BICUBIC)


def fractal(rng, size, columns, rows, octaves=3):
    """Clouds upon finer clouds, each half as strong."""
    image = noise(rng, size, (columns, rows))
    for octave in range(1, octaves):
        finer = noise(rng, size, (columns * 2**octave, rows * 2**octave))
        image = Image.blend(image, finer, 0.5 ** octave)
    return ImageOps.autocontrast(image)


def texture(rng, size, dark, light, columns, rows, octaves=3):
    return ImageOps.colorize(fractal(rng, size, columns, rows, octaves), dark, light)


def gradient(size, top, bottom):
    ramp = Image.linear_gradient("L").resize(size, Image.Resampling.BILINEAR)
    return ImageOps.colorize(ramp, top, bottom)


def sky(rng, size, clouds=True):
    image = gradient(size, jitter(rng, (80, 140, 215)), jitter(rng, (185, 215, 240)))
    if clouds:
        mask = fractal(rng, size, rng.randint(3, 5), rng.randint(3, 5), 4)
        threshold = rng.randint(110, 150)
        mask = mask.point(lambda v: max(0, min(235, (v - threshold) * 4)))
        image.paste(jitter(rng, (245, 246, 250), 6), mask=mask)
    return image


def ground(rng, size, dark, light, near_rows=7):
    """A plane seen from the side: the pattern gets finer towards the top."""
    width, height = size
    image = Image.new("RGB", size)
    bands = 4
    for band in range(bands):
        top, bottom = (height * (k / bands) ** 1.5 for k in (band, band + 1))
        part = (width, max(1, math.ceil(bottom) - int(top)))
        cell = 1.5 + band * 1.2
        piece = texture(rng, part, dark, light, width / (cell * 3), part[1] / cell, 2)
        image.paste(piece, (0, int(top)))
    return image.filter(ImageFilter.GaussianBlur(max(0.4, height / 200)))


def scatter(rng, image, count, box, colours, radius, flat=1.0):
    """Ellipses at random places; radius is a (least, most) pair in pixels."""
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = box
    for _ in range(count):
        x, y = rng.uniform(left, right), rng.uniform(top, bottom)
        r = rng.uniform(*radius)
        draw.ellipse((x - r, y - r * flat, x + r, y + r * flat), fill=rng.choice(colours))


def smooth(image, radius):
    return image.filter(ImageFilter.GaussianBlur(radius))
