# shellcheck shell=bash
# The cores whose stacks are compared with gdb's: fixtures/stacks/<build>-<mode>/{core,binary}. To be sourced.

stack_modes=(null wild smash nocfi leaf frame push go plt store deep mutual overflow overflow-handled handler handler-informed free
    assert threads-1000 vdso)
deep_modes=(lambda sort throw throw-own throw-text throw-number throw-class thread)

# build_stacks: makes what is missing; done anew if a source or this file has changed.
build_stacks() {
    local root=$FIXTURES/stacks build mode stamp name
    stamp=$(cat "$TESTDATA"/stacks/* "$TESTDATA/lib/stacks.sh" "$TESTDATA/lib/guests.sh" "$TESTDATA/lib/kernel.sh" | sha256sum)
    if [ "$(cat "$root/stamp" 2>/dev/null)" = "$stamp" ]; then return 0; fi
    rm -rf "$root"
    mkdir -p "$root/build"
    for level in O0 O2; do
        compile_stacks $level
    done
    gcc -std=gnu11 -g -O2 -pthread -o "$root/build/inside" "$TESTDATA/stacks/inside.c" \
        /usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4 2>"$root/build/log" || fail "stacks/inside does not compile"
    objcopy --only-keep-debug "$root/build/cases-O2" "$root/build/cases-O2.debug"
    strip -o "$root/build/stripped" "$root/build/cases-O2"
    strip -o "$root/build/debuglink" "$root/build/cases-O2"
    (cd "$root/build" && objcopy --add-gnu-debuglink=cases-O2.debug debuglink)
    for build in cases-O0 cases-O2 stripped debuglink; do
        for mode in "${stack_modes[@]}"; do stack_core $build "$mode"; done
    done
    for build in deep-O0 deep-O2; do
        for mode in "${deep_modes[@]}"; do stack_core $build "$mode"; done
    done
    for build in rust-O0 rust-O2; do stack_core $build closures; done
    stack_core inside tcmalloc
    build_guests
    for name in "$root"/debuglink-*; do ln -f "$root/build/cases-O2.debug" "$name/"; done
    find "$root" -mindepth 2 -name core -printf '%h\n' | sed 's|.*/||' | sort >"$root/index"
    echo "$stamp" >"$root/stamp"
}

compile_stacks() {
    local level=$1 out=$FIXTURES/stacks/build source=$TESTDATA/stacks
    {
        gcc -std=gnu11 -g "-$level" -fno-asynchronous-unwind-tables -fno-exceptions -c -o "$out/nocfi-$level.o" "$source/nocfi.c" &&
            gcc -std=gnu11 -g "-$level" -fomit-frame-pointer -fno-stack-protector -U_FORTIFY_SOURCE -w -c -o "$out/cases-$level.o" "$source/cases.c" &&
            gcc -pthread -Wl,-z,lazy -o "$out/cases-$level" "$out/cases-$level.o" "$out/nocfi-$level.o" "$source/assembler-x86_64.S" &&
            g++ -std=gnu++17 -g "-$level" -pthread -o "$out/deep-$level" "$source/deep.cc" &&
            rustc --edition 2021 -g -C opt-level="${level#O}" -o "$out/rust-$level" "$source/closures.rs"
    } 2>"$out/log" || fail "the programs for stacks do not compile: $(tail -n 3 "$out/log")"
}

stack_core() {
    local build=$1 mode=$2 target=$FIXTURES/stacks/$1-$2 work=$FIXTURES/stacks/build/run status=0
    rm -rf "$work" "$target"
    mkdir -p "$target"
    ln "$FIXTURES/stacks/build/$build" "$target/binary"
    core_of "$work" "$target/core" "$target/binary" "$mode" >"$target/output" 2>&1 3>&2 || status=$?
    [ -s "$target/core" ] || fail "stacks/$build-$mode left no core (status $status; $(head -c 300 "$target/output"))"
}
