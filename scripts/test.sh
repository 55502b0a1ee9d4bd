#!/usr/bin/env bash
# Installs what is missing, builds and passes the tests: everything under AddressSanitizer and
# UndefinedBehaviorSanitizer, the threaded modules under ThreadSanitizer, and in the release build,
# which holds the GPU backend where nvcc and cuDNN are found, the end-to-end runs and all that is not as
# well looked at under AddressSanitizer (tests/CMakeLists.txt).
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
