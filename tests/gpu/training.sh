#!/usr/bin/env bash
# Trains the quickstart's model, narrowed, on the GPU backend and compares:
#   curve   f32: every step's loss equals the CPU's within 1e-4 relative. The towers' learning rate is
#           small and AdamW's eps large, for else rounding grows within some 20 steps: at the
#           quickstart's rates the CPU differs by 3 % from itself with another number of threads.
#   vit     the same with a small Vision Transformer for the photos
#   graphs  recorded steps (CUDA graphs) and eager ones, in f32 and in bf16, write the same tensors, bit
#           for bit
#   bf16    with f32 master weights, and batch statistics coming with the convolutions: ends within 2 %
#           of the f32 loss
#   fp16    with loss scaling, on the Vision Transformer: the same. Not for a few steps only: the first
#           ones are given up until the scale fits
# CPU_PROGRAM and GPU_PROGRAM are clip-train; the second may be built for the SIMT device.
# Usage: training.sh CPU_PROGRAM GPU_PROGRAM STEPS curve|vit|graphs|bf16|fp16 ...
set -euo pipefail
cpu=$1 gpu=$2 steps=$3
shift 3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

narrowed=(image.size=32 text.width=64 text.heads=2 text.ffn=64 text.max_tokens=16 projection.dim=32
    train.batch_size=12 train.warmup_steps=2 data.validation=0 train.checkpoint_every=1000000
    data.workers=1)

# run NAME STEPS PROGRAM overrides ...: trains into $work/NAME.
run() {
    local name=$1 count=$2 program=$3
    shift 3
    rm -rf "${work:?}/$name"
    "$program" configs/quickstart.yaml "output=$work/$name" "${narrowed[@]}" "train.max_steps=$count" \
        "$@" 2>"$work/$name.log" ||
        { tail -5 "$work/$name.log"; echo "FAILED: training $name"; exit 1; }
    sed -n 's/^{"event":"train".*"loss":\([^,]*\),.*/\1/p' "$work/$name/metrics.jsonl" >"$work/$name.loss"
    [ "$(wc -l <"$work/$name.loss")" -eq "$count" ] ||
        { echo "FAILED: $name recorded $(wc -l <"$work/$name.loss") of $count steps"; exit 1; }
}

# Mean loss of the last tenth of the steps.
end_loss() { tail -n $(((steps + 9) / 10)) "$work/$1.loss" | awk '{ s += $1 } END { print s / NR }'; }

# The checkpoint's tensors, without the header, which holds the configuration.
tensors() {
    local file
    file=$(echo "$work/$1"/checkpoint-*.safetensors)
    tail -c "+$(($(od -An -t u8 -N 8 "$file") + 9))" "$file"
}

# curve overrides ...
curve() {
    local rates=(precision=f32 train.lr_image=5e-7 train.lr_text=5e-7 train.lr_head=1e-4 train.eps=1e-4)
    run cpu "$steps" "$cpu" device=cpu "${rates[@]}" "$@"
    run gpu "$steps" "$gpu" device=cuda "${rates[@]}" "$@"
    paste "$work/cpu.loss" "$work/gpu.loss" | awk '
        { d = $1 - $2; if (d < 0) d = -d; d /= $1; if (d > most) { most = d; at = NR } }
        END {
            printf "f32: loss %.5f to %.5f; largest relative difference from the CPU in %d steps: %.2g, at step %d\n", first, $1, NR, most, at
            exit !(most <= 1e-4)
        }
        NR == 1 { first = $1 }' || { echo "FAILED: the loss curve differs from the CPU's"; exit 1; }
}

small_vit=(image.encoder=vit image.patch_size=8 image.width=64 image.depth=2 image.heads=2
    image.ffn=128)

vit() { curve "${small_vit[@]}"; }

graphs() {
    local few=$((steps < 20 ? steps : 20)) precision
    for precision in f32 bf16; do
        run recorded $few "$gpu" device=cuda precision=$precision
        run eager $few "$gpu" device=cuda precision=$precision cuda.graphs=false
        cmp "$work/recorded.loss" "$work/eager.loss" && cmp <(tensors recorded) <(tensors eager) ||
            { echo "FAILED: recorded and eager steps in $precision differ"; exit 1; }
        echo "$precision, graphs on and off: equal bits after $few steps"
    done
}

# against_f32 PRECISION overrides ...
against_f32() {
    local precision=$1 rates=(train.lr_image=5e-5 train.lr_text=5e-5 train.lr_head=5e-4)
    shift
    run f32 "$steps" "$cpu" device=cpu precision=f32 "${rates[@]}" "$@"
    run "$precision" "$steps" "$gpu" device=cuda "precision=$precision" "${rates[@]}" "$@"
    awk -v a="$(end_loss f32)" -v b="$(end_loss "$precision")" -v first="$(head -1 "$work/f32.loss")" \
        -v name="$precision" 'BEGIN {
        d = (b - a) / a
        printf "%s: first loss %.4f, mean of the last tenth %.4f, f32 %.4f (%+.2f %%)\n", name, first, b, a, 100 * d
        exit !(d <= 0.02 && d >= -0.02)
    }' || { echo "FAILED: $precision"; exit 1; }
}

bf16() { against_f32 bf16 cuda.fused_statistics=true cuda.deterministic=false; }

fp16() { against_f32 fp16 "${small_vit[@]}"; }

for part in "$@"; do
    case $part in
    curve | vit | graphs | bf16 | fp16) $part ;;
    *) echo "unknown part $part: expected curve, vit, graphs, bf16 or fp16" >&2; exit 2 ;;
    esac
done
