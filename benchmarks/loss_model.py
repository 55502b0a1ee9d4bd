#!/usr/bin/env python3
"""A MODEL, not a measurement, of the fused loss on GPUs: how long its kernels take at least, from
what they compute, move and issue, beside the least that the full matrix costs. No GPU is needed.

    benchmarks/loss_model.py [--width 512] [--pairs 4096 32768 262144]

A kernel takes as long as the busiest of: tensor cores, shared memory, instruction issue, the units
for exponentials, L2, memory. Nothing is added for latency, barriers, launches or clocks that drop
under load, so real times are longer. What is assumed of each kernel (kernels/loss_tile.cuh,
loss_fwd.cuh, loss_bwd.cuh) stands beside the numbers below.
"""
import argparse
from math import ceil

TILE, WARPS, SCHEDULERS, CHUNK, BAND_TILES, SM_BLOCKS = 128, 8, 4, 4096, 32, 2

# Peaks, dense: NVIDIA A100 80GB datasheet (2021), H100 SXM5 datasheet (2022). clock: the one that
# the peak implies. mma: the part of the peak that mma.sync reaches; only wgmma reaches all of it on
# Hopper (Luo et al. 2025, arXiv 2501.12084, section 6.2: 62.9 % on average). l2: bytes/s, measured:
#   A100: 5.4 TB/s up to 26 MB, 3.6 at 34 MB (github.com/te42kyfo/gpu-benches, gpu-l2-cache/
#         a100_80.txt). The peak, 5120 bytes a clock (A100 whitepaper, p. 35), would be 7.2.
#   H100: 6.9 to 7.0 up to 37 MB, but on the PCIe board (h100_pcie.txt there); its H800 sister gave
#         4472 bytes a clock, 7.8 TB/s (Luo et al. 2024, arXiv 2402.13499, table V). An H200, with
#         an H100 SXM's die, gave 9.7 (h200.txt): l2_other, for a second estimate.
# B200 is left out: what mma.sync reaches there, where the tensor cores are made for tcgen05, and
# what its L2 gives to cp.async, no source says that we would trust.
GPUS = {
    "A100": dict(sm="sm_80", sms=108, clock=1.41e9, bf16=312e12, tf32=156e12, fma=19.5e12, mma=1.0,
                 memory=2.039e12, l2=5.4e12, l2_chunk=3.6e12),
    "H100": dict(sm="sm_90", sms=132, clock=1.83e9, bf16=989.4e12, tf32=494.7e12, fma=67e12,
                 mma=0.629, memory=3.35e12, l2=7.0e12, l2_chunk=6.9e12, l2_other=9.7e12),
}
# roofline/sass.py: a warp's instructions a slab, and a tile; products: of dz and dz^T, on average.
SASS = {
    "bf16": {"sm_80": dict(sums=(116, 784), gradients=(94, 1061), products=(115, 531)),
             "sm_90": dict(sums=(114, 812), gradients=(95, 1090), products=(116, 543))},
    "f32": {"sm_80": dict(sums=(532, 761), gradients=(545, 1002), products=(589, 509)),
            "sm_90": dict(sums=(536, 785), gradients=(545, 1028), products=(600, 520))},
}
PAIRS = 550  # at least so many more with same_image: mask, the default (read in the SASS for sm_90)
EXPONENTIALS = {"sums": 64, "gradients": 80, "products": 0}  # a thread and tile


class Kernel:
    """How long one launch takes, and what binds it: the busiest resource and all within 2 %."""

    def __init__(self, gpu, dtype, kind, tiles, blocks, terms, others, memory):
        g = GPUS[gpu]
        size, products, peak = (2, 1, g["bf16"]) if dtype == "bf16" else (4, 3, g["tf32"])
        # Blocks in turns of two a multiprocessor; one alone is taken to be twice as fast.
        turns, rest = divmod(blocks, SM_BLOCKS * g["sms"])
        last = 0 if not rest else 1 if rest <= g["sms"] else 2
        tiles_an_sm = (2 * turns + last) * tiles / blocks
        slabs = ceil(terms * size / 64)
        slab, tile = SASS[dtype][g["sm"]][kind]
        instructions = slabs * slab + tile + (0 if kind == "products" else PAIRS)
        flops_a_clock = peak * g["mma"] / g["clock"] / g["sms"]
        cycles = {
            "tensor cores": products * 2 * TILE * TILE * terms / flops_a_clock,
            # 128 bytes a clock: 8 warps read 64 + 32 lines each, copies write 2 x 128; no conflicts
            "shared memory": slabs * 64 * (WARPS * (64 + 32) + 2 * TILE) / 128,
            "issue": instructions * WARPS / SCHEDULERS,
            "exponentials": EXPONENTIALS[kind] * WARPS * 32 / 16,  # 16 a clock
        }
        times = {name: tiles_an_sm * c / g["clock"] for name, c in cycles.items()}
        # A tile reads its lines from L2, none from L1; others, written or read, cost as much.
        l2 = g["l2_chunk" if kind == "products" else "l2"]
        times["L2"] = (tiles * 2 * TILE * terms * size + others) / l2
        times["memory"] = memory / g["memory"]
        self.seconds = max(times.values())
        self.bound = " and ".join(name for name, t in times.items() if t > 0.98 * self.seconds)


