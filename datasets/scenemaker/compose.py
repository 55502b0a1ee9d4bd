"""Draws a scene: background, cut-outs with shadows, then what a camera adds."""
from PIL import Image, ImageChops, ImageEnhance, ImageFilter

from .backgrounds import BACKGROUNDS
from .objects import load_stamp
from .paint import noise

# Height of an object as a fraction of the picture's, by the number of objects in it.
HEIGHTS = {1: (0.5, 0.8), 2: (0.42, 0.62), 3: (0.36, 0.5)}
SMALL, BIG = 0.6, 1.2  # factors
WRITING = ("street", "building")  # never mirrored


def change_light(rng, rgb):
    for enhancer, amount in ((ImageEnhance.Brightness, 0.15), (ImageEnhance.Contrast, 0.15),
                             (ImageEnhance.Color, 0.2)):
        rgb = enhancer(rgb).enhance(rng.uniform(1 - amount, 1 + amount))
    return rgb


def cut_out(rng, thing, path, box, angle):
    """The stamp fitted into box (width, height), with its own light, turned a little."""
    stamp = load_stamp(str(path))
    scale = min(box[0] / stamp.width, box[1] / stamp.height)
    size = (max(2, round(stamp.width * scale)), max(2, round(stamp.height * scale)))
    stamp = stamp.resize(size, Image.Resampling.LANCZOS)
    alpha = stamp.getchannel("A")
    stamp = change_light(rng, stamp.convert("RGB"))
    stamp.putalpha(alpha)
    if thing.kind not in WRITING and rng.random() < 0.5:
        stamp = stamp.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return stamp.rotate(rng.uniform(-angle, angle), Image.Resampling.BICUBIC, expand=True)


def draw_shadow(rng, image, stamp, x, y, layout):
    alpha = stamp.getchannel("A")
    mask = Image.new("L", image.size)
    blur = image.height * rng.uniform(0.012, 0.03)
    if layout == "ground":  # the object's own outline, laid down at its feet
        tall = max(2, round(stamp.height * rng.uniform(0.12, 0.22)))
        mask.paste(alpha.resize((stamp.width, tall)), (x, y + stamp.height - tall * 2 // 3))
    else:
        offset = round(image.height * rng.uniform(0.01, 0.03))
        mask.paste(alpha, (x + offset, y + offset))
    strength = rng.uniform(0.3, 0.5)
    mask = mask.filter(ImageFilter.GaussianBlur(blur)).point(lambda v: int(v * strength))
    image.paste((0, 0, 0), mask=mask)


def place(rng, size, layout, horizon, stamp, slot):
    """Upper left corner of a stamp whose middle is near slot (x, y as fractions of the size)."""
    x = slot[0] * size[0] - stamp.width / 2 + rng.uniform(-0.03, 0.03) * size[0]
    if layout == "ground":
        least = max(horizon + 0.15, 0.72)
        foot = rng.uniform(least, 0.97) * size[1]
        y = foot - stamp.height
    elif layout == "water":
        y = rng.uniform(max(horizon + 0.2, 0.65), 0.95) * size[1] - stamp.height
    else:
        y = slot[1] * size[1] - stamp.height / 2 + rng.uniform(-0.08, 0.08) * size[1]
    return (round(max(-0.02 * size[0], min(x, size[0] * 1.02 - stamp.width))),
            round(max(-0.02 * size[1], min(y, size[1] * 1.02 - stamp.height))))


def slots_of(scene, count):
    """Middle and width of each object's place, as fractions of the picture."""
    if scene.stacked:
        return [((0.5, 0.28), 0.7), ((0.5, 0.74), 0.7)]
    middles = {1: (0.5,), 2: (0.27, 0.73), 3: (0.19, 0.5, 0.81)}[count]
    return [((x, 0.52), {1: 0.85, 2: 0.5, 3: 0.36}[count]) for x in middles]


def as_a_camera_sees_it(rng, image):
    size = image.size
    red, green, blue = image.split()
    warmth = rng.uniform(-0.06, 0.06)
    red = red.point(lambda v: int(v * (1 + warmth)))
    blue = blue.point(lambda v: int(v * (1 - warmth)))
    image = change_light(rng, Image.merge("RGB", (red, green, blue)))
    fineness = max(1.0, size[1] / 120) ** 0.5
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, 0.5) * fineness))
    light = noise(rng, size, (2, 2)).convert("RGB")  # uneven light
    image = Image.blend(image, ImageChops.soft_light(image, light), rng.uniform(0.1, 0.35))
    grain = Image.frombytes("RGB", size, rng.randbytes(3 * size[0] * size[1]))
    strength = min(0.25, rng.uniform(0.02, 0.1) * fineness)
    return Image.blend(image, ImageChops.soft_light(image, grain), strength)


def draw_scene(rng, scene, size, stamps):
    """The picture and the word that names its background's colour."""
    background = BACKGROUNDS[scene.background]
    image, horizon, word = background.paint(rng, size)
    image = image.convert("RGB")
    members = [group for group in scene.groups for _ in range(group.count)]
    angle = {"flat": 22, "air": 10}.get(background.layout, 5)
    for group, (middle, width) in zip(members, slots_of(scene, len(members))):
        tall = rng.uniform(*HEIGHTS[len(members)])
        tall *= {"small": SMALL, "big": BIG}.get(group.size, 1.0)
        width *= {"small": SMALL, "big": BIG}.get(group.size, 1.0)
        if scene.stacked:
            tall = min(tall, 0.46)
        path = stamps / f"{rng.choice(group.thing.stamps)}.png"
        stamp = cut_out(rng, group.thing, path, (width * size[0], tall * size[1]), angle)
        corner = place(rng, size, background.layout, horizon, stamp, middle)
        if background.layout in ("ground", "flat"):
            draw_shadow(rng, image, stamp, *corner, background.layout)
        image.paste(stamp, corner, stamp)
    return as_a_camera_sees_it(rng, image), word
