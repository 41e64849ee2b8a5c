#!/bin/bash
# shellcheck source-path=SCRIPTDIR
# generate-heap.sh OUTDIR GB MILLIONS [THREADS [SEED]] [--damage double-free|overrun]: a core of GB gigabytes with that many million
# blocks under this machine's libtcmalloc_minimal (see generate-heap.c), with its binary and truth, in OUTDIR. GB and MILLIONS may
# be fractions. generate-heap.sh /var/tmp/big 1 6 is what the measurements in the README were made with.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib/kernel.sh"
[ $# -ge 3 ] || fail "usage: generate-heap.sh OUTDIR GB MILLIONS [THREADS [SEED]] [--damage double-free|overrun]"
kernel_writes_cores
out=$1
bytes=$(awk "BEGIN { printf \"%d\", $2 * 1024 * 1024 * 1024 }")
blocks=$(awk "BEGIN { printf \"%d\", $3 * 1000000 }")
shift 3

mkdir -p "$out"
out=$(cd "$out" && pwd)
gcc -std=gnu11 -O2 -g -Wall -Wextra -I"$here" -o "$out/binary" "$here/generate-heap.c" -pthread -Wl,--no-as-needed -l:libtcmalloc_minimal.so.4
rm -rf "$out/run" "$out/core"
core_of "$out/run" "$out/core" "$out/binary" "$bytes" "$blocks" "$@" >"$out/said" 2>"$out/log" || true
rm -rf "$out/run"
grep '^GIVE-UP' "$out/said" >&2 && exit 1
[ -s "$out/core" ] || fail "generate-heap left no core: $(tail -n 3 "$out/log")"
{
    printf 'RELEASE 2.10\nLINK shared\nSTRIPPED yes\n'
    cat "$out/said"
} >"$out/truth"
rm "$out/said" "$out/log"
cat "$out/truth"
ls -l "$out/core"
