#!/bin/bash
# step-all.sh [RELEASE...]: steps fixtures/stepped/<release> (all if none is named) through every operation, alone and with a second
# thread parked in the middle of its own (each in its own arena, then both in one), and reads the heap at every boundary: ten minutes to an hour for each release. PAIRS:
# windows of an operation at which a thread is parked; REPEATS: how often it reads a boundary of a window at which only registers have
# changed since the same store (3 makes gperftools several times as fast). What it prints stands in docs/accuracy.md. Images that gave
# an alarm are kept under fixtures/alarms. Returns 1 if one was critical.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo build -q --release -p stepper
if (($# == 0)); then
    mapfile -t releases < <(cd fixtures/stepped && ls)
    set -- "${releases[@]}"
fi
PAIRS=${PAIRS:-20}
repeats=${REPEATS:-1000000}
status=0
for release in "$@"; do
    echo "== $release"
    target/release/stepper --repeats "$repeats" --keep "fixtures/alarms/$release" --pairs "$PAIRS" "fixtures/stepped/$release" || status=1
    # gperftools has no arenas.
    [[ $release == [0-9]* ]] && continue
    target/release/stepper --repeats "$repeats" --keep "fixtures/alarms/$release" --pairs "$PAIRS" --pairs-only --env MALLOC_CONF=narenas:1 \
        --env GLIBC_TUNABLES=glibc.malloc.arena_max=1 "fixtures/stepped/$release" || status=1
done
exit $status
