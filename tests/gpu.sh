#!/usr/bin/env bash
# Everything that needs a GPU, in one command, in under ten minutes on one H100: builds, runs every
# operation's cases on the device in every precision, compares whole models with PyTorch's references,
# runs the cases under compute-sanitizer, trains against the CPU, and measures the loss and a training
# step beside PyTorch's. Writes a report to benchmarks/results/.
#   tests/gpu.sh [--no-benchmarks]
# The benchmarks need PYTHON (default: python3) with torch, and the step's torchvision and transformers
# too; without them they are left out, and the report says so.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
benchmarks=yes
[ "${1:-}" = "--no-benchmarks" ] && benchmarks=no

command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null ||
    { echo "gpu.sh: no NVIDIA driver or GPU here (nvidia-smi does not run)" >&2; exit 1; }
gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1)
report=benchmarks/results/$(date +%F)-$(tr -cs '[:alnum:]\n' '-' <<<"$gpu").md
commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
steps=()

# step TITLE command ...: runs it, shows its output, and notes how it went and how long it took.
step() {
    local title=$1 begin=$SECONDS log
    shift
    log=$(mktemp)
    echo "== $title"
    if "$@" 2>&1 | tee "$log"; then
        steps+=("| $title | passed | $((SECONDS - begin)) s | $(tail -1 "$log" | tr '|' ' ') |")
    else
        steps+=("| $title | **failed** | $((SECONDS - begin)) s | $(tail -1 "$log" | tr '|' ' ') |")
        failed=yes
    fi
    rm -f "$log"
}
failed=no

build() {
    scripts/install-deps.sh && cmake --preset release -DCT_GPU=ON >/dev/null &&
        cmake --build --preset release
}
step "build" build
bin=build/release/bin
if [ $failed = no ]; then
    step "registers and shared memory" scripts/check-kernels.sh build/release /dev/null
    step "operations on the GPU, f32, tf32, bf16, f16" $bin/test_op_cuda
    step "whole models on the GPU against PyTorch's references, f32" timeout 120 $bin/test_model_cuda
    if command -v compute-sanitizer >/dev/null; then
        # Each tool slows kernels down by ten to a hundred times: a shard of the cases each.
        for tool in memcheck racecheck synccheck initcheck; do
            step "compute-sanitizer $tool" env CT_TEST_SHARD=1/4 timeout 150 \
                compute-sanitizer --tool $tool --error-exitcode 9 $bin/test_op_cuda
        done
    else
        steps+=("| compute-sanitizer | **not found** | | |")
    fi
    step "training against the CPU" \
        tests/gpu/training.sh $bin/clip-train $bin/clip-train 200 curve vit graphs bf16 fp16
fi
if [ $failed = no ] && [ $benchmarks = yes ]; then
    if "$python" -c 'import torch' 2>/dev/null; then
        step "the loss beside PyTorch's full matrix" timeout 90 "$python" benchmarks/loss.py \
            --device cuda --precision bf16 --pairs 32768 --repeats 10 --warmup 3
    else
        steps+=("| the loss beside PyTorch's full matrix | left out: $python has no torch | | |")
    fi
    if "$python" -c 'import torch, torchvision, transformers' 2>/dev/null; then
        step "a training step beside PyTorch" timeout 240 "$python" benchmarks/step.py \
            --device cuda --batch 128 --repeats 20 --warmup 5
    else
        steps+=("| a training step beside PyTorch | left out: $python has no torch, torchvision and transformers | | |")
    fi
fi

mkdir -p "$(dirname "$report")"
{
    echo "# $gpu, commit $commit"
    echo
    echo "\`tests/gpu.sh\`, $(date +%F). $(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -1 | sed 's/^/Driver /'), $(${CUDACXX:-nvcc} --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/CUDA \1/p')."
    echo
    echo "| what | outcome | time | last line |"
    echo "|---|---|---|---|"
    printf '%s\n' "${steps[@]}"
} | tee "$report"
echo "report: $report, $SECONDS s in all"
[ $failed = no ]
