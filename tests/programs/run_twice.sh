#!/usr/bin/env bash
# Whole runs of clip-train on the bundled photos: the same seed gives the same bytes; stopping in any
# way (by --stop-at, SIGINT or SIGKILL) and resuming gives the bytes of the run that never stopped.
# Usage: run_twice.sh BIN_FOLDER
set -euo pipefail
bin=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

common=(configs/quickstart.yaml train.max_steps=24 train.batch_size=8 image.size=32
    data.validation=40 data.test=0 text.depth=1 train.checkpoint_every=5 train.eval_every=0
    train.keep_checkpoints=0 train.warmup_steps=4 threads=2)
last=checkpoint-000000024.safetensors

train() { # FOLDER [arguments]
    local folder=$1
    shift
    "$bin/clip-train" --quiet "${common[@]}" "output=$work/$folder" "$@" 2>"$work/log"
}
# Everything but the times in the metrics, and the output folder in the checkpoint's configuration.
metrics() { sed -E 's/,"photos_per_second":[^,}]*//; s/,"data_wait_share":[^,}]*//' "$work/$1/metrics.jsonl"; }
tensors() { tail -c +"$((9 + $(od -An -tu8 -N8 "$1")))" "$1" | sha256sum; }
same() { # FOLDER: equal to the unbroken run
    [ "$(tensors "$work/whole/$last")" = "$(tensors "$work/$1/$last")" ] ||
        { echo "FAILED: $1: the final checkpoint differs"; exit 1; }
    diff <(metrics whole) <(metrics "$1") >/dev/null ||
        { echo "FAILED: $1: the metrics differ"; exit 1; }
    echo "ok: $1"
}

train whole || { cat "$work/log"; exit 1; }
train again
same again

train other seed=43
[ "$(tensors "$work/whole/$last")" != "$(tensors "$work/other/$last")" ] ||
    { echo "FAILED: another seed gave the same bytes"; exit 1; }

for step in 1 5 13; do
    status=0
    train "stop$step" --stop-at $step || status=$?
    [ $status -eq 130 ] || { echo "FAILED: --stop-at exits with $status"; exit 1; }
    train "stop$step" --resume
    same "stop$step"
done

# Killed at random moments, resumed until it is done.
for signal in INT KILL; do
    : "${CT_TEST_SEED:=$RANDOM}"
    echo "SIG$signal, CT_TEST_SEED=$CT_TEST_SEED"
    RANDOM=$CT_TEST_SEED
    for attempt in $(seq 50); do
        "$bin/clip-train" --quiet "${common[@]}" "output=$work/$signal" --resume 2>"$work/log" &
        pid=$!
        sleep "0.$((RANDOM % 8 + 1))"
        if [ "$attempt" -le 6 ]; then kill -"$signal" $pid 2>/dev/null || true; fi
        status=0
        wait $pid 2>/dev/null || status=$?
        [ $status -eq 0 ] && break
    done
    same "$signal"
done
