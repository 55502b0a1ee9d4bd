#!/usr/bin/env bash
# What the programs say to wrong input, and with which exit status.
# Usage: errors.sh BIN_FOLDER
set -uo pipefail
bin=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

# expect STATUS PATTERN COMMAND...: exit status and a line of its output (extended regular
# expression).
expect() {
    local status=$1 pattern=$2 actual=0
    shift 2
    "$@" >"$work/out" 2>&1 </dev/null || actual=$?
    if [ $actual -ne "$status" ] || ! grep -Eq -- "$pattern" "$work/out"; then
        echo "FAILED: $*"
        echo "  expected status $status and /$pattern/; got status $actual and:"
        sed 's/^/  | /' "$work/out"
        failures=$((failures + 1))
    fi
}

small=(configs/quickstart.yaml train.max_steps=2 train.batch_size=8 image.size=32
    data.validation=40 data.test=0 text.depth=1 train.eval_every=0 train.warmup_steps=1
    threads=2)
train() { "$bin/clip-train" --quiet "$@"; }
# As on a machine without a GPU, whatever this one has.
no_gpu() { CUDA_VISIBLE_DEVICES='' "$@"; }

# Command lines.
for program in clip-train clip-eval clip-vocab; do
    expect 0 "^Usage: $program" "$bin/$program" --help
    expect 0 "^$program [0-9]" "$bin/$program" --version
    expect 2 "help" "$bin/$program" --no-such-option
    expect 2 "help" "$bin/$program"
done
expect 2 "stop-at: expected a whole number" train --stop-at x configs/quickstart.yaml
expect 1 "--gpus: " no_gpu train --gpus 4 configs/quickstart.yaml "output=$work/gpu"
expect 1 "device: cuda: .*; use device: cpu or auto" no_gpu train --device cuda \
    configs/quickstart.yaml "output=$work/gpu"
expect 1 "device=tpu: .*expected .*auto" train --device tpu configs/quickstart.yaml
expect 1 "f32 only" train --device cpu configs/quickstart.yaml precision=bf16 "output=$work/bf16"
expect 1 "train.stochastic_rounding: is for precision: bf16" train configs/quickstart.yaml \
    precision=f32 train.stochastic_rounding=true "output=$work/bf16"

# Configurations.
expect 1 "missing.yaml: cannot open: No such file" train missing.yaml
printf 'train:\n  batch_sise: 3\n' >"$work/key.yaml"
expect 1 "key.yaml:2: train.batch_sise: unknown key.*train.batch_size" train "$work/key.yaml"
printf 'train:\n  batch_size: many\n' >"$work/type.yaml"
expect 1 "type.yaml:2: train.batch_size: expected a whole number.*\"many\"" train "$work/type.yaml"
printf 'image: {size: 8}\n' >"$work/range.yaml"
expect 1 "range.yaml:1: image.size: expected a whole number from 32 to 1024" train "$work/range.yaml"
expect 1 "train.epochs=-1" train configs/quickstart.yaml train.epochs=-1
expect 1 "data.captions" train /dev/null

# Data.
expect 1 "nowhere.txt: cannot open" train "${small[@]}" data.captions=nowhere.txt "output=$work/a"
expect 1 "data.images: nowhere: no such folder" train "${small[@]}" data.images=nowhere \
    "output=$work/b"
expect 1 "holds none of the 1700 photos" train "${small[@]}" data.images="$work" "output=$work/c"
expect 1 "no-vocab.txt: cannot open" train "${small[@]}" text.vocab=no-vocab.txt "output=$work/d"
printf 'a\nb\n' >"$work/vocab.txt"
expect 1 "vocab.txt: .*\[" train "${small[@]}" text.vocab="$work/vocab.txt" "output=$work/d2"
expect 1 "batch" train "${small[@]}" train.batch_size=4000 "output=$work/e"

# Broken photos: some are put up with and named, too many are an error.
mkdir "$work/photos"
for photo in datasets/scenes/Images/*.jpg; do ln -s "$PWD/$photo" "$work/photos/"; done
rm "$work/photos/000003.jpg" "$work/photos/000004.jpg"
head -c 1000 datasets/scenes/Images/000004.jpg >"$work/photos/000004.jpg"
expect 0 "0*000004.jpg" train "${small[@]}" data.images="$work/photos" train.max_steps=170 \
    data.validation=300 "output=$work/f"
expect 1 "data.max_bad_share" train "${small[@]}" data.images="$work/photos" train.max_steps=170 \
    data.validation=300 data.max_bad_share=0 "output=$work/g"

# Checkpoints.
expect 0 "" train "${small[@]}" "output=$work/run"
expect 2 "already holds a run: .*--resume.*--overwrite" train "${small[@]}" "output=$work/run"
expect 0 "" train --overwrite "${small[@]}" "output=$work/run"
checkpoint=$work/run/checkpoint-000000002.safetensors
[ -f "$checkpoint" ] || { echo "FAILED: no $checkpoint"; failures=$((failures + 1)); }
head -c 100000 "$checkpoint" >"$work/cut.safetensors"
expect 1 "cut.safetensors: " "$bin/clip-eval" "$work/cut.safetensors"
expect 1 "quickstart.yaml: not a safetensors file" "$bin/clip-eval" configs/quickstart.yaml
expect 1 "no checkpoint" "$bin/clip-eval" configs
expect 1 "expected shape" train --resume="$checkpoint" "${small[@]}" text.width=256 \
    "output=$work/h"
# A damaged newest checkpoint: the one before is used.
cp "$checkpoint" "$work/run/checkpoint-000000001.safetensors"
head -c 5000 "$checkpoint" >"$work/run/checkpoint-000000003.safetensors"
expect 0 "trying the one before" train --resume "${small[@]}" "output=$work/run"

# A full disk: files may not grow past 1 MiB, as if the disk were full; nothing half-written stays.
full_disk() { (trap '' XFSZ; ulimit -f 1024; exec "$bin/clip-train" --quiet "$@"); }
expect 1 "checkpoint.*(File too large|No space left)" full_disk "${small[@]}" "output=$work/full"
if ls "$work"/full/checkpoint* >/dev/null 2>&1; then
    echo "FAILED: a full disk left a checkpoint behind"
    failures=$((failures + 1))
fi
expect 1 "output: cannot|cannot create|not a folder" train "${small[@]}" output=/dev/null/run

# Search in one's own photos.
mkdir "$work/own"
cp datasets/scenes/Images/00000[1-7].jpg "$work/own/"
expect 0 "own/00000[1-7].jpg" "$bin/clip-eval" --photos "$work/own" --query "a bear" "$checkpoint"
printf 'a bear\na rabbit on the grass\n' >"$work/texts"
expect 0 "\"a rabbit on the grass\"" "$bin/clip-eval" --photos "$work/own" --texts "$work/texts" \
    "$checkpoint"
expect 2 "what to look for is missing" "$bin/clip-eval" --photos "$work/own" "$checkpoint"
expect 1 "expected .jpg" "$bin/clip-eval" --photos configs --query x "$checkpoint"
expect 2 "split: expected" "$bin/clip-eval" --split none "$checkpoint"
expect 0 '"image_to_text":\{"r1":' "$bin/clip-eval" --json --split validation "$checkpoint"

[ $failures -eq 0 ] && echo "all as expected"
exit $((failures > 0))
