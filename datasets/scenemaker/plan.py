"""What is in a scene: which objects, how many, where, how large, over which background."""
from collections import deque
from dataclasses import dataclass

from .backgrounds import BACKGROUNDS
from .objects import Thing

AT_HOME = 0.75  # share of scenes whose background suits the objects
SAME_OBJECT = 0.18  # share of scenes with several objects in which two are of the same kind
STACKED = 0.25  # share of flat scenes with two objects in which one is above the other


@dataclass(frozen=True)
class Group:
    """Some objects of one kind next to each other."""
    thing: Thing
    count: int
    size: str  # "small", "big" or ""


@dataclass(frozen=True)
class Scene:
    background: str
    groups: tuple  # from left to right, or from top to bottom when stacked
    stacked: bool

    @property
    def key(self):
        return (self.background, self.stacked,
                tuple((group.thing.names[0].singular, group.count) for group in self.groups))


class Deck:
    """Deals every item equally often, in random order."""

    def __init__(self, rng, items):
        self.rng, self.items, self.left = rng, list(items), deque()

    def deal(self):
        if not self.left:
            self.rng.shuffle(self.items)
            self.left.extend(self.items)
        return self.left.popleft()


def choose_background(rng, groups):
    """Mostly one where as many of the objects as possible are at home."""
    names = sorted(BACKGROUNDS)
    if rng.random() < AT_HOME:
        fit = {name: sum(group.thing.kind in BACKGROUNDS[name].kinds.split() for group in groups)
               for name in names}
        names = [name for name in names if fit[name] == max(fit.values())]
    return rng.choice(names)


def choose_groups(rng, deck, most):
    count = rng.choices(range(1, most + 1), weights=(30, 45, 25)[:most])[0]
    groups = []
    while count > 0:
        same = min(count, rng.choice((2, 2, 3)) if rng.random() < SAME_OBJECT else 1)
        thing = deck.deal()
        if all(group.thing is not thing for group in groups):
            groups.append(Group(thing, same, ""))
            count -= same
    return groups


def choose_sizes(rng, groups):
    """A lone object is small sometimes; one of two may be big beside a small one."""
    if len(groups) == 1 and rng.random() < 0.2:
        return [Group(groups[0].thing, groups[0].count, "small")]
    if len(groups) == 2 and groups[0].count == groups[1].count == 1 and rng.random() < 0.2:
        sizes = ["small", "big"]
        rng.shuffle(sizes)
        return [Group(g.thing, 1, size) for g, size in zip(groups, sizes)]
    return groups


def plan_scenes(rng, things, count, most):
    """`count` different scenes with one to `most` objects each."""
    deck, seen, scenes = Deck(rng, things), set(), []
    while len(scenes) < count:
        groups = choose_groups(rng, deck, most)
        background = choose_background(rng, groups)
        pair = len(groups) == 2 and all(group.count == 1 for group in groups)
        flat = BACKGROUNDS[background].layout == "flat"
        stacked = pair and flat and rng.random() < STACKED
        groups = groups if stacked else choose_sizes(rng, groups)
        scene = Scene(background, tuple(groups), stacked)
        # With one object there are few different scenes; beyond them, the pictures still differ.
        if scene.key in seen and len(groups) > 1:
            continue
        seen.add(scene.key)
        scenes.append(scene)
    return scenes
