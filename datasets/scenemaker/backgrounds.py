"""The backgrounds: how each is painted, how objects stand in it, and how it is called.

A painter takes (rng, size) and returns (picture, horizon, word): objects on the ground stand below
`horizon`, a fraction of the height; `word` fills the {} of the phrases (a colour, or "")."""
import math
from dataclasses import dataclass
from typing import Callable

from PIL import Image, ImageDraw, ImageOps

from .paint import fractal, gradient, ground, jitter, noise, scatter, sky, smooth, texture

COLOURS = {"red": (200, 40, 45), "blue": (50, 85, 190), "green": (45, 140, 70),
           "yellow": (235, 205, 70), "pink": (240, 160, 185), "grey": (150, 150, 155),
           "purple": (125, 75, 165), "orange": (235, 140, 50)}
CLOTH_COLOURS = ("red", "blue", "green", "yellow")


def over(top, bottom, horizon):
    """A picture of `top` above the horizon and `bottom` below it."""
    image = top.copy()
    image.paste(bottom, (0, round(top.height * horizon)))
    return image


def below(size, horizon):
    return size[0], size[1] - round(size[1] * horizon)


def lawn(rng, size):
    w, h = size
    dark, light = jitter(rng, (40, 90, 25)), jitter(rng, (125, 175, 70))
    image = Image.blend(texture(rng, size, dark, light, w / 2, h / 7, 2),
                        texture(rng, size, dark, light, 5, 4, 2), 0.4)
    return image, 0.25, ""


def meadow(rng, size):
    horizon = rng.uniform(0.35, 0.55)
    grass = ground(rng, below(size, horizon), jitter(rng, (55, 105, 35)),
                   jitter(rng, (140, 185, 80)))
    flowers = [(250, 250, 240), (245, 220, 60), (230, 90, 120), (170, 110, 210)]
    unit = size[1] / 120
    scatter(rng, grass, rng.randint(15, 50), (0, 4 * unit, *grass.size), flowers,
            (0.7 * unit, 1.6 * unit))
    return over(sky(rng, size), grass, horizon), horizon, ""


