#!/bin/bash
# Makes the logs of crates/reports/tests/logs anew: harbour.c and lighthouse.cpp, built and run in many ways. The first line of each log
# says what the program was asked to do. Needs gcc, g++, clang, llvm-symbolizer and valgrind; libjemalloc and gperftools where they are there.
# usage: testdata/logs.sh [DIRECTORY]
set -u
here=$(dirname "$(readlink -f "$0")")
out=${1:-$here/../crates/reports/tests/logs}
mkdir -p "$out" && out=$(readlink -f "$out")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$here"/logs/*.c "$here"/logs/*.cpp "$work" && cd "$work" || exit 1
sym=$(command -v llvm-symbolizer)
export ASAN_SYMBOLIZER_PATH=$sym MSAN_SYMBOLIZER_PATH=$sym LSAN_SYMBOLIZER_PATH=$sym TSAN_SYMBOLIZER_PATH=$sym UBSAN_SYMBOLIZER_PATH=$sym LANG=C LC_ALL=C
export GLIBCXX_FORCE_NEW=1

# Builds in a folder whose name becomes /src/harbour in the logs.
build() { # COMPILER FLAGS...
    case $1 in gcc) cxx=g++ ;; *) cxx=$1++ ;; esac
    "$1" -w -pthread "${@:2}" harbour.c -o harbour && $cxx -w -pthread "${@:2}" lighthouse.cpp -o lighthouse
}
# Runs a program; the log is what it writes on standard error, or the file `log`.
log() { # NAME PROGRAM BUG...
    rm -f log log.*
    timeout 120 ${wrap:-} "./$2" "${@:3}" >stdout 2>stderr
    { echo "asked: ${*:3}"; cat $(ls log log.* 2>/dev/null) /dev/null; [ -e log ] || ls log.* >/dev/null 2>&1 || cat stderr; } |
        sed -e "s#$work#/src/harbour#g" -e '/^Shadow byte/,/Right alloca/{/^[ =S]/d}' -e 's#/usr/bin/\.\./lib/gcc#/usr/lib/gcc#g' >"$out/$1.log"
}
# TOOL, the options that make it speak, and what it can see.
heap="uaf overrun underrun double badfree leak list"
plus="mirror keeper dream lambda mismatch"

for cc in gcc clang; do
    command -v $cc >/dev/null || continue
    for level in O0 O2; do
        flags="-g -$level -fno-omit-frame-pointer"
        build $cc $flags -fsanitize=address -fsanitize-recover=address || continue
        export ASAN_OPTIONS=halt_on_error=0
        log asan-$cc-$level harbour $heap global stack
        log asan-$cc-$level-null harbour null
        log asan-$cc-$level-plus lighthouse $plus
        if [ $level = O0 ]; then
            ASAN_OPTIONS=halt_on_error=0:log_path=log:log_exe_name=1:color=always:dedup_token_length=3 log asan-$cc-options harbour $heap
            ASAN_OPTIONS=halt_on_error=0:symbolize=0 log asan-$cc-raw harbour $heap
            ASAN_OPTIONS=halt_on_error=0:print_summary=0:strip_path_prefix=/src/:fast_unwind_on_malloc=0 log asan-$cc-plain harbour $heap
            for bug in $heap; do log asan-$cc-one-$bug harbour $bug; done
        fi
        build $cc $flags -fsanitize=leak && LSAN_OPTIONS=report_objects=1 log lsan-$cc-$level harbour leak list
        build $cc $flags -fsanitize=thread && { log tsan-$cc-$level harbour race uaf; log tsan-$cc-$level-plus lighthouse crew; }
        build $cc $flags -fsanitize=undefined && {
            UBSAN_OPTIONS=print_stacktrace=1 log ubsan-$cc-$level harbour overflow shift
            UBSAN_OPTIONS=print_stacktrace=0:report_error_type=1 log ubsan-$cc-$level-short harbour overflow shift
        }
        [ $cc = clang ] && build $cc $flags -fsanitize=memory -fsanitize-memory-track-origins=2 -fsanitize-recover=memory && log msan-$cc-$level harbour uninit
        build $cc $flags -gdwarf-4 # valgrind 3.19 reads no DWARF 5 of clang
        if command -v valgrind >/dev/null; then
            wrap="valgrind -q --leak-check=full --xml=yes --xml-file=log" log valgrind-$cc-$level-xml harbour $heap uninit null
            wrap="valgrind --leak-check=full --show-leak-kinds=all --track-origins=yes --log-file=log" log valgrind-$cc-$level-text harbour $heap uninit null
            wrap="valgrind --leak-check=full --xml=yes --xml-file=log" log valgrind-$cc-$level-plus lighthouse $plus
            [ $level = O0 ] && wrap="valgrind --tool=helgrind --xml=yes --xml-file=log" log helgrind-$cc harbour race
        fi
        wrap=
    done
    # Symbols only, and nothing at all.
    build $cc -O0 -fno-omit-frame-pointer -fsanitize=address -fsanitize-recover=address && {
        log asan-$cc-symbols harbour $heap
        strip -s harbour
        log asan-$cc-stripped harbour $heap
    }
done
build gcc -g -O0
LD_PRELOAD=libc_malloc_debug.so.0 MALLOC_TRACE=log log mtrace harbour leak list
build gcc -g -O0 -Wl,--no-as-needed -l:libjemalloc.so.2 && MALLOC_CONF=prof:true,prof_active:true,lg_prof_sample:0,prof_final:true,prof_prefix:log log jemalloc harbour leak
build gcc -g -O0 -Wl,--no-as-needed -l:libtcmalloc.so.4 && {
    HEAPPROFILE=$work/log log tcmalloc harbour leak
    HEAPCHECK=normal log heapcheck-gperftools harbour leak
}
exit 0
