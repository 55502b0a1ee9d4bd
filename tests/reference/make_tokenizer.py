#!/usr/bin/env python3
"""Writes data/tokenizer.json: what Hugging Face `tokenizers` learns and how it tokenizes.

    make_tokenizer.py -o data/tokenizer.json
    make_tokenizer.py --random 50000 --trainings 1000 --seed 7 -o big.json
    make_tokenizer.py --every-character -o every.json

The last two are for differential tests: CT_TOKENIZER_GOLDEN=big.json test_text

The file:
    training  [{captions, lowercase, size, min_frequency, vocab}]   for the vocabulary trainer
    texts, max_tokens                                               what is tokenized, cut where
    models    [{lowercase, vocab, ids}]                             ids[i] for texts[i]
where vocab is a list of tokens, or the path of a vocab.txt in the repository.

Hugging Face's trainer numbers the "##c" characters in the order of a hash table that differs from
run to run, and breaks ties by number. Handing it the alphabet, sorted, as further special tokens
makes the numbers, and so the result, definite.
"""

import argparse
import json
import pathlib
import random
import unicodedata

import tokenizers
from tokenizers import BertWordPieceTokenizer, Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.trainers import WordPieceTrainer

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BERT_VOCAB = "datasets/bert-base-uncased/vocab.txt"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORD_MAX_CHARS = 100

SUBJECTS = "dog man woman girl boy child surfer cyclist dalmatian toddler crowd".split()
ADJECTIVES = "brown little young tan old muzzled smiling black-and-white barefoot".split()
VERBS = "runs jumps climbs sits plays splashes leaps skateboards wrestles".split()
PLACES = """through the grass|near a river|over a fallen log|on the beach|in front of a fountain
at the skateboarder's ramp|in the snow|on a rope swing|under an umbrella|past a brick wall
with a frisbee|in a blue sweatshirt|down the mountainside|beside the swimming pool""".replace(
    "\n", "|"
).split("|")

# One line a thing that goes wrong easily.
TRICKY = [
    "",
    " ",
    "\t\n\r",
    "a",
    "A brown dog runs through the grass near a river .",
    "Café Zoë naïve façade, El Niño; crème brûlée!",
    "Cafe\u0301 Zoe\u0308 nai\u0308ve",
    "a\u0301\u0323\u0302b q\u0307\u0323 \u0301 \u0301x",
    "\u01d5\u01d6 \u1f82 \u1e69 \ufb1d \u0344",
    "İstanbul Iğdır ıslak İİ",
    "Straße GROẞ ẞ ß",
    "ΟΔΥΣΣΕΥΣ Σίσυφος ΑΣ",
    "Ångström Ω K ℃ ½ ﬁne",
    "Москва, ёлка и йод",
    "ЁЛКА ЙОД",
    "Tiếng Việt: một con chó nâu chạy",
    "東京タワーの前で犬が走る。",
    "一只棕色的狗在草地上奔跑,河边。",
    "a狗b犬c",
    "한국어 강아지가 달린다",
    "\u1112\u1161\u11ab",
    "がぎぐ か\u3099 ﾊﾟ",
    "\u4dbf\u4dc0\u4e00\u9fff\ua000\u3400 \uf900 \ufaff",
    "\U00020000\U0002a6df x \U0002a6e0 \U0002f800\U0002fa1d",
    "\U0002b820 \U0002b91f \U0002b920 \U0002ceaf",
    "हिन्दी में कुत्ता क़",
    "ภาษาไทย น้ำ",
    "עִבְרִית שָׁלוֹם",
    "العَرَبِيَّة كلب",
    "ශ්‍රී",
    "don't isn't O'Neil's rock'n'roll",
    "well-known -- co-op... e.g. U.S.A. (2nd) [3] {4}",
    "$5 #1 50% @home a&b ^_^ ~ ` | \\ / < = > +",
    "“quoted” ‘single’ «guillemets» – — … ‹x› ¿qué? ¡sí! § ¶ · † ‡ ‰ ′ ″",
    "₀¹²³ €5 £6 ¥7 © ® ™ ° ± × ÷ µ",
    "zero\u200bwidth\u200cjoin\u200der\u2060s \ufeffbom soft\u00adhyphen",
    "no\u00a0break\u2003em\u2009thin\u3000wide\u2028line\u2029para\u1680ogham",
    "\u205fmath\u202fnarrow",
    "bell\x07 back\x08 esc\x1b del\x7f vt\x0b ff\x0c nel\x85 c1\x9f",
    "a\ufffdb \ufffd \ufffe\uffff",
    "\ue000private\U000f0000use\U0010ffff",
    "😀 👍🏽 👨‍👩‍👧 🇫🇷 ☃️ 1️⃣ dog🐶dog",
    "x\U0001f9ff\U0001fae8y",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐐀𐐨 Ⓐⓐ Ａａ",
    "\u0378\u0379unassigned",
    "\u302e\u302a\u302f x\u302f\u302e\u1b44\u1b35 \U0001d165\U0001d16d\U0001d158\U0001d15f",
    "\u0345\u0345 \u1fb3 \u0390 \u1e9b\u0323 ſ",
    "ǅ ǆ Ǆ ŉ ǰ ΐ և ẖ ᾳ ᾼ Ꭰ ꭰ Ⴀ ⴀ ა Ა",
    "a\u0334\u0315b",
    "\u00b7\u0387 \u037e; \u1fef` \u2000\u2001 \u212a\u212b\u2126",
    "[SEP] [CLS][PAD] a[UNK]b [MASK]",
    "[sep] [Sep] [SEP [[SEP]] [ SEP ] SEP] [SE[SEP]P]",
    "dog[SEP]",
    "[SEP]dog",
    "[MASK]\u0301x",
    "[S\u00adEP]",
    "##ing # ##",
    "w" * 100,
    "w" * 101,
    "dog" * 33,
    "dog" * 34,
    "é" * 100,
    "é" * 101,
    "e\u0301" * 100,
    "e\u0301" * 101,
    "가" * 50,
    "가" * 51,
    "\u302e\u302a" * 60,
    "runningdogrunsqqq",
    "unaffable dogs-runner's",
    "dog " * 90,
]


