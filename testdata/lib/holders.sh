# shellcheck shell=bash
# Rust programs that say who holds their blocks: fixtures/holders/rust-O0 and rust-O2/{core,binary,truth}. To be sourced.

# build_holders: makes what is missing; done anew if a source or this file has changed.
build_holders() {
    local root=$FIXTURES/holders level work stamp status
    stamp=$(cat "$TESTDATA/holders.rs" "$TESTDATA/lib/holders.sh" "$TESTDATA/lib/kernel.sh" | sha256sum)
    if [ "$(cat "$root/stamp" 2>/dev/null)" = "$stamp" ]; then return 0; fi
    rm -rf "$root"
    for level in 0 2; do
        work=$root/rust-O$level status=0
        mkdir -p "$work"
        rustc --edition 2021 -g -C opt-level=$level --crate-name holders -o "$work/binary" "$TESTDATA/holders.rs" 2>"$root/log" ||
            fail "holders.rs does not compile: $(tail -n 3 "$root/log")"
        core_of "$root/run" "$work/core" "$work/binary" >"$work/truth" 2>"$root/log" 3>&2 || status=$?
        if [ "$status" != 134 ] || [ ! -s "$work/core" ]; then
            fail "holders/rust-O$level left no core (status $status; $(head -c 300 "$root/log"))"
        fi
    done
    rm -rf "$root/run" "$root/log"
    echo "$stamp" >"$root/stamp"
}
