#!/bin/bash
# shellcheck source-path=SCRIPTDIR/..
# healthy-storm.sh N [RELEASE]: makes N more cores of healthy-threads.c, stopped by chance in the middle of malloc and free,
# under fixtures/storm/RELEASE/healthy-threads-NNNN/ (core, binary, truth). Those that are there already count; FIRST=number
# starts elsewhere. The number is the seed of the delay. RELEASE is one that build-fixtures.sh has prepared; 2.10 if not given.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
count=${1:?how many}
first=${FIRST:-1}
export TESTDATA=$PWD/testdata LIBRARIES=$PWD/fixtures/libraries FIXTURES=$PWD/fixtures/storm
. testdata/lib/kernel.sh
. testdata/lib/libraries.sh
. testdata/lib/table.sh
kernel_writes_cores
release=${2:-2.10} # after the tables, which use the name
[ -e "$(library_of "$release")" ] || fail "no library of $release: run build-fixtures.sh first"
recipe=healthy-threads how=
case $release in *-rust*) recipe=rust-healthy-threads how=argument=healthy-threads, ;; esac
read -r source flags <<<"${RECIPE["$(allocator_of "$release") $recipe"]}"

for ((number = first; number < first + count; number++)); do
    printf -v name 'healthy-threads-%04d' "$number"
    [ -s "$FIXTURES/$release/$name/stamp" ] ||
        printf '%s\0' "$release" "$name" "$source" "-O2 $flags" "${how}storm=$((1000 + number))" storm
done | xargs -0 -r -n6 -P2 testdata/lib/one.sh
echo "$FIXTURES/$release: $(find "$FIXTURES/$release" -name core | wc -l) cores"
