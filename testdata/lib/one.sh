#!/bin/bash
# Makes one fixture: one.sh RELEASE NAME SOURCE FLAGS HOW STAMP (called by build-fixtures.sh, several at a time).
# Compiles SOURCE for RELEASE, runs it as HOW says until it has left a core, and puts core, binary and truth in place.
# Says on standard error what went wrong, with the fixture's name, and then returns non-zero.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
. "$here/kernel.sh"
. "$here/libraries.sh"

# What bash itself says of a program that died is not for the terminal; what fail says is.
exec 3>&2
export FAIL_FD=3

release=$1 name=$2 source=$3 flags=$4 how=$5 stamp=$6
target=$FIXTURES/$release/$name
work=$FIXTURES/work/$release/$name
wrong() {
    fail "fixture $release/$name: $*"
}

rm -rf "$target" "$work"
mkdir -p "$target" "$work/run"
program=$work/${name%-[0-9][0-9]}
truth=$work/truth

compile() {
    local compiler=gcc standard=gnu11
    case $source in *.cc) compiler=g++ standard=gnu++17 ;; esac
    local -a words
    read -ra words <<<"$flags"
    link_words "$release"
    "$compiler" -std=$standard -Wall -Wextra -Werror -g "${words[@]}" -o "$program" "$TESTDATA/$source" \
        -pthread "${LINK_WORDS[@]}" || wrong "does not compile"
    case $how in *strip*) strip "$program" ;; esac
    case $release in *-static-stripped) strip "$program" ;; esac
}

# The status that a shell sees for the death stated in the truth.
stated_status() {
    case $(sed -n 's/^DIES signal=\([A-Z]*\).*/\1/p' "$truth") in
    SIGSEGV) echo 139 ;;
    SIGABRT) echo 134 ;;
    SIGILL) echo 132 ;;
    SIGBUS) echo 135 ;;
    *) echo none ;;
    esac
}

wait_for_line() {
    local pid=$1 line=$2 tries=0
    until grep -q "^$line" "$truth"; do
        kill -0 "$pid" 2>/dev/null || wrong "ended before it said $line"
        ((++tries < 3000)) || wrong "never said $line"
        sleep 0.01
    done
}

status=0
run_plain() {
    core_of "$work/run" "$work/core" "$program" >"$truth" 2>"$work/log" || status=$?
}

# Stopped from outside, after a time that the seed gives.
run_storm() {
    local seed=$1 pid
    mkdir -p "$work/run/$core_directory"
    (in_core_directory "$work/run" "$program" "$seed") >"$truth" 2>"$work/log" &
    pid=$!
    wait_for_line "$pid" DIES
    RANDOM=$seed
    sleep "0.$((100 + RANDOM % 700))"
    kill -ABRT "$pid"
    wait "$pid" || status=$?
    take_core "$work/run" "$work/core"
}

# gdb writes the core of a program that waits.
run_gcore() {
    local pid
    (in_core_directory "$work/run" "$program") >"$truth" 2>"$work/log" &
    pid=$!
    wait_for_line "$pid" WAITS
    (cd "$work/run" && gdb -q -nx -batch -p "$pid" -ex "generate-core-file $work/core") >>"$work/log" 2>&1 || true
    kill -KILL "$pid"
    wait "$pid" || true
}

compile
case $how in
*gcore*) run_gcore ;;
*storm*) run_storm "${how##*=}" ;;
*) run_plain ;;
esac >/dev/null 2>"$work/shell" # bash's own "Segmentation fault (core dumped)"

# shellcheck disable=SC2015
grep -q '^GIVE-UP' "$truth" && wrong "$(grep '^GIVE-UP' "$truth")" || true
[ -s "$truth" ] || wrong "printed no truth (status $status; $(head -c 300 "$work/log"))"
grep -qE '^(EXPECT|HEALTHY|REFUSED)' "$truth" || wrong "the truth says neither EXPECT nor HEALTHY"
case $how in
*gcore*) ;;
*) [ "$status" = "$(stated_status)" ] || wrong "ended with status $status, not as stated: $(grep ^DIES "$truth" || echo nothing stated) ($(head -c 300 "$work/log"))" ;;
esac
[ -s "$work/core" ] || wrong "left no core (status $status)"

stripped=no
library_is_stripped "$release" && stripped=yes
link=shared
case $release in *-static*) link=static ;; esac
{
    echo "RELEASE ${release%%-*}"
    echo "LINK $link"
    echo "STRIPPED $stripped"
    grep -v '^WAITS' "$truth"
} >"$target/truth"
mv "$work/core" "$target/core"
ln -f "$program" "$target/binary"
# shellcheck disable=SC2015
[ -s "$work/log" ] && cp "$work/log" "$target/stderr" || true
echo "$stamp" >"$target/stamp"
