#!/usr/bin/env python3
"""A training step of clip-train beside PyTorch's, interleaved in one run.

    python3 -m venv .venv && .venv/bin/pip install torch torchvision transformers
    .venv/bin/python benchmarks/step.py --binary build/release/bin/step_benchmark

The model is ResNet-50 + DistilBERT with linear heads, f32, forward + backward + AdamW. PyTorch runs
eager, images channels_last, captions padded to 77 tokens or to the batch's longest (with the
attention mask). All use the same captions, token ids and number of threads; images are random bytes.
Every repeat times one step of each, in turn; the ratios are PyTorch's time over clip-train's (above
1: clip-train is faster), their median and range over the repeats.

--device cuda compares on a GPU: bf16 (PyTorch: autocast), fused AdamW, uploads of the pixels
included, PyTorch through torch.compile as well, and clip-train with cuda.fused_statistics.
"""
import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time


def read_captions(path):
    """Every fifth caption (one a photo) of a Flickr8k-style captions.txt."""
    import csv
    with open(path, newline="", encoding="utf-8") as f:
        rows = [row[1] for row in csv.reader(f)][1:]
    return rows[::5]


def torch_worker(args):
    import torch
    import torchvision
    from transformers import BertTokenizerFast, DistilBertConfig, DistilBertModel

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    cuda = args.device == "cuda"
    device = torch.device(args.device)
    tokenizer = BertTokenizerFast(vocab_file=args.vocab, do_lower_case=True)
    captions = read_captions(args.captions)
    image = torchvision.models.resnet50()
    image.fc = torch.nn.Linear(2048, 256, bias=False)
    image = image.to(device, memory_format=torch.channels_last)
    text = DistilBertModel(DistilBertConfig(vocab_size=args.vocab_size or len(tokenizer))).to(device)
    head = torch.nn.Linear(768, 256, bias=False, device=device)
    scale = torch.nn.Parameter(torch.tensor(2.6592, device=device))
    parameters = [*image.parameters(), *text.parameters(), *head.parameters(), scale]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=cuda)
    mean = torch.tensor([0.485, 0.456, 0.406], device=device).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], device=device).view(1, 3, 1, 1)
    raw = torch.randint(0, 256, (args.batch, args.size, args.size, 3), dtype=torch.uint8)
    raw = raw.pin_memory() if cuda else raw
    labels = torch.arange(args.batch, device=device)

    def forward(pixels, ids, mask):
        i = torch.nn.functional.normalize(image((pixels.permute(0, 3, 1, 2) / 255 - mean) / std))
        hidden = text(input_ids=ids, attention_mask=mask)
        t = torch.nn.functional.normalize(head(hidden.last_hidden_state[:, 0]))
        logits = scale.exp() * i @ t.T
        return (torch.nn.functional.cross_entropy(logits, labels)
                + torch.nn.functional.cross_entropy(logits.T, labels)) / 2

    if args.compile:
        forward = torch.compile(forward)
    position = 0
    for _ in sys.stdin:
        batch = [captions[(position + i) % len(captions)] for i in range(args.batch)]
        position += args.batch
        padding = {"padding": "longest"} if args.pad == "longest" else {
            "padding": "max_length", "max_length": 77}
        tokens = tokenizer(batch, return_tensors="pt", truncation=True, **padding)
        begin = time.perf_counter()
        ids = tokens["input_ids"].to(device, non_blocking=True)
        mask = tokens["attention_mask"].to(device, non_blocking=True)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=cuda):
            loss = forward(raw.to(device, non_blocking=True), ids, mask)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        value = loss.item()
        print(time.perf_counter() - begin, int(tokens["attention_mask"].sum()), value, flush=True)
    peak = (torch.cuda.max_memory_reserved() >> 20 if cuda
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    print("peak", peak, flush=True)


class Worker:
    def __init__(self, name, command, environment):
        self.name, self.seconds, self.tokens = name, [], []
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, env=environment)

    def step(self, keep):
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        if len(answer) != 3:
            sys.exit(f"{self.name} stopped early")
        if keep:
            self.seconds.append(float(answer[0]))
            self.tokens.append(int(answer[1]))

    def finish(self):
        self.process.stdin.close()
        self.peak_mib = float(self.process.stdout.readline().split()[1])
        self.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="build/release/bin/step_benchmark")
    parser.add_argument("--config", default="configs/flickr8k.yaml")
    parser.add_argument("--captions", default="datasets/scenes/captions.txt")
    parser.add_argument("--images", default="datasets/scenes/Images")
    parser.add_argument("--vocab", default="datasets/scenes/vocab.txt")
    parser.add_argument("--vocab-size", type=int, default=0, help="0: the vocabulary file's")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compile", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--pad", choices=["77", "longest"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.pad:
        return torch_worker(args)

    environment = dict(os.environ, OMP_NUM_THREADS=str(args.threads))
    ours = [args.binary, args.config, f"threads={args.threads}", f"train.batch_size={args.batch}",
            f"image.size={args.size}", f"data.captions={args.captions}",
            f"data.images={args.images}", f"text.vocab={args.vocab}", "projection.kind=linear",
            "projection.dim=256", "data.validation=0", "data.test=0", f"device={args.device}"]
    torch = [sys.executable, *sys.argv]
    workers = [Worker("clip-train", ours, environment),
               Worker("PyTorch, padded to 77", torch + ["--pad", "77"], environment),
               Worker("PyTorch, padded to longest", torch + ["--pad", "longest"], environment)]
    if args.device == "cuda":
        workers.append(Worker("torch.compile, padded to 77",
                              torch + ["--pad", "77", "--compile"], environment))
        fused = ["cuda.fused_statistics=true", "cuda.deterministic=false"]
        workers.append(Worker("clip-train, statistics fused", ours + fused, environment))
    for repeat in range(args.warmup + args.repeats):
        for worker in workers:
            worker.step(keep=repeat >= args.warmup)
    for worker in workers:
        worker.finish()

    figures = {"machine": platform.processor() or platform.machine(), "device": args.device, "threads": args.threads,
               "batch": args.batch, "size": args.size, "repeats": args.repeats, "workers": []}
    print(f"{args.batch} photos of {args.size} px, {args.threads} threads, {args.repeats} repeats; "
          f"mean {statistics.mean(workers[0].tokens):.0f} tokens a step")
    for worker in workers:
        ratios = [b / a for a, b in zip(workers[0].seconds, worker.seconds)]
        row = {"name": worker.name, "median_seconds": statistics.median(worker.seconds),
               "ratio_median": statistics.median(ratios), "ratio_min": min(ratios),
               "ratio_max": max(ratios), "peak_mib": worker.peak_mib}
        figures["workers"].append(row)
        print(f"{row['name']:28} {row['median_seconds']:7.3f} s/step   ratio "
              f"{row['ratio_median']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})   "
              f"peak {row['peak_mib']:.0f} MiB")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump(figures, f, indent=1)


if __name__ == "__main__":
    main()
