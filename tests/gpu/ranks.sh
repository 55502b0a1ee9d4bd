#!/usr/bin/env bash
# Training on several GPUs, `clip-train --gpus N`, against one: on the SIMT device, whose processes
# stand for GPUs and whose NCCL checks what the real one demands, or on a machine with GPUs.
#   ranks.sh CLIP_TRAIN [RANKS ...]      RANKS: 2 and 4 unless told
set -euo pipefail
train=$1
shift
[ $# -gt 0 ] && counts=("$@") || counts=(2 4)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export SIMT_DEVICES=8 SIMT_NCCL_DELAY_US=200

fail() {
    echo "ranks.sh: $*" >&2
    exit 1
}

settings=(configs/quickstart.yaml image.size=32 image.patch_size=8 image.width=64 image.depth=1
    image.heads=2 image.ffn=64 text.depth=1 text.width=64 text.heads=2 text.ffn=64 text.dropout=0
    text.attention_dropout=0 projection.dim=32 train.batch_size=8 train.max_steps=8
    train.warmup_steps=2 train.eval_every=0 data.validation=16 threads=1 data.workers=1 precision=f32
    distributed.bucket_mib=1 distributed.timeout_s=60)
vit=(image.encoder=vit)
# Rates at which the curve does not amplify what batch normalisation makes of another order of sums.
resnet=(image.encoder=resnet18 distributed.sync_bn=true train.max_steps=4 train.lr_image=5e-7)

# run GPUS FOLDER [arguments]
run() {
    local gpus=$1 folder=$2
    shift 2
    "$train" --quiet --gpus "$gpus" "${settings[@]}" output="$work/$folder" "$@" 2> "$work/message" ||
        fail "$folder: $(cat "$work/message")"
}

losses() {
    grep -o '"loss":[0-9.e+-]*' "$work/$1/metrics.jsonl" | cut -d: -f2
}

# same FOLDER FOLDER LIMIT: relative differences of the losses
same() {
    paste <(losses "$1") <(losses "$2") | awk -v limit="$3" -v name="$2" '
        { d = ($2 - $1) / $1; if (d < 0) d = -d; if (d > worst) worst = d; steps++ }
        END { printf "%-22s %d steps, losses differ by %.1e of themselves at most\n", name, steps, worst
              exit !(steps >= 4 && worst <= limit) }' || fail "$1 and $2 have other losses"
}

run 1 one "${vit[@]}"
for ranks in "${counts[@]}"; do
    run "$ranks" "vit-$ranks" "${vit[@]}"
    same one "vit-$ranks" 1e-4
    [ "$(grep -o '"image_to_text.*' "$work/one/metrics.jsonl")" = \
        "$(grep -o '"image_to_text.*' "$work/vit-$ranks/metrics.jsonl")" ] ||
        fail "$ranks ranks have another recall"
done
ranks=${counts[0]}
run "$ranks" no-graphs "${vit[@]}" cuda.graphs=false
same "vit-$ranks" no-graphs 0
run "$ranks" zero "${vit[@]}" distributed.zero=true
same one zero 1e-4
run "$ranks" bf16-gradients "${vit[@]}" distributed.reduce=bf16
same one bf16-gradients 1e-3
run 1 resnet-one "${resnet[@]}"
run "$ranks" resnet-sync_bn "${resnet[@]}"
same resnet-one resnet-sync_bn 1e-4

# A rank that is killed ends the job: one message, an exit status, nobody left.
"$train" --gpus "$ranks" "${settings[@]}" "${vit[@]}" output="$work/killed" train.max_steps=4000 \
    2> "$work/message" &
pid=$!
while ! grep -q '"step":3,' "$work/killed/metrics.jsonl" 2> /dev/null; do sleep 0.1; done
victim=$(pgrep -P $pid | tail -1)
kill -KILL "$victim"
begin=$SECONDS
status=0
wait $pid || status=$?
[ $status -eq 137 ] || fail "a killed rank: status $status"
[ $((SECONDS - begin)) -le 15 ] || fail "a killed rank: down after $((SECONDS - begin)) s"
pgrep -f "output=$work/killed" && fail "a killed rank: others are left"
[ "$(grep -c '^error:' "$work/message")" -eq 1 ] || fail "a killed rank: $(cat "$work/message")"
grep '^error:' "$work/message"
