# shellcheck shell=bash
# Cores of aarch64, written by qemu's user-mode emulator for the program that it runs, to be compared as in lib/stacks.sh:
# fixtures/stacks/arm64-<build>-<mode>/{core,binary}. To be sourced.
#
# Such a core has no NT_FILE, no NT_SIGINFO and no code, hence no build IDs.

# The root of the cross compiler's libraries, as qemu and heapcheck's --sysroot take it.
guest_root=/usr/aarch64-linux-gnu
guest_modes=(null wild smash nocfi leaf frame push go plt store deep mutual overflow overflow-handled handler handler-informed
    free assert threads-40)

# build_guests: all of them, into $FIXTURES/stacks.
build_guests() {
    local build mode out=$FIXTURES/stacks/build
    compile_guests
    aarch64-linux-gnu-strip -o "$out/arm64-stripped" "$out/arm64-static-O2"
    for build in arm64-O0 arm64-pie-O2 arm64-static-O2 arm64-stripped arm64-signed; do
        for mode in "${guest_modes[@]}"; do guest_core $build "$mode"; done
    done
    for build in arm64-deep-O0 arm64-deep-O2; do
        # shellcheck disable=SC2154 # of lib/stacks.sh
        for mode in "${deep_modes[@]}"; do guest_core $build "$mode"; done
    done
}

compile_guests() {
    local out=$FIXTURES/stacks/build source=$TESTDATA/stacks
    {
        guest_cases arm64-O0 O0 -no-pie -Wl,-z,lazy &&
            guest_cases arm64-pie-O2 O2 -pie -fPIE -Wl,-z,lazy &&
            guest_cases arm64-static-O2 O2 -static &&
            guest_cases arm64-signed O2 -static -mbranch-protection=standard &&
            aarch64-linux-gnu-g++ -std=gnu++17 -g -O0 -no-pie -pthread -o "$out/arm64-deep-O0" "$source/deep.cc" &&
            aarch64-linux-gnu-g++ -std=gnu++17 -g -O2 -static -pthread -o "$out/arm64-deep-O2" "$source/deep.cc"
    } 2>"$out/log" || fail "the programs for stacks do not compile for aarch64: $(tail -n 3 "$out/log")"
}

# guest_cases NAME LEVEL FLAGS...
guest_cases() {
    local name=$1 level=$2 out=$FIXTURES/stacks/build source=$TESTDATA/stacks
    shift 2
    aarch64-linux-gnu-gcc -std=gnu11 -g "-$level" -fno-asynchronous-unwind-tables -fno-exceptions "$@" -c -o "$out/$name-nocfi.o" "$source/nocfi.c" &&
        aarch64-linux-gnu-gcc -std=gnu11 -g "-$level" -fomit-frame-pointer -fno-stack-protector -U_FORTIFY_SOURCE -w -pthread "$@" \
            -o "$out/$name" "$source/cases.c" "$source/assembler-aarch64.S" "$out/$name-nocfi.o"
}

guest_core() {
    local build=$1 mode=$2 target=$FIXTURES/stacks/$1-$2 work=$FIXTURES/stacks/build/run
    rm -rf "$work" "$target"
    mkdir -p "$target" "$work"
    ln "$FIXTURES/stacks/build/$build" "$target/binary"
    # The shell that waits says how it died.
    { (in_guest "$work" "$target/binary" "$mode") >"$target/output" 2>&1 || true; } 2>/dev/null
    mv "$work"/qemu_*.core "$target/core" || fail "stacks/$build-$mode left no core ($(head -c 300 "$target/output"))"
    rm -rf "$work" # and qemu's own core
}

in_guest() {
    cd "$1" || exit 98
    ulimit -c "$(ulimit -Hc)"
    echo 0 >/proc/self/coredump_filter # of qemu's own core, nothing
    # Without vectors of unknown length: gdb 13 does not come back from the frame that a signal leaves with them.
    exec qemu-aarch64 -cpu max,sve=off,sme=off -s $((3 << 20)) -L "$guest_root" "$2" "$3"
}
