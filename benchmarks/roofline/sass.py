#!/usr/bin/env bash
# What the loss's tile kernels issue, counted in their machine code (SASS): one line a kernel and
# architecture. Columns slab to copy are of the innermost loop with tensor-core instructions, a warp's
# turn on 64 bytes of terms (32 of 16-bit numbers, 16 of f32): all instructions, mma, ldmatrix, other
# shared loads, asynchronous copies. rest and exp are of the code outside of it, all instructions and
# exponentials, as they stand: a tile does not take every branch. The last column is a warp's
# instructions for one tile's product.
#   sass.sh OBJECT.o ... [-D WIDTH]      WIDTH: terms of the product, 512 unless told
# cuobjdump: in PATH, or from PyPI's nvidia-cuda-cuobjdump.
set -euo pipefail
width=512
objects=()
while [ $# -gt 0 ]; do
    case $1 in
    -D) width=${2:?a width}; shift 2 ;;
    *) objects+=("$1"); shift ;;
    esac
done
[ ${#objects[@]} -gt 0 ] || { echo "usage: sass.sh OBJECT.o ... [-D WIDTH]" >&2; exit 2; }
command -v cuobjdump > /dev/null || {
    echo "sass.sh: no cuobjdump in PATH; pip install nvidia-cuda-cuobjdump" >&2
    exit 2
}
for object in "${objects[@]}"; do cuobjdump -sass "$object"; done | c++filt | awk -v width="$width" '
    function flush(    i, j, from, to, best, op, slab, total, mma, matrix, shared, copies, exps, loop,
                       terms, turns) {
        if (!count) return
        # Innermost loop with tensor-core instructions: the shortest backward branch around any.
        best = 0
        for (i = 1; i <= count; i++)
            if (text[i] ~ / BRA/ && match(text[i], /0x[0-9a-f]+/)) {
                to = substr(text[i], RSTART, RLENGTH)
                if (!(to in at) || at[to] >= i) continue
                for (j = at[to]; j <= i; j++)
                    if (text[j] ~ /HMMA/) break
                if (j <= i && (!best || i - at[to] < best)) { best = i - at[to]; from = at[to]; end = i }
            }
        if (!best) { count = 0; return }
        for (i = 1; i <= count; i++) {
            if (text[i] ~ / NOP/) continue
            if (i >= from && i <= end) {
                slab++
                if (text[i] ~ /HMMA/) mma++
                if (text[i] ~ /LDSM/) matrix++
                if (text[i] ~ / LDS/ && text[i] !~ /LDSM/) shared++
                if (text[i] ~ /LDGSTS/) copies++
            } else {
                total++
                if (text[i] ~ /MUFU\.EX2/) exps++
            }
        }
        # A loop around one step only is a turn on half a slab.
        terms = kernel ~ /<float/ ? 16 : 32
        if (!copies) terms /= 2
        turns = int((width + terms - 1) / terms)
        printf "%-66s %-7s %6d %5d %5d %5d %5d %7d %6d %9d\n", kernel, architecture, slab, mma, matrix,
            shared, copies, total, exps, turns * slab
        count = 0
        delete at
    }
    BEGIN {
        printf "%-66s %-7s %6s %5s %5s %5s %5s %7s %6s %9s\n", "kernel", "arch", "slab", "mma", "ldsm",
            "lds", "copy", "rest", "exp", "D=" width
    }
    /^\tcode for|^code for/ { flush(); architecture = $NF }
    /Function :/ {
        flush()
        kernel = $0
        sub(/.*Function : /, "", kernel); sub(/^void /, "", kernel); sub(/>\(.*$/, ">", kernel)
        gsub(/ctk::loss::/, "", kernel); gsub(/\(loss_kind\)0/, "softmax", kernel)
        gsub(/\(loss_kind\)1/, "sigmoid", kernel)
    }
    /^ +\/\*[0-9a-f]+\*\/ +[^ \/]/ {
        address = $1; gsub(/[\/*]/, "", address); sub(/^0+/, "", address)
        line = $0; sub(/^ +\/\*[0-9a-f]+\*\//, "", line); sub(/\/\*.*$/, "", line)
        text[++count] = line
        at["0x" (address == "" ? "0" : address)] = count
    }
    END { flush() }'
