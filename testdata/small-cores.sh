#!/bin/bash
# shellcheck source-path=SCRIPTDIR
# Makes tests/cores anew: the cores in the repository, which `cargo test` reads without built fixtures. testdata/small-cores.txt says which.
# Needs what ./build-fixtures.sh has fetched and built. Commit what it writes as a whole: other addresses, other truths.
#
# Programs are compiled and run in a place of their own with an empty environment: cores hold both, and neither is for others to read.
# It writes
#   tests/cores/<release>/<name>/{core.xz,binary.xz,truth}       a fixture as lib/one.sh makes it
#   tests/cores/stacks/<case>/{core.xz,binary.xz,gdb}            a stack of lib/stacks.sh, and what gdb says of it
#   tests/cores/root/<path>.xz                                   libraries, where they lay
#   tests/cores/index                                            RELEASE NAME FILES, a line each
set -Eeuo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$here/../tests/cores
place=/tmp/heapcheck

if [ -z "${HEAPCHECK_SMALL:-}" ]; then
    [ -e "$here/../fixtures/index" ] || { echo "small-cores: run ./build-fixtures.sh first" >&2; exit 1; }
    [ ! -e "$place" ] || { echo "small-cores: $place is in the way" >&2; exit 1; }
    trap 'rm -rf "$place"' EXIT
    mkdir -p "$place/fixtures"
    cp -r "$here" "$place/testdata"
    for directory in "$here"/../fixtures/libraries/*/; do
        case $directory in */jemalloc-build/ | */build/ | *-rust/) continue ;; esac
        name=$(basename "$directory")
        mkdir -p "$place/fixtures/libraries/$name"
        tar -C "$directory" -c --exclude=usr/lib/debug --exclude=usr/share . | tar -C "$place/fixtures/libraries/$name" -x
    done
    (cd "$place" && env -i HEAPCHECK_SMALL=yes PATH=/usr/bin:/bin LC_ALL=C bash "$place/testdata/small-cores.sh")
    rm -rf "$out/root" "$out/index" "${out:?}"/*/
    cp -r "$place"/out/. "$out/"
    du -sh --apparent-size "$out"
    exit 0
fi

export TESTDATA=$place/testdata FIXTURES=$place/fixtures LIBRARIES=$place/fixtures/libraries
. "$here/lib/kernel.sh"
. "$here/lib/libraries.sh"
is_missing() { false; }
. "$here/lib/table.sh"
. "$here/lib/stacks.sh"
. "$here/lib/guests.sh"
kernel_writes_cores
make_table
out=$place/out
mkdir -p "$out"

# pack FILE TO: as small as xz can; no stamp of any time.
pack() {
    mkdir -p "$(dirname "$2")"
    xz -9e --check=crc32 -c "$1" >"$2"
}

# Libraries that a program of this set had mapped and that tests read: the allocators and libc, this machine's own.
keep_libraries() {
    local file
    for file in /usr/lib/x86_64-linux-gnu/{libc.so.6,libtcmalloc_minimal.so.4,libjemalloc.so.2}; do
        file=$(readlink -f "$file")
        pack "$file" "$out/root$file.xz"
    done
}

# row RELEASE NAME: the table's line.
row() {
    local line
    for line in "${TABLE[@]}"; do
        [[ $line == "$1"$'\t'"$2"$'\t'* ]] && { echo "$line"; return; }
    done
    fail "no fixture is called $1 $2"
}

small_fixture() {
    local release name source flags how
    IFS=$'\t' read -r release name source flags how <<<"$(row "$1" "$2")"
    "$TESTDATA/lib/one.sh" "$release" "$name" "$source" "$flags" "$how" small
    pack "$FIXTURES/$release/$name/core" "$out/$release/$name/core.xz"
    [ "$3" = bare ] || pack "$FIXTURES/$release/$name/binary" "$out/$release/$name/binary.xz"
    cp "$FIXTURES/$release/$name/truth" "$out/$release/$name/truth"
}

stacks_built=
small_stack() {
    local debugger=gdb build=${1%-*} target=$FIXTURES/stacks/$1
    if [ -z "$stacks_built" ]; then
        stacks_built=yes
        mkdir -p "$FIXTURES/stacks/build"
        compile_small_stacks
    fi
    case $1 in
    arm64-*) debugger=gdb-multiarch && guest_core "$build" "${1##*-}" ;;
    *) stack_core "$build" "${1##*-}" ;;
    esac
    pack "$target/core" "$out/stacks/$1/core.xz"
    pack "$target/binary" "$out/stacks/$1/binary.xz"
    # Without debug files of the libraries: the tests have none.
    "$debugger" -q -nx -batch -iex "set debug-file-directory $place/none" -ex "set debuginfod enabled off" -ex "set sysroot /" \
        -ex "file $target/binary" -ex "core $target/core" -x "$TESTDATA/stacks/gdb.py" 2>/dev/null | grep '^[TFE] ' >"$out/stacks/$1/gdb"
}

# rustc is not needed for any of these.
compile_small_stacks() {
    rustc() { :; }
    compile_stacks O2
    compile_guests
}

keep_libraries
while read -r release name files; do
    case $release in
    '#'* | '') continue ;;
    stacks) small_stack "$name" ;;
    *) small_fixture "$release" "$name" "$files" ;;
    esac
    echo "$release $name $files" >>"$out/index"
done <"$TESTDATA/small-cores.txt"