def beach(rng, size):
    horizon = rng.uniform(0.3, 0.4)
    shore = horizon + rng.uniform(0.1, 0.17)
    sea = texture(rng, below(size, horizon), jitter(rng, (30, 95, 150)),
                  jitter(rng, (80, 160, 195)), 8, 40, 2)
    sand = ground(rng, below(size, shore), jitter(rng, (205, 175, 120)),
                  jitter(rng, (240, 220, 175)))
    image = over(over(sky(rng, size), sea, horizon), sand, shore)
    foam = [(size[0] * k / 12, size[1] * (shore + rng.uniform(-0.012, 0.012))) for k in range(13)]
    ImageDraw.Draw(image).line(foam, fill=(245, 248, 248), width=max(1, size[1] // 50))
    return image, shore + 0.05, ""


def desert(rng, size):
    horizon = rng.uniform(0.3, 0.45)
    w, h = size
    image = gradient(size, jitter(rng, (90, 155, 220)), jitter(rng, (235, 225, 195)))
    draw = ImageDraw.Draw(image, "RGBA")
    sand = texture(rng, below(size, horizon), jitter(rng, (200, 140, 75)),
                   jitter(rng, (235, 185, 115)), 4, 22, 3)
    phase, waves = rng.uniform(0, 6), rng.uniform(2, 4)
    ridge = [(x, h * (horizon - 0.06 * abs(math.sin(phase + waves * x / w)))) for x in range(w + 1)]
    draw.polygon([*ridge, (w, h), (0, h)], fill=jitter(rng, (215, 160, 95)))
    return over(image, sand, horizon), horizon, ""


def sea(rng, size):
    horizon = rng.uniform(0.35, 0.5)
    dark, light = jitter(rng, (20, 70, 120)), jitter(rng, (95, 165, 200))
    water = Image.blend(texture(rng, below(size, horizon), dark, light, 10, 50, 2),
                        texture(rng, below(size, horizon), dark, light, 5, 12, 2), 0.4)
    return over(sky(rng, size), water, horizon), horizon, ""


def underwater(rng, size):
    w, h = size
    image = gradient(size, jitter(rng, (80, 190, 205)), jitter(rng, (10, 55, 105)))
    rays = Image.new("L", size)
    draw = ImageDraw.Draw(rays)
    for _ in range(rng.randint(3, 6)):
        x, lean = rng.uniform(0, w), rng.uniform(-0.3, 0.3) * w
        width = rng.uniform(0.02, 0.07) * w
        draw.polygon([(x, 0), (x + width, 0), (x + lean + 2 * width, h), (x + lean, h)], fill=60)
    image.paste((220, 250, 250), mask=smooth(rays, w / 50))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(8, 25)):
        x, y, r = rng.uniform(0, w), rng.uniform(0, h), rng.uniform(0.006, 0.022) * h
        draw.ellipse((x - r, y - r, x + r, y + r), outline=(190, 235, 240))
    return image, 0.0, ""


def open_sky(rng, size):
    return sky(rng, size), 0.0, ""


def sunset(rng, size):
    w, h = size
    image = gradient(size, jitter(rng, (95, 60, 130)), jitter(rng, (255, 165, 70)))
    x, y, r = rng.uniform(0.15, 0.85) * w, rng.uniform(0.45, 0.65) * h, rng.uniform(0.07, 0.12) * h
    glow = Image.new("L", size)
    ImageDraw.Draw(glow).ellipse((x - 2.5 * r, y - 2.5 * r, x + 2.5 * r, y + 2.5 * r), fill=150)
    image.paste((255, 225, 130), mask=smooth(glow, r))
    ImageDraw.Draw(image).ellipse((x - r, y - r, x + r, y + r), fill=(255, 240, 180))
    horizon = rng.uniform(0.7, 0.78)
    hills = ground(rng, below(size, horizon), jitter(rng, (45, 30, 45)), jitter(rng, (85, 55, 60)))
    return over(image, hills, horizon), horizon, ""


def night(rng, size):
    w, h = size
    image = gradient(size, jitter(rng, (8, 10, 35), 6), jitter(rng, (30, 40, 95), 10))
    scatter(rng, image, rng.randint(50, 110), (0, 0, w, h),
            [(255, 255, 255), (220, 225, 255), (255, 245, 200)], (0.002 * h, 0.009 * h))
    if rng.random() < 0.5:
        x, y, r = rng.uniform(0.1, 0.9) * w, rng.uniform(0.1, 0.25) * h, 0.07 * h
        ImageDraw.Draw(image).ellipse((x - r, y - r, x + r, y + r), fill=(250, 245, 215))
    return image, 0.0, ""


def snow(rng, size):
    horizon = rng.uniform(0.35, 0.5)
    w, h = size
    top = gradient(size, jitter(rng, (140, 165, 195)), jitter(rng, (215, 225, 235), 8))
    draw = ImageDraw.Draw(top)
    for _ in range(rng.randint(4, 9)):  # firs
        x, foot, tall = rng.uniform(0, w), h * (horizon + 0.01), rng.uniform(0.12, 0.28) * h
        draw.polygon([(x, foot - tall), (x - tall * 0.3, foot), (x + tall * 0.3, foot)],
                     fill=jitter(rng, (60, 85, 85), 12))
    white = ground(rng, below(size, horizon), jitter(rng, (215, 225, 238), 6), (252, 253, 255))
    image = over(smooth(top, h / 200), white, horizon)
    scatter(rng, image, rng.randint(20, 70), (0, 0, w, h), [(255, 255, 255)],
            (0.004 * h, 0.012 * h))
    return image, horizon, ""


def brick_wall(rng, size):
    w, h = size
    floor = rng.uniform(0.72, 0.8)
    mortar = jitter(rng, (195, 185, 175))
    image = Image.new("RGB", size, mortar)
    draw = ImageDraw.Draw(image)
    base, tall = jitter(rng, (165, 75, 55)), h / rng.uniform(11, 15)
    gap, wide = max(1, round(tall * 0.12)), tall * 2.3
    for row in range(math.ceil(h / tall)):
        for column in range(-1, math.ceil(w / wide) + 1):
            x, y = (column + 0.5 * (row % 2)) * wide, row * tall
            draw.rectangle((x, y, x + wide - gap - 1, y + tall - gap - 1), fill=jitter(rng, base))
    image = Image.blend(image, texture(rng, size, (60, 30, 25), (215, 150, 130), 40, 30, 2), 0.18)
    grey = jitter(rng, (130, 128, 125))
    pavement = ground(rng, below(size, floor), jitter(rng, grey, 6), jitter(rng, (175, 172, 168)))
    return over(image, pavement, floor), floor, ""


def wooden_table(rng, size):
    w, h = size
    base = rng.choice([(150, 100, 55), (120, 75, 40), (185, 140, 90)])
    image = Image.new("RGB", size)
    tall = h / rng.uniform(3.5, 6)
    for row in range(math.ceil(h / tall)):
        tone = jitter(rng, base)
        part = (w, math.ceil(tall))
        plank = texture(rng, part, tuple(c * 3 // 4 for c in tone),
                        tuple(min(255, c * 6 // 5) for c in tone), 4, 12, 3)
        ImageDraw.Draw(plank).line((0, 0, w, 0), fill=tuple(c // 3 for c in tone),
                                   width=max(1, h // 100))
        image.paste(plank, (0, round(row * tall)))
    return image, 0.0, ""


def chequered_cloth(rng, size):
    w, h = size
    word = rng.choice(CLOTH_COLOURS)
    cell = h / rng.uniform(6, 10)
    image = Image.new("RGB", size, jitter(rng, (245, 243, 238), 6))
    draw = ImageDraw.Draw(image, "RGBA")
    colour = jitter(rng, COLOURS[word])
    for column in range(0, math.ceil(w / cell), 2):
        draw.rectangle((column * cell, 0, (column + 1) * cell, h), fill=(*colour, 150))
    for row in range(0, math.ceil(h / cell), 2):
        draw.rectangle((0, row * cell, w, (row + 1) * cell), fill=(*colour, 150))
    return image, 0.0, word


def paper(rng, size):
    word = rng.choice(tuple(COLOURS))
    colour = jitter(rng, COLOURS[word])
    darker = tuple(c * 9 // 10 for c in colour)
    return texture(rng, size, darker, colour, 3, 3, 4), 0.0, word


def road(rng, size):
    w, h = size
    horizon = rng.uniform(0.35, 0.45)
    grass = ground(rng, below(size, horizon), jitter(rng, (65, 110, 45)),
                   jitter(rng, (130, 165, 80)))
    image = over(sky(rng, size), grass, horizon)
    tone = jitter(rng, (95, 95, 100))
    asphalt = texture(rng, size, tone, tuple(c + 30 for c in tone), w / 2, h / 2, 2)
    mask = Image.new("L", size)
    middle, top = rng.uniform(0.4, 0.6) * w, h * horizon
    ImageDraw.Draw(mask).polygon([(middle - 0.06 * w, top), (middle + 0.06 * w, top),
                                  (1.25 * w, h), (-0.25 * w, h)], fill=255)
    image.paste(asphalt, mask=mask)
    draw = ImageDraw.Draw(image)
    for k in range(6):
        near, far = ((j / 6) ** 1.6 for j in (k + 0.5, k))
        x0, x1 = (middle + (w / 2 - middle) * t for t in (far, near))
        y0, y1 = (top + (h - top) * t for t in (far, near))
        draw.line((x0, y0, x1, y1), fill=(240, 238, 225), width=max(1, round(w * 0.02 * near)))
    return image, horizon + 0.1, ""


def tiles(rng, size):
    w, h = size
    word = rng.choice(("white", "blue", "green"))
    base = {"white": (228, 228, 222), "blue": (130, 165, 200), "green": (150, 190, 160)}[word]
    image = Image.new("RGB", size, (165, 165, 160))
    draw = ImageDraw.Draw(image)
    cell = h / rng.uniform(4, 7)
    gap = max(1, round(cell * 0.06))
    for row in range(math.ceil(h / cell)):
        for column in range(math.ceil(w / cell)):
            x, y = column * cell, row * cell
            draw.rectangle((x, y, x + cell - gap - 1, y + cell - gap - 1),
                           fill=jitter(rng, base, 7))
    return image, 0.0, word


def autumn_leaves(rng, size):
    w, h = size
    image = texture(rng, size, (70, 45, 25), (120, 80, 45), 12, 9, 3)
    colours = [(205, 95, 30), (225, 150, 45), (165, 55, 30), (190, 125, 60), (215, 180, 70)]
    for _ in range(3):
        scatter(rng, image, 130, (0, 0, w, h), [jitter(rng, c, 20) for c in colours],
                (0.015 * h, 0.04 * h), rng.uniform(0.45, 0.8))
    return smooth(image, h / 240), 0.15, ""


def striped_blanket(rng, size):
    w, h = size
    image = Image.new("RGB", size)
    draw = ImageDraw.Draw(image)
    one, two = rng.sample(sorted(COLOURS), 2)
    wide, upright = h / rng.uniform(6, 11), rng.random() < 0.5
    for k in range(math.ceil((w if upright else h) / wide)):
        colour = (COLOURS[one], COLOURS[two], (240, 238, 230))[k % 3]
        near, far = k * wide, (k + 1) * wide
        box = (near, 0, far, h) if upright else (0, near, w, far)
        draw.rectangle(box, fill=jitter(rng, colour, 5))
    weave = ImageOps.colorize(fractal(rng, size, w / 2, h / 2, 1), (80, 80, 80), (220, 220, 220))
    return Image.blend(image, weave, 0.12), 0.0, ""


def cobblestones(rng, size):
    w, h = size
    image = Image.new("RGB", size, jitter(rng, (75, 72, 68)))
    draw = ImageDraw.Draw(image)
    cell = h / rng.uniform(8, 12)
    for row in range(-1, math.ceil(h / cell) + 1):
        for column in range(-1, math.ceil(w / cell) + 1):
            x = (column + 0.5 * (row % 2) + rng.uniform(-0.06, 0.06)) * cell
            y = (row + rng.uniform(-0.06, 0.06)) * cell
            tone = rng.randint(-24, 24)
            draw.ellipse((x, y, x + cell * 0.93, y + cell * 0.9),
                         fill=(142 + tone, 138 + tone, 132 + tone))
    shade = noise(rng, size, (w / 3, h / 3))
    image = Image.blend(image, ImageOps.colorize(shade, (60, 60, 60), (200, 200, 200)), 0.15)
    return smooth(image, h / 300), 0.2, ""


@dataclass(frozen=True)
class Background:
    paint: Callable
    layout: str  # ground: stands below the horizon; flat: seen from above; air, water: anywhere
    kinds: str  # of objects that are at home there
    places: tuple  # "a dog <place>"
    scenes: tuple  # "<scene> with a dog"


ANIMALS = "land bird small"
BACKGROUNDS = {
    "lawn": Background(lawn, "ground", ANIMALS + " plant thing person",
                       ("on the grass", "on a green lawn", "in the grass", "on a lawn"),
                       ("a green lawn", "a patch of grass", "some short grass")),
    "meadow": Background(meadow, "ground", ANIMALS + " plant building vehicle person",
                         ("in a meadow", "in a field of flowers", "in a flowery meadow",
                          "in a green field under a blue sky"),
                         ("a flowery meadow", "a green field", "a meadow full of flowers")),
    "beach": Background(beach, "ground", "bird small boat thing fly person swim",
                        ("on the beach", "on a sandy beach", "at the seaside",
                         "on the sand near the sea"),
                        ("a sandy beach", "a beach by the sea", "the shore of the sea")),
    "desert": Background(desert, "ground", "land vehicle building fly plant",
                         ("in the desert", "on desert sand", "among sand dunes"),
                         ("a sandy desert", "a dry desert", "a desert with dunes")),
    "sea": Background(sea, "water", "swim boat bird fly",
                      ("on the sea", "on the water", "in the ocean", "at sea"),
                      ("the open sea", "the blue ocean", "a stretch of water")),
    "underwater": Background(underwater, "air", "swim",
                             ("under water", "in deep blue water", "underwater among bubbles",
                              "under the sea"),
                             ("an underwater scene", "a deep blue sea with bubbles")),
    "sky": Background(open_sky, "air", "fly bird",
                      ("in the sky", "in a cloudy sky", "high among the clouds",
                       "in front of white clouds"),
                      ("a blue sky with clouds", "a cloudy sky", "a bright sky")),
    "sunset": Background(sunset, "ground", "land bird vehicle building fly street person",
                         ("at sunset", "in front of a sunset", "under an orange sky",
                          "as the sun goes down"),
                         ("an orange sunset", "an evening sky", "a setting sun")),
    "night": Background(night, "air", "fly bird building",
                        ("at night", "under the stars", "in a starry night", "in the night sky"),
                        ("a starry night", "a dark sky full of stars", "a night sky")),
    "snow": Background(snow, "ground", "land bird building vehicle person",
                       ("in the snow", "on snowy ground", "in a snowy forest",
                        "in a winter landscape"),
                       ("a snowy landscape", "a winter scene", "falling snow")),
    "brick_wall": Background(brick_wall, "ground", "vehicle street thing land bird person",
                             ("in front of a brick wall", "by a red brick wall",
                              "next to a brick wall"),
                             ("a brick wall", "a wall of red bricks")),
    "table": Background(wooden_table, "flat", "food thing small plant",
                        ("on a wooden table", "on wooden boards", "on a table made of wood",
                         "on a brown table"),
                        ("a wooden table", "a table", "some brown wooden boards")),
    "cloth": Background(chequered_cloth, "flat", "food thing small plant",
                        ("on a {} and white chequered cloth", "on a {} tablecloth",
                         "on a {} chequered cloth", "on a chequered tablecloth"),
                        ("a {} chequered tablecloth", "a {} and white cloth",
                         "a chequered cloth")),
    "paper": Background(paper, "flat", "food thing small plant bird land fly street",
                        ("on {} paper", "on a sheet of {} paper", "on a {} background",
                         "in front of a {} background"),
                        ("a sheet of {} paper", "a plain {} background", "a {} backdrop")),
    "road": Background(road, "ground", "vehicle street land person",
                       ("on the road", "on a country road", "in the middle of the road",
                        "on an empty street"),
                       ("a country road", "a straight road", "an empty road")),
    "tiles": Background(tiles, "flat", "food thing small",
                        ("on {} tiles", "on a tiled floor", "on a floor with {} tiles"),
                        ("a floor of {} tiles", "a tiled floor", "some {} tiles")),
    "leaves": Background(autumn_leaves, "ground", "land small plant food thing",
                         ("on autumn leaves", "among fallen leaves", "on orange leaves",
                          "in a pile of leaves"),
                         ("fallen autumn leaves", "a ground covered in orange leaves",
                          "a carpet of leaves")),
    "blanket": Background(striped_blanket, "flat", "thing small food bird land",
                          ("on a striped blanket", "on a blanket with stripes",
                           "on a colourful striped cloth"),
                          ("a striped blanket", "a cloth with colourful stripes")),
    "cobbles": Background(cobblestones, "ground", "vehicle street thing bird land person",
                          ("on cobblestones", "on a cobbled street", "on grey stones",
                           "on a stone pavement"),
                          ("a cobbled street", "grey cobblestones", "a stone pavement")),
}
