#!/bin/bash
# shellcheck source-path=SCRIPTDIR
# generate-heap.sh OUTDIR GB MILLIONS [THREADS [SEED]] [--damage double-free|overrun] [--lost FILE]: a core of GB gigabytes with that many million
# blocks (see generate-heap.c), with its binary and truth, in OUTDIR. GB and MILLIONS may be fractions. RELEASE=... makes it of another
# allocator's release that build-fixtures.sh has prepared, jemalloc-5.3.0 for one; without, it is this machine's libtcmalloc_minimal.
# generate-heap.sh /var/tmp/big 1 6 is what the measurements in the README were made with.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export TESTDATA=$here LIBRARIES=$here/../fixtures/libraries FIXTURES=$here/../fixtures
. "$here/lib/kernel.sh"
. "$here/lib/libraries.sh"
release=${RELEASE:-2.10}
allocator=$(allocator_of "$release")
[ $# -ge 3 ] || fail "usage: generate-heap.sh OUTDIR GB MILLIONS [THREADS [SEED]] [--damage double-free|overrun]"
kernel_writes_cores
out=$1
bytes=$(awk "BEGIN { printf \"%.0f\", $2 * 1024 * 1024 * 1024 }")
blocks=$(awk "BEGIN { printf \"%.0f\", $3 * 1000000 }")
shift 3

mkdir -p "$out"
out=$(cd "$out" && pwd)
link_words "$release"
gcc -std=gnu11 -O2 -g -Wall -Wextra -I"$here" "-DALLOCATOR=\"$allocator/$allocator.h\"" -o "$out/binary" "$here/generate-heap.c" \
    -pthread "${LINK_WORDS[@]}"
rm -rf "$out/run" "$out/core"
core_of "$out/run" "$out/core" "$out/binary" "$bytes" "$blocks" "$@" >"$out/said" 2>"$out/log" || true
rm -rf "$out/run"
grep '^GIVE-UP' "$out/said" >&2 && exit 1
[ -s "$out/core" ] || fail "generate-heap left no core: $(tail -n 3 "$out/log")"
{
    printf 'RELEASE %s\nALLOCATOR %s\nLINK shared\nSTRIPPED yes\n' "$(version_of "$release")" "$allocator"
    cat "$out/said"
} >"$out/truth"
rm "$out/said" "$out/log"
cat "$out/truth"
ls -l "$out/core"
