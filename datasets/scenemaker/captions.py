"""Describes a scene in English, five times, as five people would: what they name, in which order
and with which words differs; what they say is always true."""
from .backgrounds import BACKGROUNDS
from .objects import article

NUMBERS = {2: ("two", "two", "two", "a pair of", "a couple of"), 3: ("three", "three", "a group of")}
SMALL = ("small", "little", "tiny")
BIG = ("big", "large", "huge")
KIND_NAMES = {"land": "animal", "bird": "bird", "swim": "sea animal", "small": "little animal",
              "food": "piece of food", "thing": "object", "plant": "plant", "vehicle": "vehicle"}
SEEN = ("is seen", "can be seen", "appears")
DOING = {  # by kind and layout; "" for every layout not named
    "land": {"ground": ("standing", "walking", "resting", "looking around"), "": ("standing",)},
    "bird": {"ground": ("standing", "walking", "resting"), "water": ("swimming", "floating"),
             "air": ("hovering",), "": ("sitting", "standing")},
    "swim": {"air": ("swimming", "diving"), "water": ("swimming", "floating"),
             "": ("lying", "resting")},
    "small": {"ground": ("sitting", "resting"), "flat": ("sitting", "crawling"), "": ("resting",)},
    "food": {"": ("lying", "placed")},
    "thing": {"": ("lying", "placed", "left")},
    "plant": {"ground": ("growing", "standing"), "": ("lying", "placed")},
    "vehicle": {"ground": ("parked", "standing", "waiting"), "": ("standing", "placed")},
    "fly": {"air": ("flying", "floating"), "water": ("flying", "floating"), "": ("resting",)},
    "boat": {"water": ("sailing", "floating"), "air": ("floating",), "": ("standing", "resting")},
    "street": {"": ("standing", "placed")},
    "building": {"": ("standing",)},
    "person": {"": ("standing", "walking")},
}
BESIDE = ("next to", "beside", "near", "close to")
LEFT = ("to the left of", "on the left of", "left of")
RIGHT = ("to the right of", "on the right of", "right of")
ABOVE, UNDER = ("above", "over"), ("below", "under")


def sentence(text):
    return text[0].upper() + text[1:] + " ."


