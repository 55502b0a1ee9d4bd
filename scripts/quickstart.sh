#!/usr/bin/env bash
# Installs what is missing, builds, trains on the bundled photos (about five minutes on two cores)
# and searches them by text.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-deps.sh
cmake --preset release >/dev/null
cmake --build --preset release --target clip-train clip-eval

build/release/bin/clip-train --overwrite configs/quickstart.yaml
build/release/bin/clip-eval runs/quickstart
build/release/bin/clip-eval --query "a frog on the grass" --query "two things at night" runs/quickstart
echo "Open runs/quickstart/report.html in a browser to see curves and pictures."
