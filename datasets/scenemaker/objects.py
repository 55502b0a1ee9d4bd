"""The objects that scenes are made of: names from objects.tsv, cut-outs from the stamps."""
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

KINDS = ("land", "bird", "swim", "small", "food", "thing", "plant", "vehicle", "fly", "boat",
         "street", "building", "person")
VOWEL_SOUND = tuple("aeioAEIO") + ("u", "U-", "hour")
CONSONANT_SOUND = ("uni", "eu", "Eu", "one", "ewe", "U-turn")
MAX_STAMP_SIDE = 700


class DataError(Exception):
    """Something about the user's files or options; shown without a traceback."""


@dataclass(frozen=True)
class Name:
    singular: str
    plural: str

    @property
    def with_article(self):
        return f"{article(self.singular)} {self.singular}"


@dataclass(frozen=True)
class Thing:
    kind: str
    core: bool
    names: tuple  # of Name, the usual one first
    stamps: tuple  # paths below the stamps folder


def article(noun):
    if noun.startswith(CONSONANT_SOUND):
        return "a"
    return "an" if noun.startswith(VOWEL_SOUND) else "a"


def plural_of(noun):
    if noun.endswith(("s", "x", "sh", "ch")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    if noun.endswith("to"):  # tomato, potato
        return noun + "es"
    return noun + "s"


def parse_name(text):
    singular, _, plural = text.partition("/")
    return Name(singular, plural or plural_of(singular))


def load_objects(table: Path, stamps: Path, core_only: bool):
    """Objects whose stamps are all there; an error names the first that is not."""
    if not stamps.is_dir():
        raise DataError(f"{stamps}: no such folder; install the package tuxpaint-stamps-default, "
                        "or give its folder of stamps with --stamps")
    things = []
    for number, line in enumerate(table.read_text(encoding="utf-8").splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        fields = line.split("\t")
        if len(fields) != 4 or fields[0] not in KINDS or fields[1] not in "*-":
            raise DataError(f"{table}:{number}: expected kind, * or -, names and stamps, separated "
                            f"by tabs, found {line!r}")
        kind, core, names, files = fields
        if core_only and core != "*":
            continue
        for file in files.split(","):
            if not (stamps / f"{file}.png").is_file():
                raise DataError(f"{table}:{number}: {stamps / file}.png is not there; is "
                                "tuxpaint-stamps-default installed in full?")
        things.append(Thing(kind, core == "*", tuple(map(parse_name, names.split(";"))),
                            tuple(files.split(","))))
    return things


@lru_cache(maxsize=600)
def load_stamp(path: str):
    """The cut-out without its transparent margin."""
    stamp = Image.open(path).convert("RGBA")
    stamp.thumbnail((MAX_STAMP_SIDE, MAX_STAMP_SIDE), Image.Resampling.LANCZOS)
    box = stamp.getchannel("A").point(lambda a: 255 if a > 24 else 0).getbbox()
    if box is None:
        raise DataError(f"{path}: nothing but transparency")
    return stamp.crop(box)
