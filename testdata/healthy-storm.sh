#!/bin/bash
# shellcheck source-path=SCRIPTDIR/..
# healthy-storm.sh N [RELEASE [FIXTURE]]: makes N more cores of a healthy fixture that chance decides about, under
# fixtures/storm/RELEASE/FIXTURE-NNNN/ (core, binary, truth). Those that are there already count; FIRST=number starts elsewhere.
# RELEASE is one that build-fixtures.sh has prepared, 2.10 if not given; FIXTURE is a name in fixtures/RELEASE without its
# number: healthy-threads (stopped in the middle of malloc and free; the number is the seed of the delay) if not given,
# healthy-fork-storm, healthy-altstack, ... What they show: cargo test --release --features fixtures --test fixtures storm -- --ignored
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
count=${1:?how many}
first=${FIRST:-1} wanted=${3:-healthy-threads}
export TESTDATA=$PWD/testdata LIBRARIES=$PWD/fixtures/libraries FIXTURES=$PWD/fixtures/storm
. testdata/lib/kernel.sh
. testdata/lib/packages.sh
. testdata/lib/libraries.sh
. testdata/lib/table.sh
kernel_writes_cores
make_table
release=${2:-2.10} # after the tables, which use the name
[ -e "$(library_of "$release")" ] || fail "no library of $release: run build-fixtures.sh first"

for line in "${TABLE[@]}"; do
    IFS=$'\t' read -r in_release name source flags how <<<"$line"
    [ "$in_release" = "$release" ] && [[ $name =~ ^"$wanted"(-[0-9]+)?$ ]] && break
    name=
done
[ -n "$name" ] || fail "no fixture $wanted of $release"

for ((number = first; number < first + count; number++)); do
    printf -v name '%s-%04d' "$wanted" "$number"
    [ -s "$FIXTURES/$release/$name/stamp" ] ||
        printf '%s\0' "$release" "$name" "$source" "$flags" "${how/storm=*/storm=$((1000 + number))}" storm
done | xargs -0 -r -n6 -P2 testdata/lib/one.sh
echo "$FIXTURES/$release: $(find "$FIXTURES/$release" -name core | wc -l) cores"
