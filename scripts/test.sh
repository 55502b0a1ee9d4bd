#!/usr/bin/env bash
# Installs what is missing, builds and passes the tests: modules with threads under ThreadSanitizer, all
# modules under AddressSanitizer and UndefinedBehaviorSanitizer, and in the release build, which holds
# the GPU backend where nvcc and cuDNN are found, modules again and the end-to-end runs. Which test runs
# where: tests/CMakeLists.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-deps.sh

# preset [ctest arguments]: build it and run its tests.
run_preset() {
    local preset=$1
    shift
    echo "== $preset =="
    cmake --preset "$preset" >/dev/null
    cmake --build --preset "$preset"
    ctest --preset "$preset" -j "$(nproc)" "$@"
}

run_preset tsan -R '^(loader|text|data|base|world)$'
run_preset asan -LE e2e
run_preset release -LE asan
