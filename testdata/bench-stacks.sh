#!/bin/bash
# shellcheck source-path=SCRIPTDIR
# bench-stacks.sh OUTDIR [UNITS [THREADS]]: time and peak memory for the stacks of a big program: THREADS threads (1000) that
# wait in different places of a C++ program of UNITS translation units (40) with debug information, and for a small one of four
# threads. Beside heapcheck runs what is installed of eu-stack (elfutils) and gdb. Needs g++, /usr/bin/time (package time)
# and `cargo build --release` first, or HEAPCHECK_BIN=PROGRAM. The first run builds the programs, which takes minutes.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib/kernel.sh"
[ $# -ge 1 ] || fail "usage: bench-stacks.sh OUTDIR [UNITS [THREADS]]"
kernel_writes_cores
heapcheck=${HEAPCHECK_BIN:-$here/../target/release/heapcheck}
[ -x "$heapcheck" ] || fail "$heapcheck is not there: cargo build --release"
[ -x /usr/bin/time ] || fail "/usr/bin/time is not there (package time)"
mkdir -p "$1"
out=$(cd "$1" && pwd)
units=${2:-40}
threads=${3:-1000}

# One unit: a class template around most of the standard library, so that there is much to skip, and a chain of functions,
# inlined ones and others, that ends in one of four waits.
unit() {
    cat <<END
#include <algorithm>
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <tuple>
#include <unordered_map>
#include <variant>
#include <vector>
#include <unistd.h>
namespace unit$1 {
template <typename T, int N> struct Store {
    std::map<std::string, std::vector<std::pair<T, std::array<int, N + 1>>>> map;
    std::unordered_map<T, std::variant<int, std::string, std::set<T>>> other;
    std::function<int(const T &)> function;
    void fill(T value) {
        for (int i = 0; i < N; i++) {
            map[std::to_string(i)].push_back({value, {}});
            other[value] = std::to_string(i);
        }
        for (auto &[key, list] : map)
            std::sort(list.begin(), list.end(), [](auto &a, auto &b) { return a.first < b.first; });
        std::regex pattern("[a-z]+" + std::to_string(N));
        if (std::regex_match(std::to_string(N), pattern)) std::cout << "match";
    }
};
inline void wait(int how) {
    static std::mutex mutex;
    static std::condition_variable never;
    char byte;
    int ends[2];
    switch (how % 4) {
    case 0: for (;;) pause();
    case 1: for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    case 2: { std::unique_lock<std::mutex> lock(mutex); never.wait(lock, [] { return false; }); break; }
    default: if (pipe(ends) == 0 && read(ends[0], &byte, 1) == 1) std::abort();
    }
}
template <int N> struct Deep {
    [[gnu::noinline]] static int go(int left, int how, const std::string &name) {
        if (left == 0) { wait(how); return 0; }
        auto next = [&](int less) { return Deep<(N + 1) % 8>::go(left - less, how, name + "x") + 1; };
        std::function<int(int)> function = next;
        return left % 3 == 0 ? function(1) : next(1) + 1;
    }
};
int run(int how) {
    Store<int, $1 % 7 + 1> one; one.fill(how);
    Store<long, $1 % 5 + 2> two; two.fill(how);
    Store<std::string, $1 % 3 + 1> three; three.fill("x");
    return Deep<0>::go(4 + how % 9, how / 3, "unit");
}
}
END
}

main() {
    local number
    echo '#include <chrono>'
    echo '#include <cstdlib>'
    echo '#include <thread>'
    for ((number = 0; number < units; number++)); do echo "namespace unit$number { int run(int); }"; done
    echo 'static int (*const runs[])(int) = {'
    for ((number = 0; number < units; number++)); do echo "unit$number::run,"; done
    echo '};'
    cat <<'END'
int main(int count, char **arguments) {
    int threads = count > 1 ? atoi(arguments[1]) : 4;
    for (int i = 0; i < threads; i++) std::thread(runs[i % (sizeof runs / sizeof *runs)], i).detach();
    std::this_thread::sleep_for(std::chrono::seconds(threads > 100 ? 10 : 1));
    abort();
}
END
}

if [ "$(cat "$out/made" 2>/dev/null)" != "$units $threads" ]; then
    mkdir -p "$out/source"
    main >"$out/source/main.cc"
    for ((number = 0; number < units; number++)); do unit "$number" >"$out/source/$number.cc"; done
    (cd "$out/source" && printf '%s\n' ./*.cc | xargs -P "$(nproc)" -I@ g++ -std=c++17 -O2 -g -pthread -c @ -o @.o &&
        g++ -pthread -o "$out/binary" ./*.o) || fail "the program does not compile"
    rm -rf "$out/source"
    for count in "$threads" 4; do
        core_of "$out/run" "$out/core-$count" "$out/binary" "$count" >/dev/null 2>"$out/log" 3>&2 || true
        rm -rf "$out/run"
        [ -s "$out/core-$count" ] || fail "no core: $(tail -n 3 "$out/log")"
    done
    echo "$units $threads" >"$out/made"
fi

# measure NAME COMMAND...: the best of three runs, and the number of lines that were written. Time of the processors beside time of
# the clock: on a busy machine only the former tells much.
measure() {
    local name=$1 best="" seconds cpu memory
    shift
    for _ in 1 2 3; do
        /usr/bin/time -f '%e %U %S %M' -o "$out/time" "$@" >"$out/said" 2>/dev/null || true
        read -r seconds cpu memory < <(tail -n 1 "$out/time" | awk '{ print $1, $2 + $3, $4 }')
        if [ -z "$best" ] || awk "BEGIN { exit !($seconds < ${best%% *}) }"; then best="$seconds $cpu $memory"; fi
        # Nobody waits for three runs of a minute each.
        if awk "BEGIN { exit !($seconds > 20) }"; then break; fi
    done
    awk -v name="$name" -v lines="$(wc -l <"$out/said")" -v best="$best" \
        'BEGIN { split(best, b, " "); printf "  %-28s %8.2f s %8.2f s CPU %6.0f MiB %8d lines\n", name, b[1], b[2], b[3] / 1024, lines }'
}

echo "program: $units units, $(($(stat -c %s "$out/binary") >> 20)) MiB with debug information; $(nproc) processors, load $(cut -d' ' -f1 /proc/loadavg)"
for count in "$threads" 4; do
    core=$out/core-$count
    echo "$count threads, core of $(($(stat -c %s "$core") >> 20)) MiB ($(($(stat -c %b "$core") >> 11)) on the disk)"
    measure "heapcheck --minidump" "$heapcheck" --minidump "$core" "$out/binary"
    measure "heapcheck --minidump, JSON" "$heapcheck" --minidump --format json "$core" "$out/binary"
    if command -v gdb >/dev/null; then
        measure "gdb thread apply all bt" gdb -q -nx -batch -ex "file $out/binary" -ex "core $core" -ex "thread apply all bt"
    fi
    if command -v eu-stack >/dev/null; then
        measure "eu-stack -i -s -m" eu-stack -i -s -m --core "$core" -e "$out/binary"
    fi
done
