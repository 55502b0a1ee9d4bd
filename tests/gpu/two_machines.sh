#!/usr/bin/env bash
# Two "machines" (network namespaces joined by a veth pair) with a rank each, started by hand with
# RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT: training over the network, and a cable that
# is cut in mid-run. Needs root and iproute2; by hand, not in CTest.
#   two_machines.sh CLIP_TRAIN     (clip-train-simt where there is no GPU)
set -euo pipefail
train=$(realpath "$1")
limit=10
[ "$(id -u)" -eq 0 ] && command -v ip > /dev/null || { echo "needs root and iproute2" >&2; exit 77; }
work=$(mktemp -d)
clean_up() {
    pkill -KILL -f "output=$work" 2> /dev/null || true
    ip netns delete ct-one 2> /dev/null || true
    ip netns delete ct-two 2> /dev/null || true
    rm -rf "$work"
}
trap clean_up EXIT

fail() {
    echo "two_machines.sh: $*" >&2
    exit 1
}

ip netns add ct-one
ip netns add ct-two
ip link add ct-a netns ct-one type veth peer name ct-b netns ct-two
ip -n ct-one address add 10.99.0.1/24 dev ct-a
ip -n ct-two address add 10.99.0.2/24 dev ct-b
for side in "ct-one ct-a" "ct-two ct-b"; do
    read -r space device <<< "$side"
    ip -n "$space" link set lo up
    ip -n "$space" link set "$device" up
done

settings=(configs/quickstart.yaml image.encoder=vit image.size=32 image.patch_size=8 image.width=64
    image.depth=1 image.heads=2 image.ffn=64 text.depth=1 text.width=64 text.heads=2 text.ffn=64
    projection.dim=32 train.batch_size=8 train.warmup_steps=2 train.eval_every=0 data.validation=16
    threads=1 data.workers=1 device=cuda precision=f32 distributed.timeout_s=$limit)

# start RANK NAMESPACE FOLDER [arguments]: in the background
start() {
    local rank=$1 space=$2 folder=$3
    shift 3
    ip netns exec "$space" env RANK="$rank" WORLD_SIZE=2 LOCAL_RANK=0 MASTER_ADDR=10.99.0.1 \
        MASTER_PORT=29500 CT_JOB_TOKEN=two-machines "$train" --quiet "${settings[@]}" \
        output="$work/$folder" "$@" 2> "$work/message-$rank" &
}

start 0 ct-one whole train.max_steps=5
first=$!
start 1 ct-two whole train.max_steps=5
second=$!
wait $first || fail "rank 0: $(cat "$work/message-0")"
wait $second || fail "rank 1: $(cat "$work/message-1")"
echo "two machines: $(grep -c '"event":"train"' "$work/whole/metrics.jsonl") steps"

start 0 ct-one cut train.max_steps=100000 train.checkpoint_every=2
first=$!
start 1 ct-two cut train.max_steps=100000 train.checkpoint_every=2
second=$!
while ! grep -q '"step":5,' "$work/cut/metrics.jsonl" 2> /dev/null; do sleep 0.1; done
ip -n ct-two link set ct-b down
begin=$SECONDS
status=0
wait $first || status=$?
[ $status -ne 0 ] || fail "rank 0 ended with status 0"
status=0
wait $second || status=$?
[ $status -ne 0 ] || fail "rank 1 ended with status 0"
took=$((SECONDS - begin))
[ $took -le $((2 * limit)) ] || fail "down after $took s only"
echo "cable cut: both ranks were down within $took s (distributed.timeout_s: $limit)"
sed 's/^/  rank 0: /' "$work/message-0" | grep error || true
sed 's/^/  rank 1: /' "$work/message-1" | grep error || true
ls "$work"/cut/checkpoint-* > /dev/null || fail "no checkpoint is left"
"$train" --quiet --resume auto "${settings[@]}" output="$work/cut" train.max_steps=100000 \
    --stop-at "$(($(grep -c '"event":"train"' "$work/cut/metrics.jsonl") + 3))" 2> /dev/null || true
echo "resumed by one rank: $(grep -c '"event":"train"' "$work/cut/metrics.jsonl") steps"
