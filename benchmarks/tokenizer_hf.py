#!/usr/bin/env python3
"""Tokenizer speed beside Hugging Face's, one thread each, in turns, on the same captions.

    tokenizer_hf.py --program build/release/bin/tokenizer_benchmark \
        --vocab datasets/bert-base-uncased/vocab.txt

Three ways to call Hugging Face's tokenizer are timed: one batch without offsets (its fastest), one
caption a call, and, where `transformers` is installed, BertTokenizerFast on the list of captions.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"

from tokenizers import BertWordPieceTokenizer  # noqa: E402  (after the environment is set)

ADJECTIVES = "brown tan muddy little young old smiling red-haired barefoot spotted shaggy".split()
SUBJECTS = "dog man woman girl boy child surfer cyclist dalmatian toddler skateboarder".split()
VERBS = "runs jumps climbs sits plays splashes leaps races stands wrestles".split()
PLACES = """through the grass near a river|over a fallen log in the woods|on the beach at sunset
in front of a crowded fountain|at the top of a snowy mountain|beside the swimming pool
past a brick wall covered with graffiti|with a yellow frisbee in its mouth""".replace(
    "\n", "|"
).split("|")


def caption(rng):
    """Eleven words on average, e.g. "A brown dog runs through the grass near a river ."."""
    start = ["A", rng.choice(ADJECTIVES), rng.choice(SUBJECTS), rng.choice(VERBS)]
    return " ".join(start + [rng.choice(PLACES), "."])


def time_call(function):
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--program", required=True)
    parser.add_argument("--vocab", required=True)
    parser.add_argument("--captions", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    rng = random.Random(1)
    captions = [caption(rng) for _ in range(options.captions)]
    fast = BertWordPieceTokenizer(options.vocab, lowercase=True)
    fast.enable_truncation(77)
    batch = getattr(fast._tokenizer, "encode_batch_fast", fast._tokenizer.encode_batch)
    ways = {
        "HF, one batch": lambda: [e.ids for e in batch(captions)],
        "HF, a call each": lambda: [fast.encode(c).ids for c in captions],
    }
    try:
        from transformers import PreTrainedTokenizerFast

        wrapped = PreTrainedTokenizerFast(tokenizer_object=fast._tokenizer, pad_token="[PAD]")
        ways["transformers"] = lambda: wrapped(captions, truncation=True, max_length=77).input_ids
    except ImportError:
        pass

    seconds = {"clip-train": []} | {way: [] for way in ways}
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("".join(c + "\n" for c in captions))
        file.flush()
        for _ in range(options.rounds):
            printed = subprocess.run(
                [options.program, options.vocab, file.name, "1"],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            ours = json.loads(printed)
            seconds["clip-train"].append(ours["seconds"])
            for way, function in ways.items():
                taken, ids = time_call(function)
                seconds[way].append(taken)
                assert sum(map(len, ids)) == ours["tokens"], way
                assert sum(map(sum, ids)) == ours["id_sum"], way

    words = sum(len(c.split()) for c in captions) / len(captions)
    print(
        f"{len(captions)} captions of {words:.1f} words, {ours['tokens'] / len(captions):.1f} "
        f"tokens; median of {options.rounds} rounds in turns; ids equal"
    )
    base = statistics.median(seconds["clip-train"])
    for way, times in seconds.items():
        median = statistics.median(times)
        print(
            f"{way:16} {len(captions) / median:12,.0f} captions/s, {median / base:6.1f} x the time"
        )


if __name__ == "__main__":
    main()
