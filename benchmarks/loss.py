#!/usr/bin/env python3
"""The contrastive loss alone, forward and backward, beside PyTorch's, interleaved in one run.

    python3 -m venv .venv && .venv/bin/pip install torch
    .venv/bin/python benchmarks/loss.py --binary build/release/bin/loss_benchmark

Against the usual formulation: scale * image @ text.T stored whole and two cross-entropies, with the
gradients of both sides and of the scale. All use random unit embeddings and the same number of
threads, in f32. Every repeat times one call of each, in turn; the ratios are the other's time over
clip-train's (above 1: clip-train is faster). Memory is what is taken beside the embeddings and
their gradients.

--device cuda compares on a GPU in bf16 (--precision chooses), and with Inf-CL (Cheng et al. 2024)
where its package, inf-cl, is installed.
"""
import argparse
import math
import os
import resource
import statistics
import sys
import time

from step import Worker


def peak_kib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def torch_worker(args):
    import torch
    from torch.nn import functional

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    cuda = args.device == "cuda"
    dtype = {"f32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16,
             "fp16": torch.float16}[args.precision]
    torch.backends.cuda.matmul.allow_tf32 = args.precision == "tf32"

    def rows():
        x = functional.normalize(torch.randn(args.pairs, args.width))
        return x.to(args.device, dtype).requires_grad_()

    image, text = rows(), rows()
    scale = torch.tensor(math.log(1 / 0.07), device=args.device, requires_grad=True)
    labels = torch.arange(args.pairs, device=args.device)

    def full():
        logits = scale.exp().to(dtype) * image @ text.T
        return (functional.cross_entropy(logits, labels)
                + functional.cross_entropy(logits.T, labels)) / 2

    def infcl():
        from inf_cl import cal_inf_loss
        return cal_inf_loss(image, text, scale=scale.exp())

    loss = {"full": full, "inf-cl": infcl}[args.side]
    for x in (image, text, scale):
        x.grad = torch.zeros_like(x)
    # What loading the libraries takes is not the loss's.
    functional.cross_entropy(image[:2] @ text[:2].T, labels[:2]).backward()
    start = torch.cuda.memory_allocated() >> 10 if cuda else peak_kib()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    for _ in sys.stdin:
        begin = time.perf_counter()
        value = loss()
        value.backward()
        if cuda:
            torch.cuda.synchronize()
        print(time.perf_counter() - begin, args.pairs, value.item(), flush=True)
    peak = torch.cuda.max_memory_allocated() >> 10 if cuda else peak_kib()
    print("peak", (peak - start) // 1024, flush=True)


def has_infcl():
    try:
        import inf_cl  # noqa: F401
    except ImportError:
        return False
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="build/release/bin/loss_benchmark")
    parser.add_argument("--pairs", type=int, default=8192)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["f32", "tf32", "bf16", "fp16"])
    parser.add_argument("--side", choices=["full", "inf-cl"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.precision = args.precision or ("bf16" if args.device == "cuda" else "f32")
    if args.side:
        return torch_worker(args)

    environment = dict(os.environ, OMP_NUM_THREADS=str(args.threads))
    ours = [args.binary, str(args.pairs), str(args.width), f"device={args.device}",
            f"precision={args.precision}", f"threads={args.threads}"]
    torch = [sys.executable, *sys.argv]
    workers = [Worker("clip-train", ours, environment),
               Worker("PyTorch, full matrix", torch + ["--side", "full"], environment)]
    if args.device == "cuda" and has_infcl():
        workers.append(Worker("Inf-CL", torch + ["--side", "inf-cl"], environment))
    for repeat in range(args.warmup + args.repeats):
        for worker in workers:
            worker.step(keep=repeat >= args.warmup)
    for worker in workers:
        worker.finish()

    # Ours has four products of 2 N^2 D operations, one of which forms the similarities again.
    flops = 8.0 * args.pairs**2 * args.width
    print(f"{args.pairs} pairs of {args.width}, {args.device} {args.precision}, {args.threads} "
          f"threads, {args.repeats} repeats")
    for worker in workers:
        ratios = [b / a for a, b in zip(workers[0].seconds, worker.seconds)]
        median = statistics.median(worker.seconds)
        rate = f"   {flops / median / 1e9:.0f} GFLOP/s" if worker is workers[0] else ""
        print(f"{worker.name:22} {median:9.4f} s   ratio {statistics.median(ratios):.2f} "
              f"({min(ratios):.2f} to {max(ratios):.2f})   memory {worker.peak_mib:.1f} MiB{rate}")


if __name__ == "__main__":
    main()
