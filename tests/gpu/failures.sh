#!/usr/bin/env bash
# Every failure that the SIMT device can inject into a short training run on the GPU backend: the k-th
# allocation, copy, launch, stream call or library call fails. Each must end in one clear message that
# names where it happened, exit status 1, and no leak (the SIMT device reports leaks as faults).
# A kind with many calls is sampled: all of the first 40, then evenly up to about 60 more.
# Usage: failures.sh SIMT_PROGRAM
set -euo pipefail
program=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

train() {
    rm -rf "$work/run"
    "$program" configs/quickstart.yaml "output=$work/run" device=cuda precision=bf16 image.size=32 \
        text.width=64 text.heads=1 text.depth=1 text.ffn=32 text.max_tokens=8 projection.dim=16 \
        train.batch_size=4 train.max_steps=3 train.warmup_steps=1 data.validation=4 data.workers=1 \
        >"$work/log" 2>&1
}

failed=0
for kind in alloc copy launch stream library; do
    export CT_SIMT_FAIL_KIND=$kind CT_SIMT_COUNT="$work/count"
    CT_SIMT_FAIL=0 train || { cat "$work/log"; echo "FAILED: the run without a failure"; exit 1; }
    calls=$(cat "$work/count")
    unset CT_SIMT_COUNT
    [ "$calls" -gt 0 ] || { echo "FAILED: no call of kind $kind was counted"; exit 1; }
    stride=$(((calls - 40) / 60 + 1))
    tried=0
    for ((k = 1; k <= calls; k += k <= 40 ? 1 : stride)); do
        status=0
        CT_SIMT_FAIL=$k train || status=$?
        messages=$(grep -c '^clip-train.*: ' "$work/log" || true)
        if [ $status -ne 1 ] || [ "$messages" -ne 1 ] || grep -q 'SIMT fault' "$work/log"; then
            echo "FAILED: $kind $k of $calls: exit status $status, $messages messages"
            tail -5 "$work/log"
            failed=1
        fi
        tried=$((tried + 1))
    done
    echo "$kind: $tried of $calls calls failed in turn; each ended the run with one message and no leak"
done
exit $failed
