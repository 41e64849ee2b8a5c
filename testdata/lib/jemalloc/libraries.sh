# shellcheck shell=bash disable=SC2054,SC2034 # commas belong to the linker; LINK_WORDS is the caller's
# The builds of jemalloc, and how a program is linked with each. To be sourced by ../libraries.sh.
#
#   jemalloc-5.3.0                  Debian 12's, as installed: radix tree for 48-bit addresses, prof compiled in
#   jemalloc-5.2.1                  bullseye's
#   jemalloc-5.3.0-trixie           trixie's, with its libc: radix tree for 57-bit addresses
#   jemalloc-5.3.1                  that of forky or sid, with its libc
#   jemalloc-5.3.0-debug            built here from Debian's source, with -g, not stripped; without prof
#   jemalloc-5.3.0-symtab           that one after `strip -g`: .symtab, no DWARF
#   jemalloc-5.3.0-nostats          --disable-stats, stripped
#   jemalloc-5.3.0-safety           --enable-opt-safety-checks and prof, stripped
#   jemalloc-5.3.0-redis(-stripped) as Redis has it: classes 8 apart, not cache oblivious, prefix je_, linked into the program
#   jemalloc-5.3.0-page64k          for pages of 64 KiB, stripped
#   jemalloc-5.3.0-rust(-stripped)  tikv-jemallocator 0.6, the program being Rust: prefix _rjem_, no stats
#   jemalloc-5.3.1-rust(-stripped)  the same of 0.7

jemalloc_kinds=(debug nostats safety redis page64k) # what build.sh makes
jemalloc_crates=(5.3.0 5.3.1)

jemalloc_library_of() {
    local system=/usr/lib/x86_64-linux-gnu
    case $1 in
    jemalloc-5.3.0) echo $system/libjemalloc.so.2 ;;
    jemalloc-*-rust-stripped) echo "$LIBRARIES/${1%-stripped}/program" ;;
    jemalloc-*-rust) echo "$LIBRARIES/$1/program" ;;
    jemalloc-5.3.0-redis*) echo "$LIBRARIES/jemalloc-5.3.0-redis/libjemalloc.a" ;;
    jemalloc-5.2.1 | jemalloc-5.3.0-trixie | jemalloc-5.3.1) echo "$LIBRARIES/$1/root$system/libjemalloc.so.2" ;;
    jemalloc-*) echo "$LIBRARIES/$1/libjemalloc.so.2" ;;
    *) fail "no such release: $1" ;;
    esac
}

jemalloc_link_words() {
    local library directory
    library=$(jemalloc_library_of "$1")
    directory=$(dirname "$library")
    case $1 in
    jemalloc-5.3.0-redis*)
        LINK_WORDS=(-DPREFIXED "$library" -lm)
        ;;
    jemalloc-5.3.0-trixie | jemalloc-5.3.1)
        # These want a newer libc than this machine's, so the program starts with theirs.
        LINK_WORDS=(-Wl,--no-as-needed "$library" -Wl,--allow-shlib-undefined -Wl,--disable-new-dtags
            "-Wl,-rpath,$directory" "-Wl,--dynamic-linker,$directory/ld-linux-x86-64.so.2")
        ;;
    *)
        LINK_WORDS=(-Wl,--no-as-needed "$library" -Wl,--disable-new-dtags "-Wl,-rpath,$directory")
        ;;
    esac
}

jemalloc_library_is_stripped() {
    case $1 in
    jemalloc-5.3.0-debug | jemalloc-5.3.0-symtab | jemalloc-5.3.0-redis | jemalloc-*-rust) return 1 ;;
    esac
}

# Builds what is missing or has changed: `debug` first, as the others take its names, then two at a time.
jemalloc_build_libraries() {
    local build=$TESTDATA/lib/jemalloc/build.sh recipe kind crate
    local -a wanted=()
    recipe=$(sha256sum <"$build")
    for kind in "${jemalloc_kinds[@]}"; do
        [ "$(cat "$LIBRARIES/jemalloc-5.3.0-$kind/done" 2>/dev/null)" = "$recipe" ] || wanted+=("$kind")
    done
    if ((${#wanted[@]})); then
        fetch_source jemalloc 5.3.0-1
        echo "libraries: building jemalloc 5.3.0: ${wanted[*]}"
        if [ "${wanted[0]}" = debug ]; then
            "$build" "$recipe" 2 debug || fail "jemalloc does not build (see above)"
            wanted=("${wanted[@]:1}")
        fi
        printf '%s\0' "${wanted[@]}" | xargs -0 -n1 -P2 "$build" "$recipe" 1 || fail "jemalloc does not build (see above)"
        rm -rf "$LIBRARIES/source"
    fi
    for crate in "${jemalloc_crates[@]}"; do
        jemalloc_build_program "$crate"
    done
}

# The Rust programs, which are one with a word for each: tikv-jemallocator as Cargo builds it.
jemalloc_build_program() {
    local directory=$LIBRARIES/jemalloc-$1-rust recipe
    recipe=$(cat "$TESTDATA"/jemalloc/rust/*.rs "$TESTDATA/jemalloc/rust-$1"/Cargo.* "$TESTDATA/lib/jemalloc/libraries.sh" | sha256sum)
    [ "$(cat "$directory/done" 2>/dev/null)" = "$recipe" ] && return 0
    echo "libraries: building the Rust programs with the crate's jemalloc $1"
    mkdir -p "$directory"
    CARGO_TARGET_DIR=$LIBRARIES/jemalloc-build/rust-$1 cargo build -q --release --locked --manifest-path "$TESTDATA/jemalloc/rust-$1/Cargo.toml" \
        >"$LIBRARIES/jemalloc-$1-rust.log" 2>&1 || fail "the Rust programs do not build: $(tail -n 3 "$LIBRARIES/jemalloc-$1-rust.log")"
    ln -f "$LIBRARIES/jemalloc-build/rust-$1/release/jemalloc-fixtures" "$directory/program"
    echo "$recipe" >"$directory/done"
}
