#!/bin/bash
# shellcheck source-path=SCRIPTDIR
# Builds the fixtures: installs what is missing, fetches the releases of the allocators that are tested, compiles the programs
# in testdata/, lets each of them die, and keeps under fixtures/<release>/<name>/ its core, its binary, and the truth that
# it printed about itself before. A second run builds what has changed since; HEAPCHECK_ONLY='glibc-*' leaves other releases'
# fixtures as they are. See testdata/README.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

export TESTDATA=$PWD/testdata FIXTURES=$PWD/fixtures LIBRARIES=$PWD/fixtures/libraries
. testdata/lib/kernel.sh
. testdata/lib/packages.sh
. testdata/lib/libraries.sh
. testdata/lib/table.sh
. testdata/lib/stacks.sh
. testdata/lib/stepped.sh
. testdata/lib/guests.sh
. testdata/lib/holders.sh

machine_is_debian_12
kernel_writes_cores
mkdir -p "$FIXTURES"
room_for_fixtures
install_packages
mkdir -p "$LIBRARIES"
fetch_releases
build_libraries
forget_private_apt
make_table

# A fixture's stamp says what it was made from: sources, recipe and library.
common=$(cat testdata/*.h testdata/lib/one.sh testdata/lib/kernel.sh testdata/lib/libraries.sh | sha256sum)
declare -A source_hash library_hash allocator_hash
for allocator in "${ALLOCATORS[@]}"; do
    allocator_hash[$allocator]=$(cat "testdata/lib/$allocator/libraries.sh" "testdata/$allocator"/*.h | sha256sum)
done
todo=$FIXTURES/todo
: >"$todo"
for release in "${!MISSING_RELEASES[@]}"; do
    echo "$release: ${MISSING_RELEASES[$release]}"
done | sort >"$FIXTURES/missing-releases"
for cell in "${!NOT_APPLICABLE[@]}"; do
    echo "$cell: ${NOT_APPLICABLE[$cell]}"
done | sort >"$FIXTURES/not-applicable"
: >"$FIXTURES/index"
for line in "${TABLE[@]}"; do
    IFS=$'\t' read -r release name source flags how <<<"$line"
    [ -n "${source_hash[$source]:-}" ] || source_hash[$source]=$(cat "$TESTDATA/${source%.*}"*."${source##*.}" | sha256sum)
    build=$release
    [ "$release" != other ] || build=other/$name
    [ -n "${library_hash[$build]:-}" ] || library_hash[$build]=$(sha256sum <"$(library_of "$build")")
    stamp="$common ${allocator_hash[$(allocator_of "$release")]} ${source_hash[$source]} ${library_hash[$build]} $flags $how"
    echo "$release $name" >>"$FIXTURES/index"
    target=$FIXTURES/$release/$name
    # shellcheck disable=SC2053 # a pattern
    [[ $release == ${HEAPCHECK_ONLY:-*} ]] || continue
    if [ -s "$target/core" ] && [ -s "$target/truth" ] && [ -s "$target/binary" ] &&
        [ "$(cat "$target/stamp" 2>/dev/null)" = "$stamp" ]; then
        continue
    fi
    printf '%s\0' "$release" "$name" "$source" "$flags" "$how" "$stamp" >>"$todo"
done

count=$(tr -cd '\0' <"$todo" | wc -c)
echo "fixtures: ${#TABLE[@]} in all, $((count / 6)) to be made"
# What the programs for stacks wait for, one at a time, the others use; and one more than there are processors, since some sleep.
(
    build_stacks
    build_stepped
    build_holders
) &
others=$!
made=0
xargs -0 -r -n6 -P$(($(nproc) + 1)) testdata/lib/one.sh <"$todo" || made=$?
if ((made != 0)); then
    # What some programs die of depends on when a signal comes: those die again, alone.
    echo "fixtures: what could not be made is tried once more"
    made=0
    mapfile -d '' -t cells <"$todo"
    for ((i = 0; i < ${#cells[@]}; i += 6)); do
        [ "$(cat "$FIXTURES/${cells[i]}/${cells[i + 1]}/stamp" 2>/dev/null)" = "${cells[i + 5]}" ] ||
            testdata/lib/one.sh "${cells[@]:i:6}" || made=1
    done
fi
wait "$others" || made=$?
((made == 0)) || fail "some fixtures could not be made (named above)"
rm "$todo"
