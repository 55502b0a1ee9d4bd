#!/usr/bin/env python3
"""Writes data/retrieval.json: embeddings of a small random set (times 1024) and its retrieval results, worked
out in double precision from the full sorted lists as the papers' evaluation scripts do it. Needs
torch."""
import argparse
import json
from pathlib import Path

import torch

PHOTOS, DIM, TOP = 40, 16, 5


def ranks(score, right):
    """The best place (from 1) of each row's right answers in its list, sorted by falling score."""
    order = score.argsort(dim=1, descending=True)
    hit = right.gather(1, order)
    return hit.int().argmax(dim=1) + 1, order[:, :TOP]


def summary(rank):
    rank = rank.double()
    recall = {f"r{k}": 100 * (rank <= k).double().mean().item() for k in (1, 5, 10)}
    ordered = rank.sort().values
    n = len(ordered)
    median = (ordered[(n - 1) // 2] + ordered[n // 2]).item() / 2
    return {**recall, "median_rank": median, "mean_rank": rank.mean().item()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    here = Path(__file__).resolve().parent
    parser.add_argument("--out", type=Path, default=here / "data/retrieval.json")
    parser.add_argument("--seed", type=int, default=2)
    args = parser.parse_args()
    generator = torch.Generator().manual_seed(args.seed)

    captions = torch.randint(1, 8, (PHOTOS,), generator=generator)
    owner = torch.repeat_interleave(torch.arange(PHOTOS), captions)
    owner = owner[torch.randperm(len(owner), generator=generator)]
    image = torch.randn(PHOTOS, DIM, generator=generator)
    text = image[owner] + 1.6 * torch.randn(len(owner), DIM, generator=generator)
    # Multiples of 1/1024, so that products and sums are exact in single precision too.
    image, text = (torch.nn.functional.normalize(x, dim=1).mul(1024).round().double()
                   for x in (image, text))

    score = image @ text.T
    gap = min(score.sort(dim=d).values.diff(dim=d).min().item() for d in (0, 1))
    assert gap > 0, "two scores are equal: choose another seed"
    own = owner[None, :] == torch.arange(PHOTOS)[:, None]
    image_rank, image_top = ranks(score, own)
    text_rank, text_top = ranks(score.T, own.T)
    golden = {
        "dim": DIM,
        "image_times_1024": image.int().tolist(), "text_times_1024": text.int().tolist(),
        "owner": owner.tolist(),
        "image_rank": image_rank.tolist(), "text_rank": text_rank.tolist(),
        "image_top": image_top.tolist(), "text_top": text_top.tolist(),
        "image_to_text": summary(image_rank), "text_to_image": summary(text_rank),
    }
    args.out.write_text(json.dumps(golden, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
