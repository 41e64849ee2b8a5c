#!/bin/bash
# shellcheck source-path=SCRIPTDIR/..
# zoo.sh [-n CORES] [-s FIRST-SEED] [-a ALLOCATOR]... [-p PROGRAM]...: real programs under real workloads, each with each allocator, stopped
# from outside at a moment that a seed gives; heapcheck must find nothing critical in any of them. Needs a release build of heapcheck
# (HEAPCHECK_BIN names another) and, as root, installs the programs. Results go to fixtures/zoo/results.tsv; cores that gave an alarm stay in
# fixtures/zoo/alarms. Returns 1 if there was any.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. testdata/lib/kernel.sh
. testdata/zoo/programs.sh
heapcheck=${HEAPCHECK_BIN:-$PWD/target/release/heapcheck}
zoo=$PWD/fixtures/zoo
count=300 first=1
allocators=() programs=()
while getopts n:s:a:p: option; do
    case $option in
    n) count=$OPTARG ;;
    s) first=$OPTARG ;;
    a) allocators+=("$OPTARG") ;;
    p) programs+=("$OPTARG") ;;
    *) exit 2 ;;
    esac
done
((${#allocators[@]})) || allocators=(ptmalloc tcmalloc jemalloc)
((${#programs[@]})) || programs=("${all_programs[@]}")
kernel_writes_cores
[ -x "$heapcheck" ] || fail "no $heapcheck: run cargo build --release first"
mkdir -p "$zoo/alarms"
install_zoo

preload_of() {
    case $1 in
    ptmalloc) echo '' ;;
    tcmalloc) echo /usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4 ;;
    jemalloc) echo /usr/lib/x86_64-linux-gnu/libjemalloc.so.2 ;;
    *) fail "no such allocator: $1" ;;
    esac
}

# In a shell of its own: starts the program, stops its victim after the seed's delay, ends what else was started. A program sets
# `victim`, the process to stop, adds what it started to `started`, and has `under` before the command of the victim; where the victim
# handles SIGABRT itself, `stop_by` another signal, or gdb's `gcore`.
one_core() {
    local program=$1 preload=$2 seed=$3 process victim='' stop_by=ABRT tries=0
    started=() under=(env ${preload:+LD_PRELOAD=$preload})
    trap 'for process in "${started[@]}"; do kill -KILL "$process" 2>/dev/null || true; done; wait 2>/dev/null || true' EXIT
    ulimit -c "$(ulimit -Hc)"
    "start_$program"
    RANDOM=$seed
    sleep "$((RANDOM % 3)).$((RANDOM % 900 + 100))"
    [ -n "$victim" ] || return 1
    if [ "$stop_by" = gcore ]; then
        gdb -q -nx -batch -p "$victim" -ex 'generate-core-file core.gcore'
        return
    fi
    kill -s "$stop_by" "$victim" || return 1
    while kill -0 "$victim" 2>/dev/null && [ "$(ps -o stat= -p "$victim" | cut -c1)" != Z ] && ((++tries < 600)); do sleep 0.1; done
}

# Appends a line to the results: program, allocator, seed, core's MiB, status, allocators recognised, criticals, warnings, notes, limits that
# made it incomplete. Returns 1 on an alarm.
examine() {
    local core=$1 program=$2 allocator=$3 seed=$4 status=0
    "$heapcheck" --format json --output "$zoo/report.json" "$core" 2>"$zoo/stderr" || status=$?
    python3 - "$zoo/report.json" "$program" "$allocator" "$seed" "$status" >>"$zoo/results.tsv" <<'END'
import json, sys
path, *words, status = sys.argv[1:]
try:
    report = json.load(open(path))
    summary = report["summary"]
    heaps = ",".join(heap["name"] for heap in report["allocators"])
    limits = "; ".join(f'{limit["what"]}: {limit["why"]}' for limit in report["limits"] if limit["incomplete"])
    print(*words, report["core"]["size"] >> 20, status, heaps or "none", summary["critical"], summary["warning"], summary["note"], limits, sep="\t")
    sys.exit(bool(summary["critical"] or summary["warning"] or status not in "03"))
except (KeyError, ValueError) as error:
    print(*words, 0, status, f"no report: {error}", sep="\t")
    sys.exit(1)
END
}

printf 'program\tallocator\tseed\tMiB\tstatus\theaps\tcritical\twarning\tnote\tincomplete because\n' >"$zoo/results.tsv"
made=0 alarms=0 seed=$first
while ((made < count)); do
    for program in "${programs[@]}"; do
        for allocator in "${allocators[@]}"; do
            ((made < count)) || break 2
            work=$zoo/work
            rm -rf "$work"
            mkdir -p "$work/${core_directory:?}"
            chmod 777 "$work"
            (cd "$work" && one_core "$program" "$(preload_of "$allocator")" "$seed") >"$zoo/log" 2>&1 || true
            core=$(find "$work" -type f \( -name 'core' -o -name 'core.*' -o -name '*.core' \) -size +64k | head -n 1)
            if [ -z "$core" ]; then
                echo "$program with $allocator, seed $seed: no core ($(tail -n 1 "$zoo/log"))"
                made=$((made + 1)) # or a program that cannot start would go on for ever
                continue
            fi
            made=$((made + 1))
            if ! examine "$core" "$program" "$allocator" "$seed"; then
                alarms=$((alarms + 1))
                mv "$core" "$zoo/alarms/$program-$allocator-$seed.core"
                echo "ALARM: $(tail -n 1 "$zoo/results.tsv")"
            fi
        done
    done
    seed=$((seed + 1))
done
rm -rf "$zoo/work"
echo "$(($(wc -l <"$zoo/results.tsv") - 1)) cores, $alarms with an alarm: $zoo/results.tsv"
((alarms == 0))
