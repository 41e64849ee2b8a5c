#!/bin/bash
# step-all.sh [RELEASE...]: steps fixtures/stepped/<release> (all if none is named) through every operation, alone and with a second
# thread parked in the middle of its own, and reads the heap at every boundary: hours. What it prints stands in docs/accuracy.md. Images
# that gave an alarm are kept under fixtures/alarms. Returns 1 if one was critical.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo build -q --release -p stepper
if (($# == 0)); then
    mapfile -t releases < <(cd fixtures/stepped && ls)
    set -- "${releases[@]}"
fi
status=0
for release in "$@"; do
    echo "== $release"
    target/release/stepper --keep "fixtures/alarms/$release" --pairs "${PAIRS:-20}" "fixtures/stepped/$release" || status=1
done
exit $status
