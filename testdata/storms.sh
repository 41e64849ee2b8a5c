#!/bin/bash
# shellcheck source-path=SCRIPTDIR/..
# storms.sh [-n CORES] [-s FIRST-SEED] [-r RELEASE]... [-m MODES] [-t THREADS]...: makes CORES cores of testdata/storms.c for each RELEASE (all
# twelve and some that are linked into the program if none is named; `RELEASE+junk` fills what is free), which are stopped at a moment that nobody chose, and has each read by
# heapcheck (a debug build; HEAPCHECK_BIN names another). Modes and numbers of threads take turns. A silent core is deleted at once; one that gives a
# critical finding or a warning stays in fixtures/storms/alarms. Results go to fixtures/storms/results.tsv, a line each;
# at the end they are counted by release and by mode. Returns 1 if there was an alarm. Needs the libraries of ./build-fixtures.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export TESTDATA=$PWD/testdata LIBRARIES=$PWD/fixtures/libraries
. testdata/lib/kernel.sh
. testdata/lib/libraries.sh
heapcheck=${HEAPCHECK_BIN:-$PWD/target/debug/heapcheck}
storms=${STORMS:-$PWD/fixtures/storms}
count=100 first=1 modes=sbxrctlmf
releases=() threads=()
while getopts n:s:r:m:t: option; do
    case $option in
    n) count=$OPTARG ;;
    s) first=$OPTARG ;;
    r) releases+=("$OPTARG") ;;
    m) modes=$OPTARG ;;
    t) threads+=("$OPTARG") ;;
    *) exit 2 ;;
    esac
done
((${#threads[@]})) || threads=(16 12 64 12 16 12 16 64 12 16 200)
((${#releases[@]})) || releases=(glibc-2.31 glibc-2.36 glibc-2.41 glibc-2.43 2.8.1 2.10 2.16 2.18.1
    jemalloc-5.2.1 jemalloc-5.3.0 jemalloc-5.3.0-trixie jemalloc-5.3.1 jemalloc-5.3.0+junk jemalloc-5.3.1+junk
    2.10-static 2.10-static-stripped jemalloc-5.3.0-redis jemalloc-5.3.0-redis-stripped glibc-2.31-static-stripped glibc-2.43-static)
kernel_writes_cores
[ -x "$heapcheck" ] || fail "no $heapcheck: run cargo build first"
mkdir -p "$storms/alarms" "$storms/programs"
results=$storms/results.tsv
: >>"$results"
# What bash itself says of a program that died is not for the terminal; what fail says is.
exec 3>&2 2>"$storms/log"
export FAIL_FD=3

# One core: writes a line of results, keeps an alarmed core.
one_core() {
    local release=$1 program=$2 mode=$3 many=$4 seed=$5 work=$storms/work-$BASHPID core status=0
    mkdir -p "$work/${core_directory:?}"
    (
        case $release in *+junk) export MALLOC_CONF=junk:true ;; esac
        in_core_directory "$work" timeout -s KILL 60 "$program" "$mode" "$many" 120 "$seed"
    ) >/dev/null 2>&1 || true
    core=$(find "$work" -type f -size +64k -print -quit)
    if [ -z "$core" ]; then
        printf '%s\t%s\t%s\t%s\tno core\n' "$release" "$mode" "$many" "$seed" >>"$results"
    else
        nice -n 10 timeout 120 "$heapcheck" --fail-on warning --threads 1 --format json --output "$work/report" "$core" "$program" >/dev/null 2>&1 || status=$?
        printf '%s\t%s\t%s\t%s\t%s\n' "$release" "$mode" "$many" "$seed" "$status" >>"$results"
        if ((status != 0)); then
            mv "$core" "$storms/alarms/$release-$mode$many-$seed.core"
            echo "ALARM ($status): $storms/alarms/$release-$mode$many-$seed.core ($program)"
        fi
    fi
    rm -rf "$work"
}

declare -A programs
for release in "${releases[@]}"; do
    build=${release%%+*}
    program=$storms/programs/storms-$build
    programs[$release]=$program
    [ "$program" -nt testdata/storms.c ] && continue
    link_words "$build"
    gcc -std=gnu11 -Wall -Wextra -Werror -g -O2 -Itestdata -o "$program" testdata/storms.c -pthread "${LINK_WORDS[@]}"
    [[ $build != *-stripped ]] || strip "$program"
done
for ((seed = first; seed < first + count; seed++)); do
    mode=${modes:seed % ${#modes}:1}
    for release in "${releases[@]}"; do
        one_core "$release" "${programs[$release]}" "$mode" "${threads[seed % ${#threads[@]}]}" "$seed"
    done
done
awk -F'\t' '
    { cores[$1]++; cores["mode " $2]++; if ($5 != 0) { bad[$1]++; bad["mode " $2]++; any = 1 } }
    END { for (name in cores) printf "%-24s %5d cores, %d alarms\n", name, cores[name], bad[name] | "sort"; close("sort"); exit any }
' "$results"
