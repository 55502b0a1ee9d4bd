#!/usr/bin/env bash
# Fails when ptxas spilled registers in any kernel, for any architecture, or when a kernel is past its
# budget of registers or static shared memory (kernels/budgets.txt). Prints one line a kernel and
# architecture: kernel, architecture, registers, static shared bytes, stack bytes, spilled bytes.
#   check-kernels.sh BUILD_FOLDER [table.tsv]
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: check-kernels.sh BUILD_FOLDER [table.tsv]" >&2; exit 2; }
budgets=$(dirname "$0")/../kernels/budgets.txt
table=${2:-/dev/stdout}
mapfile -t logs < <(find "$1" -name '*.cu.o.ptxas' | sort)
if [ ${#logs[@]} -eq 0 ]; then
    echo "check-kernels: no *.cu.o.ptxas below $1: build with nvcc first" >&2
    exit 1
fi
cat "${logs[@]}" | c++filt | awk -v budgets="$budgets" -v table="$table" '
    BEGIN {
        while ((getline line < budgets) > 0) {
            if (line ~ /^#/ || line ~ /^ *$/) continue
            split(line, field, " ")
            prefix[++rules] = field[1]; registers_most[rules] = field[2]; shared_most[rules] = field[3]
        }
    }
    # The kernel is named twice; template arguments and parameters hold spaces.
    /Compiling entry function/ {
        split($0, quoted, "\047"); kernel = quoted[2]; architecture = quoted[4]
        gsub(/\(anonymous namespace\)::/, "", kernel); sub(/^void /, "", kernel)
        if (kernel ~ />\(/) sub(/>\(.*$/, ">", kernel)
        else sub(/\(.*$/, "", kernel)
        stack = spilled = registers = shared = 0
    }
    /bytes stack frame/ { stack = $1; spilled = $5 + $9 }
    /: Used [0-9]+ registers/ {
        for (i = 1; i <= NF; i++) {
            if ($i == "Used") registers = $(i + 1)
            if ($i ~ /^smem/) shared = $(i - 2)
        }
        printf "%s\t%s\t%d\t%d\t%d\t%d\n", kernel, architecture, registers, shared, stack, spilled > table
        kernels++
        rule = 0
        for (r = 1; r <= rules; r++)
            if (prefix[r] == "*" || index(kernel, prefix[r]) == 1) { rule = r; break }
        if (spilled > 0) {
            printf "check-kernels: %s on %s spills %d bytes\n", kernel, architecture, spilled > "/dev/stderr"
            bad = 1
        }
        if (!rule || registers > registers_most[rule] || shared > shared_most[rule]) {
            printf "check-kernels: %s on %s: %d registers and %d bytes of shared memory, budget %s %s\n",
                kernel, architecture, registers, shared, registers_most[rule], shared_most[rule] > "/dev/stderr"
            bad = 1
        }
    }
    END {
        printf "%d kernels x architectures, no spill, all within budget: %s\n", kernels, bad ? "no" : "yes" > "/dev/stderr"
        exit bad || kernels == 0
    }'
