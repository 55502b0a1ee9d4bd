#!/usr/bin/env bash
# Failures that the SIMT device injects into a short training run on the GPU backend: the k-th
# allocation (or release), copy, launch, stream call or library call fails. Each must either end the run
# with exit status 1 and one message, or be one that can be done without (more staging memory, a
# release at the end): then the run must write the very tensors that an undisturbed one writes. Never a
# leak or a fault, which the SIMT device reports.
# SAMPLES calls of each kind are tried, spread evenly over the run; "all" tries every one.
# Usage: failures.sh SIMT_PROGRAM SAMPLES [key=value ...]
set -euo pipefail
program=$1 samples=$2
shift 2
overrides=("$@")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

train() {
    rm -rf "$work/run"
    "$program" configs/quickstart.yaml "output=$work/run" device=cuda precision=bf16 image.size=32 \
        text.width=64 text.heads=1 text.depth=1 text.ffn=32 text.max_tokens=8 projection.dim=16 \
        train.batch_size=4 train.max_steps=2 train.warmup_steps=1 data.validation=2 data.workers=1 \
        ${overrides[@]+"${overrides[@]}"} >"$work/log" 2>&1
}

# The checkpoint's bytes, or nothing.
tensors() { sha256sum 2>/dev/null <"$(echo "$work"/run/checkpoint-*.safetensors)" || true; }

failed=0
for kind in alloc copy launch stream library; do
    export CT_SIMT_FAIL_KIND=$kind CT_SIMT_COUNT="$work/count"
    CT_SIMT_FAIL=0 train || { cat "$work/log"; echo "FAILED: the run without a failure"; exit 1; }
    expected=$(tensors)
    calls=$(cat "$work/count")
    unset CT_SIMT_COUNT
    [ "$calls" -gt 0 ] || { echo "FAILED: no call of kind $kind was counted"; exit 1; }
    count=$calls
    [ "$samples" = all ] || [ "$samples" -ge "$calls" ] || count=$samples
    ended=0
    for ((i = 0; i < count; i++)); do
        k=$((i * calls / count + 1))
        status=0
        CT_SIMT_FAIL=$k train || status=$?
        messages=$(grep -c '^error: \|^clip-train: ' "$work/log" || true)
        if [ $status -eq 0 ] && [ "$(tensors)" = "$expected" ]; then continue; fi
        if [ $status -eq 1 ] && [ "$messages" -eq 1 ] && ! grep -q 'SIMT fault' "$work/log"; then
            ended=$((ended + 1))
            continue
        fi
        echo "FAILED: $kind $k of $calls: exit status $status, $messages messages"
        tail -5 "$work/log"
        failed=1
    done
    echo "$kind: $count of $calls calls failed in turn; $ended ended the run with one message, the others did no harm"
done
exit $failed
