#!/usr/bin/env python3
"""What the loss's tile kernels issue, counted in their machine code (SASS): a line a product,
kernel and architecture.

    sass.py OBJECT.o ... [-D TERMS] [--arch sm_90]

slab      a warp's instructions for 64 bytes of terms of each line (32 terms of 16-bit numbers, 16
          of f32), which is the innermost loop, or that and the loop around it where the compiler
          left two turns of half a slab each
mma, ldm, lds, copy
          of these, tensor-core instructions, matrix loads, other loads of shared memory,
          asynchronous copies
tile      the fewest instructions that a tile needs before and after its slabs: whole tiles off the
          diagonal, no pair left out
exp       exponentials on that way
D=...     slabs of so many terms, and the tile's: a warp's instructions a tile
dz, dz^T  the two products of the kernel gradient_tiles

cuobjdump and nvdisasm: in PATH, or from PyPI's nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm.
"""
import argparse
import heapq
import re
import shutil
import subprocess
import sys

LINE = re.compile(r"^ +/\*([0-9a-f]+)\*/ +(.+?) *;")


def kernels(sass):
    """Yields (name, architecture, [(address, text)])."""
    found = []
    for line in sass.splitlines():
        if match := re.search(r"code for (sm_\w+)", line):
            architecture = match[1]
        elif match := re.search(r"Function : (.*)", line):
            found.append((match[1].strip(), architecture, []))
        elif found and (match := LINE.match(line)):
            found[-1][2].append((int(match[1], 16), match[2]))
    return found


def successors(code):
    at = {address: i for i, (address, _) in enumerate(code)}
    edges, loops = [], []
    for i, (_, text) in enumerate(code):
        predicated, op = text.startswith("@"), re.sub(r"^@!?\w+ +", "", text)
        after, goes_on = [], True
        if op.startswith("BRA"):
            target = at[int(re.search(r"0x([0-9a-f]+)$", op)[1], 16)]
            after.append(target)
            goes_on = predicated or "," in op
            if target < i:
                loops.append((target, i))
        elif op.startswith(("EXIT", "RET")):
            goes_on = predicated
        if goes_on and i + 1 < len(code):
            after.append(i + 1)
        edges.append(after)
    return edges, sorted(loops, key=lambda loop: loop[1] - loop[0])


def shortest(code, edges, start, end):
    """The instructions of the shortest way from start to end; empty where there is none."""
    best, before, queue = {start: 0}, {}, [(0, start)]
    while queue:
        length, i = heapq.heappop(queue)
        if i == end:
            break
        for j in edges[i]:
            if length + 1 < best.get(j, sys.maxsize):
                best[j], before[j] = length + 1, i
                heapq.heappush(queue, (length + 1, j))
    if end not in best:
        return []
    way = [end]
    while way[-1] != start:
        way.append(before[way[-1]])
    return [code[i][1] for i in reversed(way) if not code[i][1].startswith("NOP")]


def products(code):
    """Yields (slab's instructions, tile's) of each product."""
    edges, loops = successors(code)
    has = lambda loop, op: any(op in text for _, text in code[loop[0]:loop[1] + 1])
    inside = lambda a, b: b[0] <= a[0] and a[1] <= b[1] and a != b
    text_of = lambda a, b: [t for _, t in code[a:b] if not t.startswith("NOP")]
    loops = [loop for loop in loops if has(loop, "HMMA")]
    for inner in loops:
        if any(inside(other, inner) for other in loops):
            continue
        slab = next(loop for loop in [inner] + loops
                    if has(loop, "LDGSTS") and (loop == inner or inside(inner, loop)))
        turns = text_of(inner[0], inner[1] + 1)
        turns = text_of(slab[0], inner[0]) + turns * (1 if slab == inner else 2) + \
            text_of(inner[1] + 1, slab[1] + 1)
        # A tile is a turn of the loop around, or all that the block does.
        around = next((loop for loop in loops if inside(slab, loop)), None)
        start = around[0] if around else 0
        exits = [i for i, (_, text) in enumerate(code) if text.startswith("EXIT")]
        ends = [around[1]] if around else exits
        after = [shortest(code, edges, slab[1] + 1, end) for end in ends]
        yield turns, shortest(code, edges, start, slab[0])[:-1] + min(filter(None, after), key=len)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objects", nargs="+", metavar="OBJECT.o")
    parser.add_argument("-D", dest="terms", type=int, default=512)
    parser.add_argument("--arch", help="only this architecture")
    args = parser.parse_args()
    for tool in ("cuobjdump", "nvdisasm", "c++filt"):
        if not shutil.which(tool):
            sys.exit(f"sass.py: no {tool} in PATH")
    run = lambda *command: subprocess.run(command, check=True, stdout=subprocess.PIPE,
                                          text=True).stdout
    print(f"{'kernel':56} {'arch':7} {'slab':>5} {'mma':>4} {'ldm':>4} {'lds':>4} {'copy':>4} "
          f"{'tile':>5} {'exp':>4} {'D=' + str(args.terms):>7}")
    for path in args.objects:
        option = ["-arch", args.arch] if args.arch else []
        for name, architecture, code in kernels(run("cuobjdump", "-sass", *option, path)):
            name = re.sub(r">\(.*", ">", run("c++filt", name).strip().removeprefix("void "))
            for long, short in (("ctk::loss::", ""), ("(loss_kind)0", "softmax"),
                                ("(loss_kind)1", "sigmoid"), ("__nv_bfloat16", "bf16"),
                                ("__half", "f16"), ("float, true", "f32 (3xTF32)"),
                                ("float", "f32 (TF32)"), (", false", "")):
                name = name.replace(long, short)
            for slab, tile in products(code):
                # Loads that the compiler puts before copies, never executed, still take their turn.
                loads = [t for t in slab if " LDS" in " " + t and not t.startswith("@!PT")]
                matrix = [t for t in loads if "LDSM" in t]
                side = ""
                if "gradient_tiles" in name:
                    side = " dz" if any(".MT88" not in t for t in matrix) else " dz^T"
                count = lambda op, text: sum(op in t for t in text)
                terms = 16 if "f32" in name else 32
                total = -(-args.terms // terms) * len(slab) + len(tile)
                print(f"{name + side:56} {architecture:7} {len(slab):5} {count('HMMA', slab):4} "
                      f"{len(matrix):4} {len(loads) - len(matrix):4} {count('LDGSTS', slab):4} "
                      f"{len(tile):5} {count('MUFU.EX2', tile):4} {total:7}")


if __name__ == "__main__":
    main()
