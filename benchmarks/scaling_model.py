#!/usr/bin/env python3
"""What several GPUs cost on paper: bytes between ranks a step, and how much of their time hides
behind backward. A MODEL: nothing here was measured.

    python3 benchmarks/scaling_model.py [--batch 256] [--gpus 8 64 512]

ResNet-50 + DistilBERT as configs/flickr30k.yaml has them, bf16, `--batch` pairs a GPU. Assumed:
- a GPU computes a step at `--efficiency` of the bound of benchmarks/roofline (H100, 256 pairs: 34.9
  ms, of which backward is two thirds): an assumption, for no step has been timed on a GPU yet;
- collectives run as rings: an all-reduce of B bytes moves 2 (R - 1)/R B through each GPU's slowest
  link, an all-gather or reduce-scatter (R - 1)/R B; each of the R - 1 or 2 (R - 1) hops adds the
  link's latency;
- within a machine of 8 GPUs NVLink 4, 450 GB/s each way (NVIDIA H100 datasheet, 2022), 80 % of it
  used; between machines one 400 Gb/s InfiniBand NDR port a GPU, 50 GB/s, 90 % used; a ring over
  machines is as slow as the ports. Hops: 1 us within, 3 us between machines; NCCL's trees are
  faster for small messages, so latencies are an upper bound.
- buckets of distributed.bucket_mib start as backward goes: all but the last, which holds the first
  layers, can hide. Embeddings, photo ids and columns' statistics stand between forward and backward:
  nothing hides them.
"""
import argparse

MIB = 2**20
IMAGE, TEXT, DIM = 23_508_032, 66_362_880, 512  # parameters: torchvision, Hugging Face
HEADS = DIM * (2048 + 768) + 1
STEP_MS, STEP_PAIRS = 34.9, 256


def ring(size, gpus, passes, link):
    """Seconds of `passes` trips of `size` bytes around a ring."""
    bandwidth, latency = link
    return passes * ((gpus - 1) / gpus * size / bandwidth + (gpus - 1) * latency)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256, help="pairs a GPU")
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--efficiency", type=float, default=0.5)
    parser.add_argument("--bucket-mib", type=float, default=25)
    args = parser.parse_args()

    parameters = IMAGE + TEXT + HEADS
    step = STEP_MS * 1e-3 * args.batch / STEP_PAIRS / args.efficiency
    backward = step * 2 / 3
    print(f"MODEL, not a measurement: ResNet-50 + DistilBERT, {parameters / 1e6:.1f} M parameters, "
          f"{args.batch} pairs a GPU,\na step of {step * 1e3:.1f} ms on one H100 (assumed).\n")
    print("| GPUs | link | gradients | MB a GPU | reduce, ms | hidden, ms | gathers, MB | ms "
          "| exposed, ms | efficiency |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for gpus in args.gpus:
        link = (450e9 * 0.8, 1e-6) if gpus <= 8 else (50e9 * 0.9, 3e-6)
        pairs = args.batch * gpus
        # Both embeddings in bf16, ids, rows' and columns' log-sum-exps (parts once, then merged).
        gathered = pairs * (2 * DIM * 2 + 4 + 3 * 4)
        gather = ring(gathered, gpus, 1, link) + 5 * (gpus - 1) * link[1]
        for name, number in (("f32", 4), ("bf16", 2)):
            size = parameters * number
            buckets = max(1, round(size / (args.bucket_mib * MIB * number / 4)))
            reduce = (ring(size, gpus, 2, link)
                      + (buckets - 1) * 2 * (gpus - 1) * link[1])
            last = reduce / buckets
            hidden = min(reduce - last, backward)
            exposed = reduce - hidden + gather
            moved = 2 * (gpus - 1) / gpus * size
            kind = "NVLink" if gpus <= 8 else "InfiniBand"
            print(f"| {gpus} | {kind} | {name} | {moved / 1e6:.0f} | {reduce * 1e3:.1f} "
                  f"| {hidden * 1e3:.1f} | {gathered / 1e6:.1f} | {gather * 1e3:.1f} "
                  f"| {exposed * 1e3:.1f} | {step / (step + exposed) * 100:.0f} % |")


if __name__ == "__main__":
    main()