class Describer:
    """Five captions of one scene. `word` is the colour of the background, if it has one."""

    def __init__(self, rng, scene, word):
        self.rng, self.scene, self.word = rng, scene, word
        self.background = BACKGROUNDS[scene.background]

    # ---- parts of a sentence ----

    def name(self, group, adjective=True):
        """The group with its article or number: "a small frog", "two geese"."""
        rng = self.rng
        name = group.thing.names[0]
        if rng.random() < 0.35:
            name = rng.choice(group.thing.names)
        noun = name.singular if group.count == 1 else name.plural
        if group.size and adjective and rng.random() < 0.7:
            noun = f"{rng.choice(SMALL if group.size == 'small' else BIG)} {noun}"
        if group.count > 1:
            return f"{rng.choice(NUMBERS[group.count])} {noun}"
        return f"{article(noun)} {noun}"

    def names(self, shuffle=True):
        """All groups, joined: "a frog , two geese and a lemon"."""
        groups = list(self.scene.groups)
        if shuffle:
            self.rng.shuffle(groups)
        parts = [self.name(group) for group in groups]
        if len(parts) == 1:
            return parts[0]
        return f"{', '.join(parts[:-1])} and {parts[-1]}"

    def place(self):
        return self.with_word(self.rng.choice(self.background.places))

    def setting(self):
        return self.with_word(self.rng.choice(self.background.scenes))

    def with_word(self, phrase):
        phrase = phrase.format(self.word)
        if phrase.startswith(("a ", "an ")):
            phrase = f"{article(phrase.split(' ', 1)[1])} {phrase.split(' ', 1)[1]}"
        return phrase

    def doing(self, group):
        doings = DOING[group.thing.kind]
        return self.rng.choice(doings.get(self.background.layout, doings[""]))

    def be(self, plural):
        return "are" if plural else "is"

    @property
    def several(self):
        return sum(group.count for group in self.scene.groups) > 1

    def relation(self):
        """Two neighbours and how they stand: "a goose to the left of a pepper"."""
        rng, groups = self.rng, self.scene.groups
        at = rng.randrange(len(groups) - 1)
        first, second = groups[at], groups[at + 1]
        forward, backward = (ABOVE, UNDER) if self.scene.stacked else (LEFT, RIGHT)
        words = rng.choice(forward)
        if rng.random() < 0.5:
            first, second, words = second, first, rng.choice(backward)
        if rng.random() < 0.3:
            words = rng.choice(BESIDE)
        return first, words, second

    # ---- sentences: each names at least one object ----

    def everything(self):
        """All objects and the place."""
        names, place, be = self.names(), self.place(), self.be(self.several)
        exist = "is" if names.startswith(("a ", "an ")) else "are"
        doing = self.doing(self.scene.groups[0])
        if any(self.doing_differs(group) for group in self.scene.groups):
            doing = "seen"
        forms = (f"{names} {place}", f"{names} {be} {place}", f"{names} {doing} {place}",
                 f"there {exist} {names} {place}", f"{names} {be} {doing} {place}",
                 f"{place} {exist} {names}" if not place.startswith("as ") else f"{names} {place}")
        return sentence(self.rng.choice(forms))

    def doing_differs(self, group):
        return group.thing.kind != self.scene.groups[0].thing.kind

    def scene_first(self):
        """The background as the subject."""
        names, setting = self.names(), self.setting()
        forms = (f"{setting} with {names}", f"{setting} , with {names} in front",
                 f"a view of {setting} with {names}", f"{names} against {setting}")
        return sentence(self.rng.choice(forms).replace(" ,", ","))

    def objects_only(self):
        names = self.names()
        forms = [f"a photo of {names}", f"a picture showing {names}", f"a close view of {names}"]
        if self.several:
            forms += [names, f"{names} in one picture"]
        else:
            forms += [f"{names} all alone", f"just {names}"]
        if len(self.scene.groups) == 2 and not self.scene.stacked:
            forms += [f"{names} side by side", f"{names} together"]
        if len(self.scene.groups) == 3:
            forms += [f"{self.names(shuffle=False)} in a row", f"{names} lined up"]
        return sentence(self.rng.choice(forms))

    def one_of_them(self):
        """What somebody writes who looked at one thing only."""
        group = self.rng.choice(self.scene.groups)
        name, be = self.name(group), self.be(group.count > 1)
        doing, place = self.doing(group), self.place()
        forms = [f"{name} {doing} {place}", f"{name} {be} {doing} {place}"]
        if group.count == 1:
            forms.append(f"{name} {self.rng.choice(SEEN)} {place}")
        if len(self.scene.groups) > 1 and self.rng.random() < 0.6:
            others = [g for g in self.scene.groups if g is not group]
            forms = [f"{name} {doing} {self.rng.choice(BESIDE)} {self.name(o)}" for o in others]
        return sentence(self.rng.choice(forms))

    def related(self):
        """Where they are; for a lone group another sentence about it."""
        if len(self.scene.groups) == 1:
            return self.rng.choice((self.everything, self.counted))()
        first, words, second = self.relation()
        one, two = self.name(first), self.name(second)
        be, place = self.be(first.count > 1), self.place()
        forms = (f"{one} {words} {two}", f"{one} {be} {words} {two}",
                 f"{one} {words} {two} {place}", f"{place} , {one} {be} {words} {two}")
        return sentence(self.rng.choice(forms).replace(" ,", ","))

    def counted(self):
        """How many there are, with a word for their kind where they share one."""
        kinds = {group.thing.kind for group in self.scene.groups}
        count = sum(group.count for group in self.scene.groups)
        noun = KIND_NAMES.get(min(kinds)) if len(kinds) == 1 else None
        if noun is None or count == 1:
            return self.scene_first()
        noun = noun.replace("piece of", "pieces of") if " of " in noun else noun + "s"
        many = {2: "two", 3: "three"}[count]
        return sentence(f"{many} {noun} {self.place()}, {self.names()}")

    def captions(self):
        """Five different captions in random order."""
        makers = [self.everything, self.related, self.scene_first, self.objects_only,
                  self.rng.choice((self.one_of_them, self.counted, self.everything))]
        found = []
        for maker in makers:
            caption = maker()
            while caption in found:
                caption = self.rng.choice((self.everything, self.scene_first))()
            found.append(caption)
        self.rng.shuffle(found)
        return found
