#!/usr/bin/env bash
# Compiler launcher of the device code: runs nvcc and keeps what ptxas says of each kernel (registers,
# shared memory, spills) beside the object, for scripts/check-kernels.sh.
#   keep-ptxas.sh nvcc arguments ... -o object ...
set -uo pipefail
object=""
previous=""
for argument in "$@"; do
    [ "$previous" = "-o" ] && object=$argument
    previous=$argument
done
[ -n "$object" ] || exec "$@"
"$@" 2>"$object.ptxas"
status=$?
grep -v -e '^ptxas info' -e '^    [0-9]* bytes stack frame' "$object.ptxas" >&2
exit $status
