#!/usr/bin/env bash
# Trains the quickstart's model, narrowed, on the GPU backend and asks that
#   1. in f32 every step's loss equals the CPU's within 1e-4 relative;
#   2. recorded steps (CUDA graphs) and eager ones give the same checkpoint, bit for bit;
#   3. bf16 with f32 master weights ends within 2 % of the f32 loss, fp16 with loss scaling too.
# CPU_PROGRAM and GPU_PROGRAM are clip-train; the second may be built for the SIMT device.
# Usage: training.sh CPU_PROGRAM GPU_PROGRAM STEPS
set -euo pipefail
cpu=$1 gpu=$2 steps=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

narrowed=(image.size=32 text.width=32 text.heads=1 text.ffn=64 text.max_tokens=16 projection.dim=32
    train.batch_size=12 train.warmup_steps=20 train.lr_image=2e-4 train.lr_text=2e-4
    train.lr_head=2e-4 data.validation=0 "train.max_steps=$steps" train.checkpoint_every=1000000
    data.workers=1)

# run NAME PROGRAM overrides ...: trains into $work/NAME.
run() {
    local name=$1 program=$2
    shift 2
    "$program" configs/quickstart.yaml "output=$work/$name" "${narrowed[@]}" "$@" 2>"$work/$name.log" ||
        { tail -5 "$work/$name.log"; echo "FAILED: training $name"; exit 1; }
    sed -n 's/^{"event":"train".*"loss":\([^,]*\),.*/\1/p' "$work/$name/metrics.jsonl" >"$work/$name.loss"
    [ "$(wc -l <"$work/$name.loss")" -eq "$steps" ] ||
        { echo "FAILED: $name recorded $(wc -l <"$work/$name.loss") of $steps steps"; exit 1; }
}

# Mean loss of the last tenth of the steps.
end_loss() { tail -n $(((steps + 9) / 10)) "$work/$1.loss" | awk '{ s += $1 } END { print s / NR }'; }

run cpu "$cpu" device=cpu precision=f32
run f32 "$gpu" device=cuda precision=f32
paste "$work/cpu.loss" "$work/f32.loss" | awk '
    { d = $1 - $2; if (d < 0) d = -d; d /= $1; if (d > most) { most = d; at = NR } }
    END {
        printf "f32: largest relative difference from the CPU over %d steps: %.2g, at step %d\n", NR, most, at
        exit !(most <= 1e-4)
    }' || { echo "FAILED: the loss curve differs from the CPU's"; exit 1; }

run eager "$gpu" device=cuda precision=f32 cuda.graphs=false
cmp "$work/f32.loss" "$work/eager.loss"
cmp "$work"/f32/checkpoint-*.safetensors "$work"/eager/checkpoint-*.safetensors ||
    { echo "FAILED: recorded and eager steps differ"; exit 1; }
echo "graphs on and off: equal bits after $steps steps"

for precision in bf16 fp16; do
    run $precision "$gpu" device=cuda precision=$precision
    awk -v a="$(end_loss f32)" -v b="$(end_loss $precision)" -v name=$precision 'BEGIN {
        d = (b - a) / a
        printf "%s: the last tenth of the steps has a mean loss of %.5f, f32 %.5f (%+.2f %%)\n", name, b, a, 100 * d
        exit !(d <= 0.02 && d >= -0.02)
    }' || { echo "FAILED: $precision"; exit 1; }
done