def make_captions(rng, count):
    captions = []
    for _ in range(count):
        subject = " ".join(rng.sample(ADJECTIVES, rng.randint(0, 2)) + [rng.choice(SUBJECTS)])
        place = " ".join(rng.sample(PLACES, rng.randint(1, 2)))
        captions.append(
            f"{rng.choice(['A', 'The', 'Two', 'One'])} {subject} {rng.choice(VERBS)} {place} ."
        )
    return captions


def old_characters():
    """Characters that have meant the same since Unicode 3.2: everyone's tables agree on them."""
    old, new = unicodedata.ucd_3_2_0, unicodedata
    return [
        c
        for c in map(chr, range(1, 0x30000))
        if old.category(c) not in ("Cn", "Cs")
        and old.category(c) == new.category(c)
        and old.normalize("NFD", c) == new.normalize("NFD", c)
    ]


def make_random_texts(rng, count, words):
    """Pieces of text of many kinds, from few enough characters for a vocabulary to hold them."""
    characters = old_characters()

    def some(number, *categories):
        fitting = [c for c in characters if unicodedata.category(c).startswith(categories)]
        return rng.sample(fitting, min(len(fitting), number + count // 20))

    latin = [c for c in characters if ord(c) < 0x250]
    pools = [
        some(40, ""),
        some(20, "M"),
        [c for c in some(60, "M") if unicodedata.combining(c)],
        some(20, "Z", "Cc", "Cf"),
        some(30, "P"),
        rng.sample(latin, 60),
        [chr(c) for c in range(1, 128)],
        words,
        words,
        SPECIAL,
    ]
    texts = []
    for _ in range(count):
        pieces = []
        for _ in range(rng.randint(1, 8)):
            pieces += rng.choices(rng.choice(pools), k=rng.randint(1, 5))
            pieces += [" "] * (rng.random() < 0.3)
        texts.append(rng.choice([str, str, str.upper, str.title])("".join(pieces)))
    return texts


def words_of(text, lowercase):
    normalised = BertNormalizer(lowercase=lowercase).normalize_str(text)
    return [word for word, _ in BertPreTokenizer().pre_tokenize_str(normalised)]


def alphabet(words):
    """The characters of words: themselves, then those inside words as "##c"."""
    words = list(words)
    inside = sorted({c for w in words for c in w[1:]})
    return sorted({c for w in words for c in w}) + ["##" + c for c in inside]


def train(captions, lowercase, size, min_frequency):
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    letters = alphabet(w for c in captions for w in words_of(c, lowercase))
    tokenizer.train_from_iterator(
        captions,
        WordPieceTrainer(
            vocab_size=size,
            min_frequency=min_frequency,
            special_tokens=SPECIAL + letters,
            show_progress=False,
        ),
    )
    vocab = tokenizer.get_vocab()
    return sorted(vocab, key=vocab.get)


def training_case(captions, lowercase, size, min_frequency):
    return {
        "captions": captions,
        "lowercase": lowercase,
        "size": size,
        "min_frequency": min_frequency,
        "vocab": train(captions, lowercase, size, min_frequency),
    }


def random_training(rng):
    """Words over few letters: many ties, overlapping pairs, pieces reached by different merges."""
    letters = rng.choice(["ab", "abc", "aeé", "abcdefgh"])
    words = ["".join(rng.choices(letters, k=rng.randint(1, 9))) for _ in range(rng.randint(1, 40))]
    captions = [
        " ".join(rng.choices(words, k=rng.randint(0, 10))) for _ in range(rng.randint(1, 30))
    ]
    return training_case(captions, rng.random() < 0.5, rng.randint(25, 120), rng.randint(0, 4))


def model(lowercase, vocab, texts, max_tokens):
    """vocab: a list of tokens, or a path below REPOSITORY."""
    if isinstance(vocab, str):
        known = str(REPOSITORY / vocab)
    else:
        known = {token: i for i, token in enumerate(vocab)}
    tokenizer = BertWordPieceTokenizer(known, lowercase=lowercase)
    ids = []
    for text, limit in zip(texts, max_tokens):
        tokenizer.enable_truncation(limit)
        ids.append(tokenizer.encode(text).ids)
    return {"lowercase": lowercase, "vocab": vocab, "ids": ids}


def every_character():
    texts = [f"a{chr(c)}B" for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000]
    models = []
    for lowercase in (True, False):
        vocab = SPECIAL + alphabet(w for t in texts for w in words_of(t, lowercase))
        models.append(model(lowercase, vocab, texts, [64] * len(texts)))
    return {"training": [], "texts": texts, "max_tokens": [64] * len(texts), "models": models}


def reference(count, trainings, seed):
    rng = random.Random(seed)
    captions = make_captions(rng, 120) + [
        t
        for t in TRICKY
        if all(len(w) <= WORD_MAX_CHARS for w in words_of(t, False) + words_of(t, True))
    ]
    training = [training_case(captions, lowercase, 900, 2) for lowercase in (True, False)]
    training += [random_training(rng) for _ in range(trainings)]
    words = sorted({w for c in captions for w in words_of(c, False) if w and len(w) < 20})
    texts = TRICKY + make_captions(rng, 40) + make_random_texts(rng, count, words)
    max_tokens = [77 if rng.random() < 0.7 else rng.randint(2, 12) for _ in texts]
    max_tokens[: len(TRICKY)] = [77] * len(TRICKY)
    models = []
    for case in training[:2]:
        known = set(case["vocab"])
        letters = alphabet(w for t in texts for w in words_of(t, case["lowercase"]))
        vocab = case["vocab"] + [c for c in letters if c not in known and rng.random() < 0.8]
        models.append(model(case["lowercase"], vocab, texts, max_tokens))
    models.append(model(True, BERT_VOCAB, texts, max_tokens))
    return {"training": training, "texts": texts, "max_tokens": max_tokens, "models": models}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--random", type=int, default=400, help="number of random texts")
    parser.add_argument("--trainings", type=int, default=30, help="number of random trainings")
    parser.add_argument("--every-character", action="store_true", help="instead, all of Unicode")
    options = parser.parse_args()
    if options.every_character:
        data = every_character()
    else:
        data = reference(options.random, options.trainings, options.seed)
    data["made_by"] = f"make_tokenizer.py, tokenizers {tokenizers.__version__}"
    with open(options.output, "w", encoding="ascii") as file:
        json.dump(data, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
