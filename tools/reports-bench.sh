#!/bin/bash
# Groups 10^7 records in one pass: seconds, records a second, and the most memory, for few and for many groups.
# usage: tools/reports-bench.sh [COUNT]
set -eu
count=${1:-10000000}
cd "$(dirname "$(readlink -f "$0")")/.."
cargo build -q --release -p reports --example groups --example lines
bin=${CARGO_TARGET_DIR:-target}/release/examples
for groups in 100 10000; do
    begin=$(date +%s.%N)
    "$bin/lines" "$count" "$groups" | /usr/bin/env python3 -c '
import resource, subprocess, sys
subprocess.run([sys.argv[1], "-"], stdin=sys.stdin, stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024, "MiB at most,", round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime, 1), "s of processor")
' "$bin/groups"
    end=$(date +%s.%N)
    echo "$count records in $groups groups: $(echo "$end - $begin" | bc) s"
done
