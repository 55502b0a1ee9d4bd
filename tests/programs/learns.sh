#!/usr/bin/env bash
# The README's main job: the quickstart must retrieve photos and captions it has never seen at least
# eight times as well as chance, in both directions, and say so in its report.
# Usage: learns.sh BIN_FOLDER
set -euo pipefail
bin=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$bin/clip-train" configs/quickstart.yaml "output=$work/run"
"$bin/clip-eval" "$work/run"
"$bin/clip-eval" --json "$work/run" >"$work/recall.json"

# r10 DIRECTION: Recall@10 in percent; chance is 10 photos of all.
r10() { sed -E "s/.*\"$1\":\{[^}]*\"r10\":([0-9.]+).*/\1/" "$work/recall.json"; }
photos=$(sed -E 's/.*"photos":([0-9]+).*/\1/' "$work/recall.json")
for direction in image_to_text text_to_image; do
    echo "$direction R@10 $(r10 $direction), $photos photos"
    awk -v r="$(r10 $direction)" -v n="$photos" 'BEGIN { exit !(r >= 8 * 1000 / n) }' ||
        { echo "FAILED: $direction: less than 8 times chance"; exit 1; }
done
grep -q "</html>" "$work/run/report.html"
[ "$(find "$work/run" -name 'checkpoint-*.safetensors' | wc -l)" -ge 1 ]
