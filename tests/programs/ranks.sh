#!/usr/bin/env bash
# Several ranks on this machine's processors, as a user starts them: the curve and the recall of one
# rank, stopping and resuming with other numbers of ranks, configurations that differ, and ranks that
# are killed at random moments.
#   ranks.sh BIN_FOLDER [kills]      kills: 3 unless told; CT_TEST_SEED draws them
set -euo pipefail
bin=$1
kills=${2:-3}
seed=${CT_TEST_SEED:-$RANDOM}
RANDOM=$seed
echo "seed $seed"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "ranks.sh: $*" >&2
    exit 1
}

# A transformer without dropout: several ranks then make the numbers of one, but for rounding.
settings=(configs/quickstart.yaml image.encoder=vit image.size=32 image.patch_size=8 image.width=64
    image.depth=2 image.heads=2 image.ffn=128 text.dropout=0 text.attention_dropout=0
    train.batch_size=24 train.max_steps=24 train.warmup_steps=4 train.checkpoint_every=4
    train.eval_every=0 data.validation=100 distributed.timeout_s=20)

# train RANKS FOLDER [arguments]
train() {
    local ranks=$1 folder=$2
    shift 2
    "$bin/clip-train" --quiet --ranks "$ranks" "${settings[@]}" output="$work/$folder" "$@"
}

# Whether the losses of two runs differ by at most LIMIT of themselves, step by step.
same_curve() {
    awk -v limit="$3" '
        match($0, /"step":[0-9]+/) { step = substr($0, RSTART + 7, RLENGTH - 7) }
        match($0, /"loss":[0-9.e+-]+/) {
            loss = substr($0, RSTART + 7, RLENGTH - 7)
            if (FILENAME == ARGV[1]) first[step] = loss
            else {
                if (!(step in first)) exit 1
                d = (loss - first[step]) / first[step]
                if (d < 0) d = -d
                if (d > worst) worst = d
                steps++
            }
        }
        END { printf "%d steps, losses differ by %.1e of themselves at most\n", steps, worst
              exit !(steps > 0 && worst <= limit) }' \
        "$work/$1/metrics.jsonl" "$work/$2/metrics.jsonl" || fail "$1 and $2 have other losses"
}

recall() {
    grep -o '"image_to_text.*' "$work/$1/metrics.jsonl"
}

train 1 one
for ranks in 2 4; do
    train $ranks r$ranks
    echo -n "$ranks ranks: "
    same_curve one r$ranks 1e-4
    [ "$(recall one)" = "$(recall r$ranks)" ] || fail "$ranks ranks have another recall"
done
train 2 zero distributed.zero=true
echo -n "2 ranks, distributed.zero: "
same_curve one zero 1e-4

# Stopped with four ranks, resumed with two, then with one.
train 4 mixed --stop-at 7 2> /dev/null && fail "--stop-at must not end with status 0"
train 2 mixed --resume auto --stop-at 13 2> /dev/null && fail "--stop-at must not end with status 0"
train 1 mixed --resume
echo -n "4, then 2, then 1 rank: "
same_curve one mixed 1e-4

# Parts of the moments come from, and go to, whole ones.
train 3 parts distributed.zero=true --stop-at 9 2> /dev/null && fail "--stop-at: status 0"
train 4 parts distributed.zero=true --resume --stop-at 15 2> /dev/null && fail "--stop-at: status 0"
train 1 parts --resume 2> /dev/null
echo -n "distributed.zero, 3, then 4, then 1 rank: "
same_curve one parts 1e-4

# A batch that the ranks cannot share equally, and ranks that were told different things.
train 5 uneven 2> "$work/message" && fail "24 photos on 5 ranks must be refused"
grep -q "expected a multiple of the number of ranks, 5, found 24" "$work/message" ||
    fail "uneven batch: $(cat "$work/message")"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
timeout 60 mpirun -n 1 "$bin/clip-train" "${settings[@]}" output="$work/a" seed=1 : \
    -n 1 "$bin/clip-train" "${settings[@]}" output="$work/a" seed=2 2> "$work/message" &&
    fail "different configurations must be refused"
grep -qi "configuration" "$work/message" || fail "other configuration: $(cat "$work/message")"

# Whether any process of the run is left.
left() {
    pgrep -f -- "output=$work/$1 " || pgrep -f -- "output=$work/$1\$"
}

# A signal: a checkpoint, and no complaint.
"$bin/clip-train" --quiet --ranks 2 "${settings[@]}" output="$work/stopped" train.max_steps=2000 \
    train.checkpoint_every=0 2> "$work/message" &
pid=$!
while ! grep -q '"step":3,' "$work/stopped/metrics.jsonl" 2> /dev/null; do sleep 0.1; done
kill -TERM $pid # a script's background process ignores SIGINT
status=0
wait $pid || status=$?
[ $status -eq 143 ] || fail "stopped by SIGTERM: status $status"
grep -q "go on with --resume" "$work/message" || fail "SIGTERM: $(cat "$work/message")"
ls "$work"/stopped/checkpoint-* > /dev/null || fail "SIGTERM left no checkpoint"

# Kills: any rank, at any moment, start and end of the run included.
for ((k = 1; k <= kills; k++)); do
    "$bin/clip-train" --quiet --ranks 4 --resume auto "${settings[@]}" output="$work/killed" \
        train.max_steps=4000 2> "$work/message" &
    pid=$!
    sleep "$((RANDOM % 7)).$((RANDOM % 10))"
    mapfile -t ranks < <(pgrep -f -- "$bin/clip-train.*output=$work/killed" | while read -r p; do
        grep -qz '^OMPI_COMM_WORLD_RANK=' "/proc/$p/environ" 2> /dev/null && echo "$p"; done)
    victim=$pid
    [ ${#ranks[@]} -gt 0 ] && victim=${ranks[RANDOM % ${#ranks[@]}]}
    kill -KILL "$victim" 2> /dev/null || true
    begin=$SECONDS
    while left killed > /dev/null; do
        [ $((SECONDS - begin)) -le 15 ] || fail "kill $k: still there after 15 s: $(left killed)"
        sleep 0.1
    done
    status=0
    wait $pid || status=$?
    [ $status -ne 0 ] || fail "kill $k: status 0"
done
echo "$kills kills: all ranks were gone within 15 s each time"
# The last checkpoint is sound, and the run that goes on from it is the one that was never killed.
if [ "$kills" -gt 0 ]; then
    rm -rf "$work/killed/metrics.jsonl.tmp"
    step=$(ls "$work/killed" | sed -n 's/checkpoint-0*\([0-9]*\)\.safetensors/\1/p' | sort -n | tail -1)
    end=$((${step:-0} + 4))
    train 4 killed --resume auto train.max_steps=4000 --stop-at $end 2> /dev/null && fail "status 0"
    train 4 unbroken train.max_steps=4000 --stop-at $end 2> /dev/null && fail "status 0"
    echo -n "killed $kills times, up to step $end: "
    same_curve unbroken killed 0
fi