def forward(gpu, dtype, n, d):
    """Bands of 32 row tiles, each followed by end_band; returns kernels and workspace."""
    size, sms, tiles = 2 if dtype == "bf16" else 4, GPUS[gpu]["sms"], ceil(n / TILE)
    down = min(tiles, BAND_TILES)
    run = min(max(down * tiles // (8 * sms), 1), 16)
    runs, bands = ceil(tiles / run), ceil(tiles / down)
    sums = 8 * down * n  # a row tile's sums of all columns, written and read once
    # Text comes from memory once a band, image once.
    tile_kernel = Kernel(gpu, dtype, "sums", down * tiles, down * runs, d, sums,
                         (n + down * TILE) * d * size + sums)
    end = (sums + 16 * n) / GPUS[gpu]["memory"]
    return [tile_kernel] * bands, bands * end, sums + 8 * n + 12 * runs * down * TILE


def backward(gpu, dtype, n, d):
    """Chunks of 4096 x 4096 pairs: similarities once more to dz; two products of dz in a grid."""
    size, side = 2 if dtype == "bf16" else 4, min(n, CHUNK)
    down, chunks = ceil(side / TILE), ceil(n / CHUNK) ** 2
    dz, lines = side * side * size, side * d * size
    # dz is counted as leaving L2: written once, read once by each product. It need not.
    tiles = down * down
    similarities = Kernel(gpu, dtype, "gradients", tiles, tiles, d, dz, dz + 2 * lines)
    # Sums of both gradients, f32, read and written, where there are several chunks; else results.
    results = 16 * side * d if chunks > 1 else 2 * lines
    tiles = 2 * down * ceil(d / TILE)
    products = Kernel(gpu, dtype, "products", tiles, tiles, side, results,
                      2 * dz + 2 * lines + results)
    sums = 4 * (side + n) * d if chunks > 1 else 0
    return [similarities, products] * chunks, dz + sums


def unfused(gpu, dtype, n, d):
    """PyTorch's two cross-entropies of a stored N x N matrix, in passes over it (in logits' dtype):
    logits written; row log-softmax 1 read, 1 written; transposed copy and its log-softmax 2 + 2;
    backward: of each a gradient filled, 2 read, 1 written; their sum 2 read, 1 written; two
    products read. At most four matrices live at once, which is what was measured on a processor.
    Products at the full peak; elementwise passes at memory's."""
    g, size = GPUS[gpu], 2 if dtype == "bf16" else 4
    matrix = n * n * size
    peak = g["bf16"] if dtype == "bf16" else g["fma"]  # PyTorch multiplies f32 without tensor cores
    products = 3 * max(2 * n * n * d / peak, matrix / g["memory"])
    return products + 17 * matrix / g["memory"], 4 * matrix


def ms(seconds):
    return f"{seconds * 1e3:,.{0 if seconds > 0.1 else 1 if seconds > 0.01 else 2}f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--pairs", type=int, nargs="+", default=[4096, 32768, 262144])
    args = parser.parse_args()
    print(f"MODEL, not measured: least times of the loss, {args.width} numbers an embedding, one "
          "rank.\nIn brackets what binds; of backward: similarities, products. TFLOPS: 8 N^2 D "
          "over both times.\nMatrix: PyTorch's two cross-entropies of the stored N x N matrix.\n")
    print("| GPU | dtype | N | forward, ms | backward, ms | TFLOPS | workspace, MB "
          "| matrix, ms | matrix, MB | matrix/fused |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    other = {name: dict(g, l2=g["l2_other"], l2_chunk=g["l2_other"]) for name, g in GPUS.items()
             if "l2_other" in g}
    for label, gpus in (("", GPUS), (", L2 at 9.7 TB/s", other)):
        for gpu in list(gpus):
            kept, GPUS[gpu] = GPUS[gpu], gpus[gpu]
            for dtype in ("bf16",) if label else ("bf16", "f32"):
                for n in args.pairs:
                    tiles, ends, fwd_bytes = forward(gpu, dtype, n, args.width)
                    chunks, bwd_bytes = backward(gpu, dtype, n, args.width)
                    fwd = sum(k.seconds for k in tiles) + ends
                    bwd = sum(k.seconds for k in chunks)
                    full, full_bytes = unfused(gpu, dtype, n, args.width)
                    binds = dict.fromkeys(k.bound for k in chunks)
                    print(f"| {gpu}{label} | {dtype} | {n:,} | {ms(fwd)} ({tiles[0].bound}) | "
                          f"{ms(bwd)} ({', '.join(binds)}) | "
                          f"{8 * n * n * args.width / (fwd + bwd) / 1e12:.0f} | "
                          f"{max(fwd_bytes, bwd_bytes) / 1e6:,.0f} | {ms(full)} | "
                          f"{full_bytes / 1e6:,.0f} | {full / (fwd + bwd):.1f} |")
            GPUS[gpu] = kept
    print("""
What would lift it. Shared memory: a warp reads 96 lines for its 64 x 32 results; wgmma reads each
operand once for four warps. L2: tiles shared by a cluster's multicast. Both make a kernel for sm_90
alone. An A100's products of dz are 256 blocks at D = 512, of which 216 run at once, and the last 40
cost half as much again: cut along their terms they would fill it. Forward's last turn is half empty
at N = 32,768 (4.5 turns of blocks, 5 paid). f32: three TF32 products each, by design.""")


if __name__ == "__main__":
    main()
