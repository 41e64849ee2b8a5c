#!/bin/bash
# measure.sh DIRECTORY [PROGRAM]: time and memory of heapcheck on DIRECTORY/core (see generate-heap.sh), beside reading the same
# file once. Prints seconds (the best of five runs, the file in the page cache) and the peak of heapcheck's own memory: anonymous
# pages, without the mapped core. PROGRAM is target/release/heapcheck if not given.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
core=${1:?directory with core and binary}/core
binary=$1/binary
program=${2:-target/release/heapcheck}
[ -x "$program" ] || { echo "build it first: cargo build --release" >&2; exit 1; }

seconds() { # COMMAND...: wall-clock seconds of one run
    local start end
    start=$(date +%s.%N)
    "$@" >/dev/null 2>&1 || true
    end=$(date +%s.%N)
    awk "BEGIN { printf \"%.3f\n\", $end - $start }"
}
best() {
    for _ in 1 2 3 4 5; do seconds "$@"; done | sort -n | head -n 1
}
own_memory() { # the peak of RssAnon, looked at every few milliseconds
    local peak=0 now
    "$@" >/dev/null 2>&1 &
    local pid=$!
    while now=$(awk '/^RssAnon/ { print $2 }' "/proc/$pid/status" 2>/dev/null) && [ -n "$now" ]; do
        [ "$now" -gt "$peak" ] && peak=$now
    done
    wait "$pid" || true
    echo "$peak"
}

cat "$core" >/dev/null
echo "core             $(stat -c %s "$core") bytes"
echo "cat core         $(best cat "$core") s"
echo "all threads      $(best "$program" "$core" "$binary") s"
echo "one thread       $(best "$program" --threads 1 "$core" "$binary") s"
for _ in 1 2 3 4 5; do own_memory "$program" "$core" "$binary"; done | sort -n | tail -n 1 |
    awk '{ printf "own memory       %.1f MiB\n", $1 / 1024 }'
