#!/bin/bash
# shellcheck source-path=SCRIPTDIR disable=SC2054,SC2154
# Makes one fixture: one.sh RELEASE NAME SOURCE FLAGS HOW STAMP (called by build-fixtures.sh, several at a time).
# Compiles SOURCE for RELEASE, runs it as HOW says until it has left a core, and puts core, binary and truth in place.
# HOW is plain, or words joined by commas: strip (the program), gcore, storm=SEED, env=NAME=VALUE (also several), argument=WORD,
# static=-static, module (SOURCE has a shared object of its own, SOURCE-module.c), plugin (the same, but the program itself loads it,
# from PLUGIN).
# Says on standard error what went wrong, with the fixture's name, and then returns non-zero.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
. "$here/kernel.sh"
. "$here/libraries.sh"

# What bash itself says of a program that died is not for the terminal; what fail says is.
exec 3>&2
export FAIL_FD=3

release=$1 name=$2 source=$3 flags=$4 how=$5 stamp=$6
build=$release
[ "$release" != other ] || build=other/$name
target=$FIXTURES/$release/$name
work=$FIXTURES/work/$release/$name
wrong() {
    fail "fixture $release/$name: $*"
}

rm -rf "$target" "$work"
mkdir -p "$target" "$work/run"
program=$work/$name
[[ $name =~ ^(.*)-[0-9]+$ ]] && program=$work/${BASH_REMATCH[1]}
truth=$work/truth
module=$work/lib$(basename "${source%.c}").so # if there is one

# Whether HOW has a word; what_of is its value.
has() {
    [[ ,$how, == *",$1,"* || ,$how, == *",$1="* ]]
}
what_of() {
    local rest=,$how,
    rest=${rest#*,"$1"=}
    echo "${rest%%,*}"
}

compile() {
    local compiler=gcc standard=gnu11
    case $source in *.cc) compiler=g++ standard=gnu++17 ;; esac
    local -a words
    read -ra words <<<"$flags"
    link_words "$build"
    has static && LINK_WORDS+=("$(what_of static)")
    if has plugin; then
        gcc -std=gnu11 -Wall -Wextra -Werror -g "${words[0]}" -fPIC -shared -o "$module" "$TESTDATA/${source%.c}-module.c" ||
            wrong "the plug-in does not compile"
        words+=("-DPLUGIN=\"$module\"")
    fi
    if has module; then
        # Linked where the program is, which cannot be moved, so the module is; with gaps that the file does not have.
        gcc -std=gnu11 -Wall -Wextra -Werror -g "${words[0]}" -fPIC -shared -o "$module" \
            "$TESTDATA/${source%.c}-module.c" -I"$TESTDATA" -Wl,-Ttext-segment=0x10000000 \
            -Wl,-z,max-page-size=0x1000 -Wl,--section-start=.text=0x10300000 -Wl,-Tdata=0x10a00000 || wrong "the module does not compile"
        words+=(-no-pie -Wl,-Ttext-segment=0x10000000)
        LINK_WORDS+=("$module" "-Wl,-rpath,$work")
    fi
    case $source in
    *.rs) cp "$(library_of "$build")" "$program" ;; # built by Cargo, allocator and all
    *)
        "$compiler" -std=$standard -Wall -Wextra -Werror -g "${words[@]}" -I"$TESTDATA" -o "$program" "$TESTDATA/$source" \
            -pthread "${LINK_WORDS[@]}" || wrong "does not compile"
        ;;
    esac
    has strip && strip "$program"
    case $release in *-stripped) strip "$program" ;; esac
    return 0
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
    core_of "$work/run" "$work/core" "${command[@]}" >"$truth" 2>"$work/log" || status=$?
}

# Stopped from outside, after a time that the seed gives.
run_storm() {
    local seed=$1 pid
    mkdir -p "$work/run/$core_directory"
    (in_core_directory "$work/run" "${command[@]}" "$seed") >"$truth" 2>"$work/log" &
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
    (in_core_directory "$work/run" "${command[@]}") >"$truth" 2>"$work/log" &
    pid=$!
    wait_for_line "$pid" WAITS
    (cd "$work/run" && gdb -q -nx -batch -p "$pid" -ex "generate-core-file $work/core") >>"$work/log" 2>&1 || true
    kill -KILL "$pid"
    wait "$pid" || true
}

compile
# The environment is the program's alone: it may preload what these tools here would not bear. A static program's libc allocates
# for this one.
unset LD_LIBRARY_PATH
command=("$program")
IFS=, read -ra how_words <<<"$how"
for word in "${how_words[@]}"; do
    case $word in
    env=*) command=("${word#env=}" "${command[@]}") ;;
    argument=*) command+=("${word#argument=}") ;;
    esac
done
[ "${command[0]}" = "$program" ] || command=(env "${command[@]}")
if has gcore; then
    run_gcore
elif has storm; then
    run_storm "$(what_of storm)"
else
    run_plain
fi >/dev/null 2>"$work/shell" # bash's own "Segmentation fault (core dumped)"

# shellcheck disable=SC2015
grep -q '^GIVE-UP' "$truth" && wrong "$(grep '^GIVE-UP' "$truth")" || true
[ -s "$truth" ] || wrong "printed no truth (status $status; $(head -c 300 "$work/log"))"
grep -qE '^(EXPECT|HEALTHY|OTHER)' "$truth" || wrong "the truth says neither EXPECT nor HEALTHY"
if ! has gcore && [ "$status" != "$(stated_status)" ]; then
    wrong "ended with status $status, not as stated: $(grep ^DIES "$truth" || echo nothing) ($(head -c 300 "$work/log"))"
fi
[ -s "$work/core" ] || wrong "left no core (status $status)"

stripped=no
library_is_stripped "$build" && stripped=yes
link=shared
case $release in *-static* | *-redis* | *-rust*) link=static ;; esac
{
    case $release in
    other) echo "RELEASE none" ;;
    *) printf 'RELEASE %s\nALLOCATOR %s\n' "$(version_of "$release")" "$(allocator_of "$release")" ;;
    esac
    echo "LINK $link"
    echo "STRIPPED $stripped"
    # A wholly static program's libc allocates 48 bytes before main, so that class is not unused at start-up there.
    case $how in *static=*) grep -v '^WAITS\|^CLASS size=48 ' "$truth" ;; *) grep -v '^WAITS' "$truth" ;; esac
} >"$target/truth"
mv "$work/core" "$target/core"
ln -f "$program" "$target/binary"
grep -v 'lib/kernel.sh: line' "$work/log" >"$target/stderr" || rm "$target/stderr"
if has module || has plugin; then ln -f "$module" "$target/"; fi
echo "$stamp" >"$target/stamp"
